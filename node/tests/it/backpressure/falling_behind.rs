//! More keys than the outbox holds, a state that is larger than it, and frames that only just fit.

use serde_json::json;

use super::{
    CLOSED, FAILURES, Follower, LARGE, SUBSCRIPTION, UPDATE, connect_slow, data, good_reader, joined_slow,
    publish, start,
};
use crate::harness::{Closed, Socket};

/// Keys of one test at most: several times what the outbox and the kernels hold of them.
const KEYS_MAX: u64 = 200;

/// Publishes new keys until the bad reader has fallen behind, or has been closed for it.
async fn publish_until(
    node: &crate::harness::Node,
    metric: &str,
    good: &mut (Socket, Follower),
) -> u64 {
    let mut number = good.1.seq;
    while node.metric(metric).await == 0.0 {
        number += 1;
        assert!(number < KEYS_MAX, "{metric} does not move");
        publish(node, UPDATE, data(&format!("k{number}"), number, LARGE / 2), good).await;
    }
    number
}

#[tokio::test]
async fn a_client_that_fell_behind_catches_up_when_it_reads_again() {
    // Time to see that it fell behind before it is closed for it.
    let node = start(&[("WS_BACKPRESSURE_DISCONNECT_THRESHOLD", "1000")]).await;
    let mut bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    let number = publish_until(&node, FAILURES, &mut good).await;
    // Some keys have later values meanwhile: those that wait, those that were missed, and the first.
    for later in number + 1..=number + 20 {
        let key = if later % 2 == 0 { later - 20 } else { later - 10 };
        publish(&node, UPDATE, data(&format!("k{key}"), later, LARGE / 2), &mut good).await;
    }
    let mut follower = Follower::default();
    follower.read_to(&mut bad, number + 20).await;
    assert_eq!(follower.values, good.1.values);
    let omitted = follower.omitted;
    publish(&node, UPDATE, data("k1", number + 21, 10), &mut good).await;
    follower.read_to(&mut bad, number + 21).await;
    assert_eq!(follower.omitted, omitted, "it is live again");
    assert_eq!(node.metric(CLOSED).await, 0.0);
}

#[tokio::test]
async fn a_client_that_stays_behind_is_closed_for_backpressure() {
    let node = start(&[]).await;
    let mut bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    publish_until(&node, CLOSED, &mut good).await;
    let (frames, closed) = bad.rest().await;
    assert_eq!(closed, Some(Closed { code: 1013, reason: "backpressure".to_owned() }));
    assert_eq!(frames.last().map(|notice| &notice["type"]), Some(&json!("disconnect_notice")));
    assert_eq!(node.metric(FAILURES).await, 5.0);
}

/// The snapshot is more than the outbox may hold, and publications go on while it is on its way.
#[tokio::test]
async fn a_slow_client_gets_a_large_snapshot_whole_and_then_what_came_meanwhile() {
    let node = start(&[]).await;
    let mut good = good_reader(&node).await;
    for number in 1..=60 {
        publish(&node, UPDATE, data(&format!("k{number}"), number, LARGE), &mut good).await;
    }
    let mut bad = connect_slow(&node).await;
    bad.expect("connection_established").await;
    let initialized = bad.expect("dashboard_initialized").await;
    assert_eq!(initialized["positions"][SUBSCRIPTION]["seq"], 60);
    for number in 61..=90 {
        publish(&node, UPDATE, data(&format!("k{}", number % 5), number, LARGE), &mut good).await;
    }
    let mut follower = Follower::default();
    let mut parts = Vec::new();
    while parts.last().is_none_or(|(part, parts)| part < parts) {
        let snapshot = bad.expect("snapshot").await;
        assert_eq!(snapshot["seq"], 60, "all parts are of one position");
        assert!(snapshot.to_string().len() <= 256 * 1_024);
        follower.take(&snapshot);
        parts.push((snapshot["part"].as_u64().unwrap(), snapshot["parts"].as_u64().unwrap()));
    }
    let count = parts.len() as u64;
    assert!(count > 4, "{count} parts");
    assert_eq!(parts, (1..=count).map(|part| (part, count)).collect::<Vec<_>>());
    assert_eq!(follower.values.len(), 60);
    follower.read_to(&mut bad, 90).await;
    assert_eq!(follower.values, good.1.values);
    assert_eq!(node.metric(CLOSED).await, 0.0);
}

/// With its envelope such a publication is larger than the least outbox: it must pass all the same.
#[tokio::test]
async fn the_largest_publication_passes_through_the_smallest_outbox() {
    let settings = [
        ("WS_OUTBOX_BYTES_MAX", "65536"),
        ("WS_OUTBOX_FRAMES_MAX", "8"),
        ("WS_BACKPRESSURE_DISCONNECT_THRESHOLD", "1000"),
    ];
    let node = start(&settings).await;
    let mut bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    let padding = 65_536 - data("k", 1, 0).to_string().len();
    let mut number = 0;
    while node.metric(FAILURES).await < 3.0 {
        number += 1;
        assert!(number < KEYS_MAX, "a client that reads nothing gets everything");
        let padding = padding + 1 - number.to_string().len();
        publish(&node, UPDATE, data("k", number, padding), &mut good).await;
    }
    let mut follower = Follower::default();
    follower.read_to(&mut bad, number).await;
    assert_eq!(follower.values, good.1.values);
}
