//! Rules of following: order, completeness, catching up.

use futures_util::FutureExt;
use futures_util::future::{join, join_all};

use super::{BusEvent, Make, Reader, occurrence, publish, publish_all, removal, seen_now, update};
use crate::bus::CALL_TIMEOUT;
use crate::log::KEPT_MAX;

/// More than any implementation keeps ready for a follower that does not read.
const BEYOND_LAG: usize = 1_500;

pub(crate) async fn a_follower_is_told_of_every_log_and_then_what_comes(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut reader = Reader::open(bus).await;
    assert_eq!((reader.log(0).head, reader.log(0).floor, reader.log(1).head), (0, 0, 0));
    publish_all(bus, (0..50).flat_map(|n| [occurrence(0, n), update(1, "a", n)])).await;
    assert_eq!(reader.until(0, 50).await.live, (1..=50).collect::<Vec<u64>>());
    let tasks = reader.until(1, 50).await;
    assert_eq!(tasks.live, (1..=50).collect::<Vec<u64>>());
    assert_eq!(tasks.values.values().next().unwrap().1, r#"{"id":"a","n":49}"#, "as it was published");
}

pub(crate) async fn two_followers_see_the_same(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let (mut one, mut two) = (Reader::open(bus).await, Reader::open(bus).await);
    let keys = ["a", "b", "c"];
    let all = (0..200).map(|n| match n % 5 {
        0 => occurrence(0, n),
        1 => removal(0, keys[n % 3]),
        _ => update(0, keys[n % 3], n),
    });
    publish_all(bus, all).await;
    assert_eq!(one.until(0, 200).await, two.until(0, 200).await);
}

pub(crate) async fn a_late_follower_gets_what_is_left(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut early = Reader::open(bus).await;
    let all = [update(0, "a", 1), occurrence(0, 2), update(0, "b", 3), update(0, "a", 4), removal(0, "b")];
    publish_all(bus, all).await;
    let mut late = Reader::open(bus).await;
    let (early, left) = (early.until(0, 5).await, late.log(0));
    assert_eq!((left.head, left.floor, left.live.len()), (5, 0, 0));
    assert_eq!((&left.values, &left.occurrences), (&early.values, &early.occurrences));
    assert_eq!(left.seqs().into_iter().collect::<Vec<_>>(), [("a", 4)]);
    publish(bus, update(0, "b", 6)).await;
    assert_eq!(late.until(0, 6).await.live, [6]);
}

pub(crate) async fn who_joins_amid_publications_misses_and_repeats_nothing(make: Make) {
    const EACH: usize = 20;
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let batches = 0..25;
    let last = (batches.len() * EACH) as u64;
    // One future that publishes and joins by turns: what is asked first need not be answered first.
    let readers = join_all(batches.map(|batch| async move {
        let publications = (0..EACH).map(|n| occurrence(0, batch * EACH + n));
        let (_, mut reader) = join(publish_all(bus, publications), Reader::open(bus)).await;
        let start = reader.log(0).head;
        let log = reader.until(0, last).await;
        assert_eq!(log.live, (start + 1..=last).collect::<Vec<u64>>());
        assert_eq!(log.occurrences, (1..=last).collect::<Vec<u64>>());
        start
    }));
    let starts = readers.await;
    assert!(starts.iter().any(|start| *start > 0), "some joined amid the publications: {starts:?}");
}

pub(crate) async fn a_probe_comes_back_to_every_follower(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut readers = [Reader::open(bus).await, Reader::open(bus).await];
    publish(bus, update(0, "a", 1)).await;
    bus.probe(42).await.unwrap();
    for reader in &mut readers {
        let nonce = loop {
            if let BusEvent::Probe(nonce) = reader.step().await.unwrap() {
                break nonce;
            }
        };
        assert_eq!((nonce, reader.log(0).head), (42, 1), "what was stored before comes before");
    }
}

pub(crate) async fn a_follower_that_lags_misses_only_what_was_superseded(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut reader = Reader::open(bus).await;
    let keys: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    let all =
        (0..BEYOND_LAG).map(|n| if n % 50 == 0 { occurrence(0, n) } else { update(0, &keys[n % 10], n) });
    let last = publish_all(bus, all.chain([removal(0, "k1")])).await.pop().unwrap();
    let fresh = seen_now(bus, 0).await;
    let log = reader.until(0, last.seq).await;
    assert_eq!(log.resets, 1, "everything it needed was still there");
    assert_eq!((&log.values, &log.occurrences), (&fresh.values, &fresh.occurrences));
    // From here it is on the live end again, without holes.
    publish_all(bus, (0..20).map(|n| update(0, "a", n))).await;
    let live = reader.until(0, last.seq + 20).await.live.clone();
    assert_eq!(live[live.len() - 20..], (last.seq + 1..=last.seq + 20).collect::<Vec<u64>>());
}

pub(crate) async fn a_follower_that_lags_beyond_what_is_kept_starts_again(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut reader = Reader::open(bus).await;
    publish(bus, update(1, "a", 1)).await;
    let count = KEPT_MAX + BEYOND_LAG;
    publish_all(bus, (0..count).map(|n| occurrence(0, n))).await;
    let log = reader.until(0, count as u64).await;
    assert_eq!((log.resets, log.floor, log.occurrences.len()), (2, BEYOND_LAG as u64, KEPT_MAX));
    let quiet = reader.until(1, 1).await;
    assert_eq!((quiet.resets, quiet.seqs().len()), (1, 1), "the other log goes on where it was");
}

pub(crate) async fn a_read_that_is_given_up_loses_nothing(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    let mut reader = Reader::open(bus).await;
    for round in 1..=3_u64 {
        assert!(reader.follow.next().now_or_never().is_none(), "nothing has happened");
        let count = BEYOND_LAG as u64;
        publish_all(bus, (0..BEYOND_LAG).map(|n| update(0, &format!("k{}", n % 600), n))).await;
        // Where reading on needs the bus, this read waits for it, and is dropped before it has the answer.
        let stalled = (fixture.stall)().await;
        if let Some(Some(event)) = reader.follow.next().now_or_never() {
            reader.take(&event);
        }
        drop(stalled);
        let fresh = seen_now(bus, 0).await;
        let log = reader.until(0, round * count).await;
        assert_eq!((&log.values, log.resets), (&fresh.values, 1));
    }
}

pub(crate) async fn occurrences_are_kept_to_their_number_and_the_floor_rises(make: Make) {
    let fixture = make(CALL_TIMEOUT).await;
    let bus = fixture.bus.as_ref();
    publish_all(bus, [update(0, "a", 0), occurrence(0, 1)]).await;
    publish_all(bus, (0..KEPT_MAX).map(|n| occurrence(0, n))).await;
    let log = seen_now(bus, 0).await;
    assert_eq!((log.floor, log.head), (2, KEPT_MAX as u64 + 2));
    assert_eq!((log.occurrences.len(), log.occurrences[0]), (KEPT_MAX, 3));
    assert_eq!(log.seqs().into_iter().collect::<Vec<_>>(), [("a", 1)], "a value is no occurrence");
}
