//! No silent gap: what a client gets when it joins, comes back or asks again, also while publications
//! stream.

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{Node, Socket, soon};
use crate::replica::{INDEX, Journal, Replica};

const UPDATE: &str = "project_index_update";
const EVENT: &str = "project_index_event";

/// Publishers that stream at the same time.
const PUBLISHERS: [&str; 3] = ["a", "b", "c"];

async fn update(node: &Node, id: &str, n: u64) -> Value {
    node.publish(INDEX, UPDATE, json!({"id": id, "n": n})).await
}

/// Connects with a position and returns the `dashboard_initialized`.
async fn come_back(node: &Node, epoch: &Value, seq: u64) -> (Socket, Value) {
    let epoch = epoch.as_str().unwrap();
    let path = format!("dashboard?subscriptions={INDEX}&since={INDEX}:{epoch}:{seq}");
    let mut socket = Socket::connect(node, &path).await;
    socket.expect("connection_established").await;
    let initialized = socket.expect("dashboard_initialized").await;
    (socket, initialized)
}

/// Publishes numbered occurrences of this many bytes, many at a time.
async fn publish_events(node: &Node, count: usize, bytes: usize) -> Value {
    let mut last = Value::Null;
    for from in (0..count).step_by(25) {
        let batch = (from..count.min(from + 25))
            .map(|n| node.publish(INDEX, EVENT, json!({"n": n, "filler": "x".repeat(bytes)})));
        last = join_all(batch).await.pop().unwrap();
    }
    last
}

/// The numbers of a frame that follow the log.
fn place(frame: &Value) -> (u64, u64) {
    (frame["seq"].as_u64().unwrap(), frame["prev_seq"].as_u64().unwrap())
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_follows_without_what_was_overwritten() {
    let node = Node::start(&[]).await;
    let first = update(&node, "a", 1).await;
    update(&node, "b", 1).await;
    node.publish(INDEX, EVENT, json!({"n": 1})).await;
    update(&node, "b", 2).await;
    node.publish(INDEX, UPDATE, json!({"id": "a", "deleted": true})).await;
    let (mut socket, initialized) = come_back(&node, &first["epoch"], 1).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: true }));
    assert_eq!(initialized["positions"][INDEX], json!({"epoch": first["epoch"], "seq": 5}));
    for (frame_type, seq, data) in [
        (EVENT, 3, json!({"n": 1})),
        (UPDATE, 4, json!({"id": "b", "n": 2})),
        (UPDATE, 5, json!({"id": "a", "deleted": true})),
    ] {
        let frame = socket.expect(frame_type).await;
        assert_eq!((place(&frame), &frame["data"]), ((seq, seq - 1), &data));
        assert_eq!(frame["replayed"], true);
    }
    // What comes now is no replay.
    update(&node, "c", 1).await;
    let live = socket.expect(UPDATE).await;
    assert_eq!(place(&live), (6, 5));
    assert!(live.get("replayed").is_none());
}

#[tokio::test]
async fn a_client_that_missed_nothing_gets_nothing_again() {
    let node = Node::start(&[]).await;
    let first = update(&node, "a", 1).await;
    let (mut socket, initialized) = come_back(&node, &first["epoch"], 1).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: true }));
    update(&node, "a", 2).await;
    assert_eq!(place(&socket.expect(UPDATE).await), (2, 1));
}

#[tokio::test]
async fn a_position_that_cannot_be_continued_is_answered_with_the_snapshot() {
    let node = Node::start(&[]).await;
    let epoch = update(&node, "a", 1).await["epoch"].clone();
    for (what, epoch, seq) in [("another epoch", &json!("0123"), 1), ("beyond the head", &epoch, 2)] {
        let (mut socket, initialized) = come_back(&node, epoch, seq).await;
        assert_eq!(initialized["recovered"], json!({ INDEX: false }), "{what}");
        let snapshot = socket.expect("snapshot").await;
        assert_eq!((&snapshot["seq"], &snapshot["items"][0]["key"]), (&json!(1), &json!("a")), "{what}");
    }
}

