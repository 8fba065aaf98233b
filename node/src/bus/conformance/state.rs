//! Rules of the latest values: conditions, removal, room.

use futures_util::future::join;

use super::{
    Bus, Expect, Make, Publish, PublishError, publish, publish_all, removal, seen_now, typed_update, update,
};
use crate::bus::{CALL_TIMEOUT, STATE_BYTES_MAX, STATE_KEYS_MAX};

fn when(expect: Expect, publish: Publish) -> Publish {
    Publish { expect, ..publish }
}

async fn refused(bus: &dyn Bus, publish: Publish) -> u64 {
    match bus.publish(publish).await {
        Err(PublishError::WrongExpected { actual }) => actual,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(crate) async fn absent_holds_only_before_the_first_value(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let first = publish(bus, when(Expect::Absent, update(0, "a", 1))).await;
    assert_eq!(refused(bus, when(Expect::Absent, update(0, "a", 2))).await, first.seq);
    publish(bus, when(Expect::Absent, update(0, "b", 3))).await;
    publish(bus, when(Expect::Absent, update(1, "a", 4))).await;
    assert_eq!(seen_now(bus, 0).await.seqs().into_iter().collect::<Vec<_>>(), [("a", 1), ("b", 2)]);
}

pub(crate) async fn a_value_changes_only_from_the_expected_one(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    assert_eq!(refused(bus, when(Expect::Seq(1), update(0, "a", 1))).await, 0);
    let first = publish(bus, when(Expect::Any, update(0, "a", 1))).await;
    publish(bus, update(0, "b", 2)).await;
    let second = publish(bus, when(Expect::Seq(first.seq), update(0, "a", 3))).await;
    assert_eq!(second.seq, 3);
    assert_eq!(refused(bus, when(Expect::Seq(first.seq), update(0, "a", 4))).await, second.seq);
    assert_eq!(refused(bus, when(Expect::Seq(9), removal(0, "a"))).await, second.seq);
    assert_eq!(seen_now(bus, 0).await.head, second.seq, "a refusal takes no place");
}

pub(crate) async fn of_two_concurrent_writers_one_wins(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut expect = Expect::Absent;
    for round in 0..20_usize {
        let write = |n| bus.publish(when(expect, update(0, "a", 2 * round + n)));
        let seq = match join(write(0), write(1)).await {
            (Ok(won), Err(PublishError::WrongExpected { actual }))
            | (Err(PublishError::WrongExpected { actual }), Ok(won)) => {
                assert_eq!(actual, won.seq, "the loser learns who won");
                won.seq
            }
            other => panic!("exactly one wins, got {other:?}"),
        };
        expect = Expect::Seq(seq);
    }
    assert_eq!(seen_now(bus, 0).await.head, 20);
}

pub(crate) async fn a_removed_value_is_gone_and_absent_holds_again(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let first = publish(bus, update(0, "a", 1)).await;
    publish(bus, when(Expect::Seq(first.seq), removal(0, "a"))).await;
    assert!(seen_now(bus, 0).await.values.is_empty());
    assert_eq!(refused(bus, when(Expect::Seq(2), update(0, "a", 2))).await, 0, "a removal is no value");
    publish(bus, when(Expect::Absent, update(0, "a", 3))).await;
    assert_eq!(seen_now(bus, 0).await.seqs().into_iter().collect::<Vec<_>>(), [("a", 3)]);
}

pub(crate) async fn message_types_do_not_share_their_keys(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish(bus, typed_update(0, "one_update", "a", r#"{"n":1}"#)).await;
    let other = typed_update(0, "other_update", "a", r#"{"n":2}"#);
    publish(bus, when(Expect::Absent, other)).await;
    let values: Vec<String> = seen_now(bus, 0).await.values.into_values().map(|(_, data)| data).collect();
    assert_eq!(values, [r#"{"n":1}"#, r#"{"n":2}"#]);
}

pub(crate) async fn a_state_with_all_its_keys_refuses_another(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish_all(bus, (0..STATE_KEYS_MAX).map(|n| update(0, &format!("k{n}"), 0))).await;
    let before = seen_now(bus, 0).await;
    assert_eq!(before.values.len(), STATE_KEYS_MAX);
    let full = bus.publish(update(0, "one-more", 1)).await;
    assert!(
        matches!(full, Err(PublishError::StateFull { keys: STATE_KEYS_MAX, bytes }) if bytes > 0),
        "{full:?}"
    );
    assert_eq!(seen_now(bus, 0).await, before, "a refusal changes nothing");
    publish(bus, update(0, "k7", 1)).await;
    publish(bus, update(1, "another-log", 1)).await;
    publish(bus, removal(0, "k7")).await;
    publish(bus, update(0, "one-more", 1)).await;
    assert_eq!(seen_now(bus, 0).await.values.len(), STATE_KEYS_MAX);
}

pub(crate) async fn a_state_with_all_its_bytes_refuses_more(make: Make) {
    const PARTS: usize = 64;
    let sized = |key: &str, bytes: usize| {
        let data = format!(r#"{{"x":"{}"}}"#, "x".repeat(bytes - r#"{"x":""}"#.len()));
        typed_update(0, "some_update", key, &data)
    };
    let part = STATE_BYTES_MAX / PARTS;
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish_all(bus, (0..PARTS).map(|n| sized(&format!("k{n}"), part))).await;
    let before = seen_now(bus, 0).await;
    let full = PublishError::StateFull { keys: PARTS, bytes: STATE_BYTES_MAX };
    assert_eq!(bus.publish(sized("one-more", 10)).await, Err(full.clone()));
    assert_eq!(bus.publish(sized("k0", part + 1)).await, Err(full));
    assert_eq!(seen_now(bus, 0).await, before, "a refusal changes nothing");
    publish(bus, sized("k0", part)).await;
    publish(bus, sized("k0", part - 10)).await;
    publish(bus, sized("one-more", 10)).await;
    // An occurrence is not state, so there is always room for it.
    publish(bus, super::occurrence(0, 1)).await;
}
