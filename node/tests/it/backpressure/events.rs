//! Under events, which are never left out, a client that does not read is told and closed.

use serde_json::json;

use super::{
    CLOSED, EVENT, FAILURES, Follower, LARGE, OUTBOX, data, good_reader, joined_slow, publish, start,
};
use crate::harness::Closed;

/// Publications after which the outbox must be full: several times what it and the kernels hold.
const EVENTS_MAX: u64 = 200;

/// A client stops reading, is closed after `threshold` failures, and finds out why when it reads again.
async fn check(settings: &[(&str, &str)], threshold: u64) {
    let node = start(settings).await;
    let mut bad = joined_slow(&node).await;
    let mut good = [good_reader(&node).await, good_reader(&node).await];
    let mut number = 0;
    while node.metric(CLOSED).await == 0.0 {
        number += 1;
        assert!(number < EVENTS_MAX, "a client that reads nothing is not closed");
        let [first, second] = &mut good;
        let seq = publish(&node, EVENT, data("e", number, LARGE), first).await;
        second.1.read_to(&mut second.0, seq).await;
    }
    let (frames, closed) = bad.rest().await;
    assert_eq!(closed, Some(Closed { code: 1013, reason: "backpressure".to_owned() }));
    let (notice, before) = frames.split_last().expect("a notice");
    assert_eq!(notice["type"], "disconnect_notice");
    assert_eq!((&notice["reason"], &notice["code"]), (&json!("backpressure"), &json!(1013)));
    // What came before the notice is the beginning of what was published, without a hole.
    let mut follower = Follower::default();
    before.iter().for_each(|frame| follower.take(frame));
    assert_eq!((follower.omitted, follower.events.len() as u64), (0, follower.seq));
    assert!(follower.seq < number);

    assert_eq!(node.metric(FAILURES).await, threshold as f64, "failures up to the threshold and no more");
    assert_eq!(node.metric(CLOSED).await, 1.0);
    assert_eq!(node.metric(r#"hiveops_ws_disconnections_total{reason="backpressure"}"#).await, 1.0);
    node.metric_reaches(OUTBOX, |frames| frames == 0.0).await;
    for number in number + 1..number + 4 {
        let [first, second] = &mut good;
        let seq = publish(&node, EVENT, data("e", number, LARGE), first).await;
        second.1.read_to(&mut second.0, seq).await;
    }
    for (_, follower) in &good {
        assert_eq!(follower.events, (1..number + 4).collect::<Vec<_>>(), "others get every event");
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_events_is_closed_after_five_failures_and_others_are_not_affected() {
    check(&[], 5).await;
}

#[tokio::test]
async fn the_number_of_failures_is_configured() {
    check(&[("WS_BACKPRESSURE_DISCONNECT_THRESHOLD", "2")], 2).await;
}

#[tokio::test]
async fn the_outbox_is_bounded_by_frames_as_well() {
    let settings = [("WS_OUTBOX_FRAMES_MAX", "8"), ("WS_BACKPRESSURE_DISCONNECT_THRESHOLD", "1")];
    let node = start(&settings).await;
    let _bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    let mut most = 0.0_f64;
    while node.metric(CLOSED).await == 0.0 {
        publish(&node, EVENT, data("e", 1, LARGE), &mut good).await;
        assert!(good.1.seq < EVENTS_MAX, "a client that reads nothing is not closed");
        most = most.max(node.metric(OUTBOX).await);
    }
    assert!((1.0..=8.0).contains(&most), "{most} frames");
}

#[tokio::test]
async fn a_client_that_leaves_instead_of_reading_costs_nothing_more() {
    let node = start(&[]).await;
    let bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    while node.metric(OUTBOX).await == 0.0 {
        publish(&node, EVENT, data("e", 1, LARGE), &mut good).await;
        assert!(good.1.seq < EVENTS_MAX, "nothing waits for a client that reads nothing");
    }
    drop(bad);
    node.metric_reaches(OUTBOX, |frames| frames == 0.0).await;
    node.metric_reaches("hiveops_ws_connections_active", |active| active == 1.0).await;
    assert_eq!(node.metric(CLOSED).await, 0.0);
}
