//! Limits that the control plane changes hold at once, for sessions that are open and for new ones.

use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{millis, padded_ping};
use crate::harness::{Node, Socket, soon};

const QUIET: &str = "dashboard?subscriptions=";

/// Waits until the one shard of the node goes by a limit of this value; `node` was told of it before.
async fn in_force(node: &Node, name: &str, value: u64) {
    soon("the new limits", async {
        loop {
            let mut socket = Socket::connect(node, QUIET).await;
            if socket.expect("connection_established").await["limits"][name] == json!(value) {
                return;
            }
        }
    })
    .await;
}

/// Sends `count` pings in one write.
async fn send_at_once(socket: &mut Socket, count: usize) {
    for _ in 0..count {
        socket.stream.feed(Message::text(r#"{"type":"ping"}"#)).await.unwrap();
    }
    socket.stream.flush().await.unwrap();
}

#[tokio::test]
async fn a_changed_rate_holds_for_open_sessions_and_for_new_ones() {
    let node = Node::start(&[("HIVEOPS_SHARDS", "1")]).await;
    let mut open = Socket::joined(&node, QUIET).await;
    node.set_limits(|limits| {
        limits.rate_limit_tokens_per_second = 1;
        limits.rate_limit_burst_capacity = 3;
    });
    in_force(&node, "rate_limit_burst_capacity", 3).await;
    let mut new = Socket::joined(&node, QUIET).await;
    for socket in [&mut open, &mut new] {
        send_at_once(socket, 4).await;
        for _ in 0..3 {
            socket.expect("pong").await;
        }
        assert_eq!(socket.expect("error").await["code"], "rate_limited");
    }
    let shown = node.get("/api/dashboard/websocket/limits").await;
    assert_eq!((&shown["rate_limit_burst_capacity"], &shown["revision"]["index"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn a_changed_size_holds_for_open_sessions() {
    let node = Node::start(&[("HIVEOPS_SHARDS", "1")]).await;
    let mut open = Socket::joined(&node, QUIET).await;
    node.set_limits(|limits| limits.max_inbound_message_bytes = 1_000);
    in_force(&node, "max_inbound_message_bytes", 1_000).await;
    open.send_text(&padded_ping(1_001)).await;
    assert_eq!(open.expect("error").await["code"], "message_too_large");
    open.send_text(&padded_ping(1_000)).await;
    open.expect("pong").await;
}

#[tokio::test]
async fn a_shorter_idle_time_ends_a_session_that_was_to_stay_longer() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, QUIET).await;
    socket.send(json!({"type": "ping"})).await;
    let pong = socket.expect("pong").await;
    node.set_limits(|limits| limits.idle_disconnect_seconds = 1);
    let notice = socket.expect("disconnect_notice").await;
    assert_eq!(notice["reason"], "idle_timeout");
    assert!(millis(&notice) - millis(&pong) >= 998);
}
