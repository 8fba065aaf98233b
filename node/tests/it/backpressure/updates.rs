//! Under updates of few keys a client that does not read stays: what it missed is the older values.

use std::collections::BTreeMap;

use super::{
    CLOSED, EVENT, FAILURES, Follower, LARGE, UPDATE, data, good_reader, joined_slow, publish, start,
};

/// Publications of one test: several times what the outbox and the kernels hold.
const UPDATES: u64 = 100;

/// Values of the state: all of them together fit into the outbox.
const KEYS: u64 = 5;

#[tokio::test]
async fn a_client_that_stops_reading_updates_stays_and_gets_the_latest_values() {
    let node = start(&[]).await;
    let mut bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    for number in 1..=UPDATES {
        publish(&node, UPDATE, data(&format!("k{}", number % KEYS), number, LARGE), &mut good).await;
    }
    let mut follower = Follower::default();
    follower.read_to(&mut bad, UPDATES).await;
    assert_eq!(follower.values, good.1.values, "the latest value of every key");
    assert!(follower.omitted > UPDATES / 2, "{} left out", follower.omitted);
    assert_eq!((node.metric(CLOSED).await, node.metric(FAILURES).await), (0.0, 0.0));
    // A shard enters that in its books at the end of a turn, after the frames have gone.
    let (coalesced, omitted) =
        (r#"hiveops_ws_coalesced_total{subscription="project_index"}"#, follower.omitted as f64);
    let counted = node.metric_reaches(coalesced, |count| count >= omitted).await;
    assert_eq!(counted, omitted, "what was left out is counted, once");

    // From here on it gets everything again.
    let omitted = follower.omitted;
    for number in UPDATES + 1..=UPDATES + 3 {
        publish(&node, UPDATE, data("k0", number, 10), &mut good).await;
    }
    follower.read_to(&mut bad, UPDATES + 3).await;
    assert_eq!((follower.omitted, follower.values["k0"]), (omitted, UPDATES + 3));
}

/// It reads for a moment in between, so that a queue that was rearranged is written and rearranged again.
#[tokio::test]
async fn a_client_that_reads_now_and_then_misses_nothing_without_a_word() {
    let node = start(&[]).await;
    let mut bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    let mut follower = Follower::default();
    for number in 1..=2 * UPDATES {
        publish(&node, UPDATE, data(&format!("k{}", number % KEYS), number, LARGE), &mut good).await;
        if number % 30 == 0 {
            for _ in 0..4 {
                follower.take(&bad.next().await);
            }
        }
    }
    follower.read_to(&mut bad, 2 * UPDATES).await;
    assert_eq!(follower.values, good.1.values);
    assert!(follower.omitted > 0);
    assert_eq!(node.metric(CLOSED).await, 0.0);
}

#[tokio::test]
async fn among_updates_no_event_is_lost() {
    let node = start(&[]).await;
    let mut bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    for number in 1..=UPDATES {
        if number % 5 == 0 {
            publish(&node, EVENT, data("e", number, 100), &mut good).await;
        } else {
            publish(&node, UPDATE, data(&format!("k{}", number % 4), number, LARGE), &mut good).await;
        }
    }
    let mut follower = Follower::default();
    follower.read_to(&mut bad, UPDATES).await;
    assert_eq!(follower.events, (1..=UPDATES).filter(|number| number % 5 == 0).collect::<Vec<_>>());
    assert_eq!(follower.values, good.1.values);
    assert!(follower.omitted > 0);
    assert_eq!(node.metric(CLOSED).await, 0.0);
}

#[tokio::test]
async fn a_removal_takes_the_place_of_the_value_that_it_removes() {
    let node = start(&[]).await;
    let mut bad = joined_slow(&node).await;
    let mut good = good_reader(&node).await;
    let mut removed = BTreeMap::new();
    for number in 1..=UPDATES {
        let mut data = data(&format!("k{}", number % KEYS), number, LARGE);
        if number > UPDATES - KEYS {
            data = serde_json::json!({"id": data["id"], "number": number, "deleted": true});
            removed.insert(data["id"].as_str().unwrap().to_owned(), number);
        }
        publish(&node, UPDATE, data, &mut good).await;
    }
    let mut follower = Follower::default();
    follower.read_to(&mut bad, UPDATES).await;
    assert_eq!(follower.values, removed);
}
