//! Rules of publishing: places, repeats, the end.

use std::time::Duration;

use super::{
    Ack, Expect, Make, Publish, PublishError, Reader, Repeat, occurrence, publish, publish_all, seen_now,
    update, with_key,
};
use crate::bus::CALL_TIMEOUT;

fn content(publish: Publish) -> Publish {
    Publish { repeat: Repeat::Content, ..publish }
}

fn again(first: &Ack) -> Ack {
    Ack { duplicate: true, ..first.clone() }
}

pub(crate) async fn a_publication_is_acknowledged_with_the_next_seq_of_its_log(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let start = Reader::open(bus).await;
    for n in 1..=3 {
        for sub in [0, 1] {
            let epoch = start.log(sub).epoch.clone();
            let ack = publish(bus, update(sub, "a", n)).await;
            assert_eq!(ack, Ack { epoch, seq: n as u64, duplicate: false }, "subscription {sub}");
        }
    }
    assert_ne!(start.log(0).epoch, start.log(1).epoch, "each log has its own epoch");
    let seqs: Vec<u64> =
        publish_all(bus, (0..200).map(|n| occurrence(0, n))).await.iter().map(|ack| ack.seq).collect();
    assert_eq!(seqs, (4..=203).collect::<Vec<u64>>());
}

pub(crate) async fn a_repeated_idempotency_key_gets_the_first_place(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut reader = Reader::open(bus).await;
    let first = publish(bus, with_key("k1", update(0, "a", 1))).await;
    publish(bus, update(0, "a", 2)).await;
    assert_eq!(publish(bus, with_key("k1", update(0, "a", 1))).await, again(&first));
    // Another cause does not make it another publication, nor does a condition that no longer holds.
    let mut other = with_key("k1", update(0, "a", 1));
    other.envelope.correlation_id = "cause-2".parse().unwrap();
    other.expect = Expect::Absent;
    assert_eq!(publish(bus, other).await, again(&first));
    let last = publish(bus, update(0, "a", 3)).await;
    assert_eq!((last.seq, reader.until(0, last.seq).await.live.clone()), (3, vec![1, 2, 3]));
}

pub(crate) async fn an_idempotency_key_with_other_data_is_a_conflict(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish(bus, occurrence(0, 0)).await;
    let first = publish(bus, with_key("k1", update(0, "a", 1))).await;
    let other = bus.publish(with_key("k1", update(0, "a", 2))).await;
    assert_eq!(other, Err(PublishError::IdempotencyConflict { seq: first.seq }));
    assert_eq!(seen_now(bus, 0).await.head, first.seq);
}

pub(crate) async fn an_idempotency_key_belongs_to_its_subscription(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish(bus, with_key("k1", update(0, "a", 1))).await;
    assert!(!publish(bus, with_key("k1", update(1, "a", 1))).await.duplicate);
}

pub(crate) async fn repeated_content_gets_the_first_place(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut reader = Reader::open(bus).await;
    let first = publish(bus, content(occurrence(0, 1))).await;
    assert_eq!(publish(bus, content(occurrence(0, 1))).await, again(&first));
    let last = publish(bus, content(occurrence(0, 2))).await;
    assert_eq!((last.seq, last.duplicate), (2, false), "other data of the same cause is another");
    assert_eq!(reader.until(0, 2).await.live, [1, 2]);
}

pub(crate) async fn the_same_content_of_another_cause_is_no_repeat(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish(bus, content(occurrence(0, 1))).await;
    let mut other = content(occurrence(0, 1));
    other.envelope.correlation_id = "cause-2".parse().unwrap();
    assert!(!publish(bus, other).await.duplicate);
    assert!(!publish(bus, content(occurrence(1, 1))).await.duplicate);
}

pub(crate) async fn what_has_no_repeat_is_stored_each_time(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish(bus, occurrence(0, 1)).await;
    let second = publish(bus, occurrence(0, 1)).await;
    assert_eq!((second.seq, second.duplicate), (2, false));
}

pub(crate) async fn a_refused_publication_is_not_remembered_as_stored(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let refused = Publish { expect: Expect::Seq(7), ..with_key("k1", update(0, "a", 1)) };
    assert_eq!(bus.publish(refused).await, Err(PublishError::WrongExpected { actual: 0 }));
    let accepted = publish(bus, with_key("k1", update(0, "a", 2))).await;
    assert_eq!((accepted.seq, accepted.duplicate), (1, false));
}

pub(crate) async fn concurrent_repeats_are_stored_once(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let acks = publish_all(bus, (0..50).map(|_| with_key("k1", update(0, "a", 1)))).await;
    assert!(acks.iter().all(|ack| ack.seq == 1));
    assert_eq!(acks.iter().filter(|ack| !ack.duplicate).count(), 1);
    assert_eq!(seen_now(bus, 0).await.head, 1);
}

pub(crate) async fn nothing_is_stored_after_shutdown(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish(bus, update(0, "a", 1)).await;
    bus.shutdown().await;
    let answer = bus.publish(update(0, "a", 2)).await;
    assert!(matches!(answer, Err(PublishError::Unavailable(_))), "{answer:?}");
    assert!(bus.follow().await.is_err() && bus.probe(1).await.is_err());
    bus.shutdown().await;
}

pub(crate) async fn shutdown_keeps_what_was_acknowledged_readable_to_its_followers(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut reader = Reader::open(bus).await;
    publish_all(bus, (0..100).map(|n| occurrence(1, n))).await;
    bus.shutdown().await;
    assert_eq!(reader.until(1, 100).await.live.len(), 100);
    assert!(reader.step().await.is_none());
}

pub(crate) async fn calls_to_a_bus_that_does_not_answer_end(make: Make) {
    // Short, so that the test is; the rule is that it ends at all.
    let fixture = make(Duration::from_millis(20)).await;
    let bus = fixture.bus.as_ref();
    let _stalled = (fixture.stall)().await;
    assert_eq!(bus.publish(update(0, "a", 1)).await, Err(PublishError::Timeout));
    assert!(bus.follow().await.is_err());
    bus.shutdown().await;
}
