//! The embedded bus beyond what every bus must do: its queue, its thread, its files.

use super::*;
use futures_util::FutureExt;

use crate::bus::BusEvent;
use crate::bus::conformance::{Fixture, names, occurrence, update};

/// Distinct epochs.
pub(super) fn epochs() -> impl FnMut() -> Epoch {
    let mut next = 0;
    move || {
        next += 1;
        Epoch::from_bits(next)
    }
}

impl EmbeddedBus {
    /// Keeps the writer from doing anything until what this gives is dropped.
    pub(super) async fn hold(commands: mpsc::Sender<Command>) -> std::sync::mpsc::SyncSender<()> {
        let (release, released) = std::sync::mpsc::sync_channel(0);
        let (held, is_held) = oneshot::channel();
        assert!(commands.send(Command::Hold(held, released)).await.is_ok());
        is_held.await.unwrap();
        release
    }
}

fn fixture(mut bus: EmbeddedBus, deadline: Duration, keep: Box<dyn std::any::Any + Send + Sync>) -> Fixture {
    bus.deadline = deadline;
    let commands = bus.commands.clone();
    let stall = Box::new(move || {
        let commands = commands.clone();
        Box::pin(async move { Box::new(EmbeddedBus::hold(commands).await) as Box<dyn std::any::Any + Send> })
            as Call<'static, _>
    });
    Fixture { bus: Arc::new(bus), stall, _keep: keep }
}

pub(crate) fn memory(deadline: Duration) -> Call<'static, Fixture> {
    Box::pin(async move {
        let bus = EmbeddedBus::open(&names(), None, Clock::start(), epochs()).unwrap();
        fixture(bus, deadline, Box::new(()))
    })
}

pub(crate) fn disk(deadline: Duration) -> Call<'static, Fixture> {
    Box::pin(async move {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(&names(), Some(dir.path()), Clock::start(), epochs()).unwrap();
        fixture(bus, deadline, Box::new(dir))
    })
}

#[tokio::test]
async fn dropping_a_bus_with_a_full_queue_stores_what_is_queued() {
    let bus = EmbeddedBus::open(&names(), None, Clock::start(), epochs()).unwrap();
    let held = EmbeddedBus::hold(bus.commands.clone()).await;
    let mut answers = Vec::new();
    loop {
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish(Box::new(occurrence(0, answers.len())), reply);
        if bus.commands.try_send(command).is_err() {
            break;
        }
        answers.push(answer);
    }
    assert_eq!(answers.len(), COMMANDS_MAX);
    let release = std::thread::spawn(move || drop(held));
    drop(bus);
    release.join().unwrap();
    for (index, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap().unwrap().seq, index as u64 + 1);
    }
}

#[tokio::test]
async fn a_publisher_that_finds_the_logs_free_appends_by_itself() {
    let bus = EmbeddedBus::open(&names(), None, Clock::start(), epochs()).unwrap();
    let mut follow = bus.follow().await.unwrap();
    // The thread has them for a moment, with what was asked of it.
    let appended = async {
        loop {
            match bus.append(Box::new(update(0, "a", 1))) {
                Ok(result) => return result,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    assert_eq!(tokio::time::timeout(CALL_TIMEOUT, appended).await.unwrap().unwrap().seq, 1);
    for _ in names() {
        assert!(matches!(follow.next().await, Some(BusEvent::Reset(_))));
    }
    assert!(matches!(follow.next().await, Some(BusEvent::Stored(stored)) if stored.seq == 1));
    bus.shutdown().await;
    assert!(bus.append(Box::new(update(0, "a", 2))).is_err());
    assert!(matches!(bus.publish(update(0, "a", 2)).await, Err(PublishError::Unavailable(_))));
    assert!(follow.next().await.is_none());
}

#[tokio::test]
async fn a_publication_that_nobody_waits_for_any_more_is_not_stored() {
    let fixture = memory(CALL_TIMEOUT).await;
    let held = (fixture.stall)().await;
    let given_up = fixture.bus.publish(update(0, "a", 1)).now_or_never();
    assert!(given_up.is_none());
    drop(held);
    assert_eq!(fixture.bus.publish(update(0, "a", 2)).await.unwrap().seq, 1);
}

#[tokio::test]
async fn a_follower_of_a_dropped_bus_ends_even_while_it_lags() {
    let fixture = memory(CALL_TIMEOUT).await;
    let mut follow = fixture.bus.follow().await.unwrap();
    for nonce in 0..crate::bus::follower::LAG_MAX as u64 + 1 {
        fixture.bus.probe(nonce).await.unwrap();
    }
    drop(fixture);
    assert!(matches!(follow.next().await, Some(BusEvent::Reset(_))));
    assert!(matches!(follow.next().await, Some(BusEvent::Reset(_))));
    assert!(follow.next().await.is_none());
}
