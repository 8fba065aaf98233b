//! A node that goes away: who is sent off when, what still works meanwhile, and that it really ends.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Closed, Node, Socket, soon, until};
use crate::raw::{QUIET, Raw, handshake};

const DRAIN: &str = "/api/dashboard/websocket/drain";

/// Longer than any test: whoever is sent off before is sent off by something else than the passing of time.
const FOR_EVER: &str = "3600";

const SENT_OFF: &str = "hiveops_ws_disconnections_total{reason=\"draining\"}";

async fn sockets(node: &Node, count: usize) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(Socket::joined(node, "dashboard?subscriptions=tasks").await);
    }
    sockets
}

async fn drain(node: &Node, query: &str) -> Value {
    let answer = node.call("POST", &format!("{DRAIN}{query}")).send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()
}

/// Reads up to the close and returns the hint of the notice before it.
async fn sent_off(socket: &mut Socket) -> u64 {
    let (frames, closed) = socket.rest().await;
    assert_eq!(closed, Some(Closed { code: 1012, reason: "draining".to_owned() }));
    let notice = frames.last().expect("a notice before the close");
    assert_eq!((&notice["type"], &notice["reason"]), (&json!("disconnect_notice"), &json!("draining")));
    notice["retry_after_ms"].as_u64().expect("a hint")
}

/// Reads until a publication of this id comes: true; or the close after a notice: false.
async fn gets(socket: &mut Socket, id: &str, hints: &mut Vec<u64>) -> bool {
    let mut hint = None;
    loop {
        match soon("a frame", socket.next_message()).await {
            Ok(frame) if frame["data"]["id"] == id => return true,
            Ok(frame) => hint = frame["retry_after_ms"].as_u64().or(hint),
            Err(closed) => {
                assert_eq!(closed.map(|closed| closed.code), Some(1012));
                hints.push(hint.expect("a notice before the close"));
                return false;
            }
        }
    }
}

#[tokio::test]
async fn sessions_are_sent_off_one_by_one_and_the_others_go_on_until_their_turn() {
    let node = Node::start(&[("HIVEOPS_DRAIN_SECONDS", FOR_EVER)]).await;
    let (mut open, mut hints) = (sockets(&node, 6).await, Vec::new());
    let reply = drain(&node, "").await;
    assert_eq!((&reply["success"], &reply["draining"]), (&json!(true), &json!(true)));
    assert_eq!((&reply["node_id"], &reply["sessions"]), (&json!("n1"), &json!(6)));
    assert_eq!(reply["drain_seconds"], 3_600);
    node.metric_reaches(SENT_OFF, |count| count >= 1.0).await;
    node.publish("tasks", "task_update", json!({"id": "t1"})).await;
    let mut left = Vec::new();
    for mut socket in open.drain(..) {
        if gets(&mut socket, "t1", &mut hints).await {
            left.push(socket);
        }
    }
    assert_eq!((left.len(), hints.len()), (5, 1), "one was sent off, and the others got what came after");
    // Asking again for the same changes nothing; another time is another plan for those who are left.
    assert_eq!(drain(&node, "").await["drain_seconds"], 3_600);
    assert_eq!(drain(&node, "?seconds=1").await["drain_seconds"], 1);
    hints.extend(join_all(left.iter_mut().map(sent_off)).await);
    assert_eq!(hints.iter().collect::<BTreeSet<_>>().len(), 6, "each has a hint of its own: {hints:?}");
    assert!(hints.iter().all(|hint| (250..1_000).contains(hint)), "{hints:?}");
    node.ended().await;
}

#[tokio::test]
async fn a_node_that_drains_takes_no_session_and_still_answers_requests() {
    let node = Node::start(&[]).await;
    let mut open = sockets(&node, 2).await;
    drain(&node, &format!("?seconds={FOR_EVER}")).await;
    let ready = node.call("GET", "/readyz").send().await;
    assert_eq!((ready.status, ready.json()["reason"].as_str()), (503, Some("draining")));
    assert_eq!(node.call("GET", "/livez").send().await.status, 200);
    assert_eq!(node.get("/health").await["status"], "unhealthy");
    let mut late = Raw::connect(&node).await;
    late.write(&handshake(QUIET, &[])).await;
    let head = late.head().await;
    assert_eq!((head.status, head.headers["retry-after"].as_str()), (503, "1"));
    // Even an agent that reports in is heard, and sees what it has written.
    let task = node.call("POST", "/api/v1/tasks").json(&json!({"id": "t1", "title": "Last"})).send().await;
    assert_eq!(task.status, 201);
    assert_eq!(node.get("/api/v1/tasks/t1").await["title"], "Last");
    drain(&node, "?seconds=0").await;
    join_all(open.iter_mut().map(sent_off)).await;
    node.ended().await;
}

#[tokio::test]
async fn a_shard_whose_sessions_have_gone_takes_nothing_from_those_of_another() {
    let node = Node::start(&[]).await;
    // One on each shard.
    let mut open = sockets(&node, 2).await;
    drain(&node, &format!("?seconds={FOR_EVER}")).await;
    sent_off(&mut open[0]).await;
    until("the first session is gone", async || node.metric("hiveops_ws_connections_active").await == 1.0)
        .await;
    for id in ["t1", "t2", "t3"] {
        node.publish("tasks", "task_update", json!({"id": id})).await;
        assert_eq!(open[1].wait_for("task_update").await["data"]["id"], id);
    }
    drain(&node, "?seconds=0").await;
    sent_off(&mut open[1]).await;
    node.ended().await;
}

#[tokio::test]
async fn without_sessions_a_node_has_nothing_to_wait_for() {
    let node = Node::start(&[("HIVEOPS_DRAIN_SECONDS", FOR_EVER)]).await;
    assert_eq!(drain(&node, "").await["sessions"], 0);
    node.ended().await;
}

#[tokio::test]
async fn a_time_that_is_none_is_refused_and_drains_nobody() {
    let node = Node::start(&[]).await;
    for query in ["?seconds=-1", "?seconds=3601", "?seconds=soon", "?seconds=1.5", "?seconds=", "?second=5"] {
        let answer = node.call("POST", &format!("{DRAIN}{query}")).send().await;
        assert_eq!(answer.refusal(), (400, "bad_request".to_owned()), "{query}");
        assert!(answer.problem().detail.is_some_and(|detail| detail.contains("second")), "{query}");
    }
    assert_eq!(node.call("GET", "/readyz").send().await.status, 200);
    node.stop().await;
}
