//! The rings of a node: what is found, and what has made room for something else.

use std::sync::Arc;

use hiveops_proto::{Envelope, Payload};

use super::answer::ENTRIES_MAX;
use super::*;
use crate::board::testing::catalog;

const ORIGIN: Origin = Origin { source: origin::Source::Http, by: origin::By::StaticToken, parent: None };

struct Bench {
    catalog: Arc<Catalog>,
    traces: Arc<Traces>,
}

impl Bench {
    fn new() -> Self {
        let (catalog, clock) = (catalog(), Clock::start());
        Self { traces: Traces::new(&catalog, clock, None), catalog }
    }

    fn stored(&self, subscription: &str, seq: u64, id: &str) -> Stored {
        let sub = self.catalog.id(subscription).unwrap();
        let envelope = Envelope {
            subscription: self.catalog.name(sub).clone(),
            message_type: "task_event".parse().unwrap(),
            correlation_id: CorrelationId::new(id).unwrap(),
            source_correlation_id: None,
            timestamp: self.traces.clock.timestamp(),
            idempotency_key: None,
            traceparent: None,
            data: Payload::parse("{}").unwrap(),
        };
        Stored { sub, epoch: Epoch::from_bits(1), seq, key: None, removes: false, envelope }
    }

    fn receive(&self, subscription: &str, seq: u64, id: &str) -> Arc<Tally> {
        self.traces.received(&self.stored(subscription, seq, id), Instant::now())
    }

    fn accept(&self, subscription: &str, seq: u64, id: &str) {
        let stored = self.stored(subscription, seq, id);
        self.traces.accepted(&Acceptance {
            correlation_id: &stored.envelope.correlation_id,
            sub: stored.sub,
            message_type: &stored.envelope.message_type,
            epoch: &stored.epoch,
            seq,
            duplicate: false,
            origin: &ORIGIN,
            at: stored.envelope.timestamp,
            stored_within: Duration::from_micros(1_500),
        });
    }

    fn refuse(&self, subscription: &str, id: &str) {
        self.traces.refused(&Refusal {
            correlation_id: &CorrelationId::new(id).unwrap(),
            subscription,
            message_type: "x",
            reason: "unknown_subscription",
            origin: &ORIGIN,
            at: self.traces.clock.timestamp(),
        });
    }

    fn find(&self, id: &str) -> NodeTrace {
        self.traces.find(&CorrelationId::new(id).unwrap())
    }
}

#[test]
fn all_that_one_id_has_caused_is_found_with_what_became_of_it() {
    let bench = Bench::new();
    bench.accept("tasks", 4, "c-1");
    let tally = bench.receive("tasks", 4, "c-1");
    bench.receive("alerts", 9, "c-1");
    bench.receive("tasks", 5, "c-2");
    bench.refuse(&"\u{e9}".repeat(100), "c-1");
    tally.due_to(7);
    tally.enqueued();
    tally.delivered(3, Instant::now());
    tally.replayed();
    tally.coalesced();
    tally.lost(Lost::Closed);
    let found = bench.find("c-1");
    let placed = |sub: &str, seq| format!("{sub} {seq}");
    let places: Vec<String> =
        found.received.iter().map(|it| placed(it.place.subscription.as_str(), it.place.seq)).collect();
    assert_eq!(places, ["alerts 9", "tasks 4"]);
    let deliveries = &found.received[1].deliveries;
    let (delivered, dropped) = ((deliveries.delivered, deliveries.enqueued), deliveries.dropped.clone());
    assert_eq!((deliveries.recipients, delivered, deliveries.pending), (7, (3, 1), 2));
    assert_eq!((deliveries.coalesced, deliveries.replayed), (1, 1));
    assert_eq!(dropped, [("closed".to_owned(), 1)].into());
    assert!(deliveries.delivery_ms.unwrap().max >= deliveries.delivery_ms.unwrap().p50);
    assert_eq!(found.received[0].deliveries.delivery_ms, None);
    assert_eq!((found.accepted.len(), found.accepted[0].accepted.stored_within_ms), (1, 1.5));
    assert_eq!(found.refused[0].subscription, "\u{e9}".repeat(32), "no more than 64 bytes of it");
    assert!(found.is_bounded() && found.left_out == 0);
}

#[test]
fn a_busy_subscription_pushes_out_nothing_of_another() {
    let bench = Bench::new();
    bench.receive("alerts", 1, "alert");
    let began = bench.find("alert").oldest;
    let share = bench.traces.share() as u64;
    for seq in 0..=share {
        bench.receive("tasks", seq, &format!("t-{seq}"));
    }
    assert_eq!((bench.find("alert").received.len(), bench.find("t-0").received.len()), (1, 0));
    assert_eq!((bench.find("t-1").received.len(), bench.find(&format!("t-{share}")).received.len()), (1, 1));
    let oldest = bench.find("alert").oldest;
    let reach = |name: &str| oldest.subscriptions[name];
    assert_eq!(reach("alerts"), began.subscriptions["alerts"]);
    assert!(reach("tasks").received > began.all && oldest.all == reach("tasks").received);
}

#[test]
fn an_answer_is_bounded_and_counts_what_it_leaves_out() {
    let bench = Bench::new();
    for seq in 0..ENTRIES_MAX as u64 + 3 {
        bench.receive("tasks", seq, "c");
    }
    let found = bench.find("c");
    assert_eq!((found.received.len(), found.left_out, found.is_bounded()), (ENTRIES_MAX, 3, true));
}

#[test]
fn what_was_refused_reaches_back_to_what_is_still_there() {
    let bench = Bench::new();
    let (id, began) = (CorrelationId::new("c").unwrap(), Timestamp::from_millis(0));
    let refusal = Refusal {
        correlation_id: &id,
        subscription: "nope",
        message_type: "x",
        reason: "unknown_subscription",
        origin: &ORIGIN,
        at: began,
    };
    let mut ring = Ring::new(began);
    ring.push(began, (id.clone(), Refused::new(&refusal)), REFUSED_MAX);
    *bench.traces.refused.lock() = ring;
    let found = bench.find("c");
    assert_eq!(
        (found.refused.len(), found.oldest.refused),
        (0, began.plus_millis(1)),
        "it left an hour later"
    );
}