#[tokio::test]
async fn a_replay_has_at_most_300_frames_and_is_never_a_part() {
    let node = Node::start(&[]).await;
    let last = publish_events(&node, 301, 1).await;
    let (mut socket, initialized) = come_back(&node, &last["epoch"], 1).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: true }));
    for seq in 2..=301 {
        assert_eq!(place(&socket.expect(EVENT).await).0, seq);
    }
    let (mut socket, initialized) = come_back(&node, &last["epoch"], 0).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: false }));
    assert_eq!(socket.expect("snapshot").await["seq"], 301);
    node.publish(INDEX, EVENT, json!({})).await;
    assert_eq!(place(&socket.expect(EVENT).await), (302, 301));
}

#[tokio::test]
async fn a_replay_has_at_most_a_mebibyte() {
    let node = Node::start(&[]).await;
    let last = publish_events(&node, 20, 60_000).await;
    let (mut socket, initialized) = come_back(&node, &last["epoch"], 0).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: false }));
    socket.expect("snapshot").await;
    let (mut socket, initialized) = come_back(&node, &last["epoch"], 5).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: true }));
    for seq in 6..=20 {
        assert_eq!(place(&socket.expect(EVENT).await).0, seq);
    }
}

#[tokio::test]
async fn a_position_older_than_what_is_kept_is_answered_with_the_snapshot() {
    let node = Node::start(&[]).await;
    update(&node, "a", 1).await;
    let last = publish_events(&node, 1_100, 1).await;
    let (mut socket, initialized) = come_back(&node, &last["epoch"], 1).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: false }));
    let snapshot = socket.expect("snapshot").await;
    assert_eq!(snapshot["items"].as_array().unwrap().len(), 1, "occurrences are no part of the state");
    assert_eq!(snapshot["seq"], 1_101);
}

#[tokio::test]
async fn a_large_state_comes_in_parts_of_at_most_256_kibibytes() {
    let node = Node::start(&[]).await;
    let filler = "x".repeat(60_000);
    for n in 0..14 {
        node.publish(INDEX, UPDATE, json!({"id": format!("k{n}"), "filler": filler})).await;
    }
    let mut socket = Socket::connect(&node, &format!("dashboard?subscriptions={INDEX}")).await;
    socket.expect("connection_established").await;
    socket.expect("dashboard_initialized").await;
    let mut keys = Vec::new();
    for part in 1..=4 {
        let frame = socket.expect("snapshot").await;
        assert!(frame.to_string().len() <= 256 * 1_024, "{}", frame.to_string().len());
        assert_eq!((&frame["part"], &frame["parts"], &frame["seq"]), (&json!(part), &json!(4), &json!(14)));
        let items = frame["items"].as_array().unwrap();
        keys.extend(items.iter().map(|item| item["key"].as_str().unwrap().to_owned()));
    }
    let all: Vec<String> = (0..14).map(|n| format!("k{n}")).collect();
    assert_eq!(keys, all);
}

#[tokio::test]
async fn what_was_removed_is_not_in_the_snapshot() {
    let node = Node::start(&[]).await;
    update(&node, "a", 1).await;
    update(&node, "b", 1).await;
    node.publish(INDEX, UPDATE, json!({"id": "a", "deleted": true})).await;
    let mut socket = Socket::connect(&node, &format!("dashboard?subscriptions={INDEX}")).await;
    let snapshot = socket.wait_for("snapshot").await;
    assert_eq!(snapshot["seq"], 3);
    assert_eq!(
        snapshot["items"],
        json!([{"type": UPDATE, "key": "b", "data": {"id": "b", "n": 1}, "seq": 2}])
    );
}

