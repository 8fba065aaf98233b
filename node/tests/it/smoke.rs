//! One publication from a publisher to a client, with every field of the contract.

use serde_json::json;

use crate::harness::{Node, Socket};

#[tokio::test]
async fn a_publication_reaches_a_subscriber_with_every_field_of_the_contract() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let reply = node.publish("tasks", "task_update", json!({"id": "t1", "status": "done"})).await;
    let frame = socket.expect("task_update").await;
    assert_eq!(frame["subscription"], "tasks");
    assert_eq!(frame["data"], json!({"id": "t1", "status": "done"}));
    assert_eq!((&frame["seq"], &frame["prev_seq"]), (&json!(1), &json!(0)));
    assert_eq!(frame["epoch"], reply["epoch"]);
    assert_eq!(frame["correlation_id"], reply["correlation_id"]);
    assert!(frame["timestamp"].is_string() && frame.get("replayed").is_none());
    assert_eq!((&reply["clients_reached"], &reply["scope"]), (&json!(1), &json!("node")));
    drop(socket);
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_tells_its_sessions_and_says_when_to_come_back() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let (_, (frames, closed)) = tokio::join!(node.stop(), socket.rest());
    let notice = frames.last().expect("a notice");
    assert_eq!((&notice["type"], &notice["reason"]), (&json!("disconnect_notice"), &json!("draining")));
    assert!(notice["retry_after_ms"].is_u64());
    assert_eq!(closed.map(|closed| closed.code), Some(1012));
}
