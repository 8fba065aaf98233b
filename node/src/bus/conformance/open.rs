//! Logs that begin while the bus runs.

use hiveops_proto::SubscriptionName;

use super::{BusEvent, Envelope, Follow, Make, NAMES, Publish, SubId, publish, update};
use crate::bus::CALL_TIMEOUT;

/// A log beyond those of the fixture.
fn third() -> (SubId, SubscriptionName) {
    (SubId::from_index(NAMES.len()).unwrap(), SubscriptionName::new("deployments").unwrap())
}

fn in_third(publish: Publish) -> Publish {
    let (sub, name) = third();
    Publish { sub, envelope: Envelope { subscription: name, ..publish.envelope }, ..publish }
}

/// The next thing that is said of the new log.
async fn of_third(follow: &mut Box<dyn Follow>) -> BusEvent {
    loop {
        let event = follow.next().await.expect("the bus runs");
        let sub = match &event {
            BusEvent::Reset(reset) => reset.sub,
            BusEvent::Stored(stored) => stored.sub,
            BusEvent::Probe(_) | BusEvent::Told(_) => continue,
        };
        if sub == third().0 {
            return event;
        }
    }
}

/// Followers from before are told of the log, then of what comes; those that come later find both.
pub(crate) async fn a_log_can_begin_while_the_bus_runs(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = &fixture.bus;
    let mut early = bus.follow().await.unwrap();
    publish(&**bus, update(0, "a", 1)).await;
    bus.open(vec![third()]).await.unwrap();
    // Asking again for what is there already does no harm.
    bus.open(vec![third()]).await.unwrap();
    let BusEvent::Reset(reset) = of_third(&mut early).await else { panic!("the log is read first") };
    assert_eq!((reset.head, reset.entries.len()), (0, 0));
    let ack = publish(&**bus, in_third(update(0, "a", 2))).await;
    assert_eq!((ack.epoch, ack.seq), (reset.epoch, 1));
    let BusEvent::Stored(stored) = of_third(&mut early).await else { panic!("it is told once") };
    assert_eq!((stored.seq, stored.envelope.subscription.as_str()), (1, "deployments"));
    let mut late = bus.follow().await.unwrap();
    let BusEvent::Reset(reset) = of_third(&mut late).await else { panic!("the log is read first") };
    assert_eq!((reset.head, reset.entries.len()), (1, 1));
    // The logs from before go on, and probes come back over all of them.
    assert_eq!(publish(&**bus, update(0, "a", 3)).await.seq, 2);
    bus.probe(7).await.unwrap();
    while !matches!(late.next().await.expect("the bus runs"), BusEvent::Probe(7)) {}
}