#[tokio::test]
async fn a_subscription_joined_later_is_continued_where_its_position_says() {
    let node = Node::start(&[]).await;
    let first = update(&node, "a", 1).await;
    update(&node, "b", 1).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=").await;
    let since = json!({ INDEX: {"epoch": first["epoch"], "seq": 1} });
    socket.send(json!({"type": "subscribe", "subscriptions": [INDEX, "alerts"], "since": since})).await;
    let updated = socket.expect("subscription_updated").await;
    assert_eq!(updated["recovered"], json!({ INDEX: true, "alerts": false }));
    assert_eq!(socket.expect("snapshot").await["subscription"], "alerts");
    let frame = socket.expect(UPDATE).await;
    assert_eq!((place(&frame), &frame["replayed"]), ((2, 1), &json!(true)));
}

#[tokio::test]
async fn a_node_without_a_data_directory_begins_a_new_epoch() {
    let node = Node::start(&[]).await;
    let first = update(&node, "a", 1).await;
    node.stop().await;
    let node = Node::start(&[]).await;
    let second = update(&node, "b", 1).await;
    assert_ne!(first["epoch"], second["epoch"]);
    let (mut socket, initialized) = come_back(&node, &first["epoch"], 1).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: false }));
    let snapshot = socket.expect("snapshot").await;
    assert_eq!((&snapshot["epoch"], &snapshot["items"][0]["key"]), (&second["epoch"], &json!("b")));
}

#[tokio::test]
async fn a_node_with_a_data_directory_continues_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_in(Some(dir.path()), &[]).await;
    let first = update(&node, "a", 1).await;
    update(&node, "b", 1).await;
    node.publish(INDEX, EVENT, json!({"n": 1})).await;
    node.stop().await;
    let node = Node::start_in(Some(dir.path()), &[]).await;
    let (mut socket, initialized) = come_back(&node, &first["epoch"], 1).await;
    assert_eq!(initialized["recovered"], json!({ INDEX: true }));
    assert_eq!(place(&socket.expect(UPDATE).await), (2, 1));
    assert_eq!(place(&socket.expect(EVENT).await), (3, 2));
    let next = update(&node, "a", 2).await;
    assert_eq!((&next["epoch"], &next["seq"]), (&first["epoch"], &json!(4)));
    assert_eq!(place(&socket.expect(UPDATE).await), (4, 3));
    let mut other = Socket::connect(&node, &format!("dashboard?subscriptions={INDEX}")).await;
    let snapshot = other.wait_for("snapshot").await;
    assert_eq!((&snapshot["seq"], snapshot["items"].as_array().unwrap().len()), (&json!(4), 2));
    drop((socket, other));
    node.stop().await;
}

/// Runs `clients` while the publishers stream, and returns what they published.
async fn while_streaming<T>(
    node: &Node,
    lead: Option<watch::Receiver<u64>>,
    clients: impl AsyncFnOnce(&Journal) -> T,
) -> (Journal, T) {
    let journal = Journal::default();
    let publishers = join_all(PUBLISHERS.map(|name| journal.fill(node, name, lead.clone())));
    let run = async {
        let result = clients(&journal).await;
        journal.close();
        result
    };
    let (result, _) = join(run, publishers).await;
    (journal, result)
}

/// Joins and follows for a while.
async fn join_once(node: &Node, frames: usize) -> Replica {
    let mut replica = Replica::default();
    let mut socket = Socket::connect(node, &format!("dashboard?subscriptions={INDEX}")).await;
    socket.expect("connection_established").await;
    let initialized = socket.expect("dashboard_initialized").await;
    let snapshot = socket.expect("snapshot").await;
    // The position comes first, and the snapshot is the state there.
    assert_eq!(initialized["positions"][INDEX]["seq"], snapshot["seq"]);
    replica.take(&snapshot);
    for _ in 0..frames {
        replica.take(&socket.next().await);
    }
    replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_a_stream_loses_nothing_and_repeats_nothing() {
    let node = Node::start(&[]).await;
    let (journal, replicas) = while_streaming(&node, None, async |_| {
        let one = async || {
            let mut replicas = Vec::new();
            for round in 0..50 {
                replicas.push(join_once(&node, round % 7).await);
            }
            replicas
        };
        join_all((0..4).map(|_| one())).await.into_iter().flatten().collect::<Vec<_>>()
    })
    .await;
    for replica in &replicas {
        journal.check(replica);
    }
    assert!(replicas.iter().any(|replica| replica.seq > 50), "publications streamed meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_and_leaving_on_one_socket_loses_nothing_and_repeats_nothing() {
    let node = Node::start(&[("WS_RATE_BURST", "1000")]).await;
    let (journal, replicas) = while_streaming(&node, None, async |_| {
        let mut socket = Socket::joined(&node, "dashboard?subscriptions=").await;
        let mut replicas = Vec::new();
        for round in 0..60 {
            let mut replica = Replica::default();
            socket.send(json!({"type": "subscribe", "subscriptions": [INDEX]})).await;
            socket.expect("subscription_updated").await;
            for _ in 0..=round % 5 {
                replica.take(&socket.next().await);
            }
            socket.send(json!({"type": "unsubscribe", "subscriptions": [INDEX]})).await;
            // Once this is answered nothing more comes.
            loop {
                let frame = socket.next().await;
                if frame["type"] == "subscription_updated" {
                    break;
                }
                replica.take(&frame);
            }
            replicas.push(replica);
        }
        replicas
    })
    .await;
    replicas.iter().for_each(|replica| journal.check(replica));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_back_to_a_stream_loses_nothing_and_repeats_nothing() {
    let node = Node::start(&[]).await;
    let (position, lead) = watch::channel(0);
    let (journal, mut replica) = while_streaming(&node, Some(lead), async |_| {
        let mut replica = join_once(&node, 5).await;
        for round in 0..60 {
            let mut socket = Socket::connect(&node, &replica.path()).await;
            socket.expect("connection_established").await;
            let initialized = socket.expect("dashboard_initialized").await;
            assert_eq!(initialized["recovered"], json!({ INDEX: true }), "{round}");
            // At the least all of the replay; on some rounds part of what follows it.
            let head = initialized["positions"][INDEX]["seq"].as_u64().unwrap();
            while replica.seq < head + round % 10 {
                replica.take(&socket.next().await);
                position.send_replace(replica.seq);
            }
        }
        replica
    })
    .await;
    journal.check(&replica);
    // What was published last comes as well.
    let mut socket = Socket::connect(&node, &replica.path()).await;
    soon("the rest", async {
        while replica.seq < journal.head() {
            replica.take(&socket.next().await);
        }
    })
    .await;
    journal.check(&replica);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_again_for_what_is_joined_continues_where_the_position_says() {
    let node = Node::start(&[("WS_RATE_BURST", "1000")]).await;
    let (position, lead) = watch::channel(0);
    let (journal, replica) = while_streaming(&node, Some(lead), async |_| {
        let mut replica = Replica::default();
        let mut socket = Socket::connect(&node, &format!("dashboard?subscriptions={INDEX}")).await;
        socket.expect("connection_established").await;
        socket.expect("dashboard_initialized").await;
        replica.take(&socket.expect("snapshot").await);
        let mut head = 0;
        for round in 0..60 {
            for _ in 0..round % 4 {
                replica.take(&socket.next().await);
            }
            let asked = replica.seq;
            let since = replica.since();
            socket.send(json!({"type": "subscribe", "subscriptions": [INDEX], "since": since})).await;
            loop {
                let frame = socket.next().await;
                if frame["type"] == "subscription_updated" {
                    assert_eq!(frame["recovered"], json!({ INDEX: true }), "{round}");
                    head = frame["positions"][INDEX]["seq"].as_u64().unwrap();
                    break;
                }
                replica.take(&frame);
            }
            replica.rewind(asked);
            position.send_replace(replica.seq);
        }
        // The values are those of one position once the replay is read to its end.
        while replica.seq < head {
            replica.take(&socket.next().await);
        }
        replica
    })
    .await;
    journal.check(&replica);
}
