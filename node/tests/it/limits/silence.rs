//! Idle, protocol ping and heartbeat: what happens when a client, or everybody, says nothing.

use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{millis, of_type};
use crate::harness::{Closed, Node, Socket, soon};
use crate::raw::{PING, PONG, Raw, TEXT, frame};

/// How much earlier than by the timestamps a deadline may seem to pass: both count whole milliseconds.
const ROUNDING_MS: i64 = 2;

#[tokio::test]
async fn an_idle_session_is_told_and_then_closed_with_4408() {
    let node = Node::start(&[("WS_IDLE_SECONDS", "1")]).await;
    let mut socket = Socket::connect(&node, "dashboard?subscriptions=").await;
    let established = socket.expect("connection_established").await;
    socket.expect("dashboard_initialized").await;
    let (frames, closed) = socket.rest().await;
    let [notice] = frames.as_slice() else { panic!("only the notice comes: {frames:?}") };
    assert_eq!(notice["type"], "disconnect_notice");
    assert_eq!((&notice["reason"], &notice["code"]), (&json!("idle_timeout"), &json!(4408)));
    assert!(millis(notice) - millis(&established) >= 1_000 - ROUNDING_MS);
    assert_eq!(closed, Some(Closed { code: 4408, reason: "idle_timeout".to_owned() }));
    assert_eq!(node.metric("hiveops_ws_idle_disconnects_total").await, 1.0);
}

/// Were any of these a message, the session would never end.
#[tokio::test]
async fn pings_pongs_and_received_frames_do_not_keep_a_session_from_being_idle() {
    let node = Node::start(&[("WS_IDLE_SECONDS", "2"), ("WS_PROTOCOL_PING_SECONDS", "1")]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=alerts").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let busy = async {
        loop {
            ticks.tick().await;
            node.publish("alerts", "critical_alert", json!({"alerts": [], "timestamp": "now"})).await;
        }
    };
    socket.stream.send(Message::Ping(Vec::new().into())).await.unwrap();
    let (frames, closed) = tokio::select! {
        () = busy => unreachable!("it publishes without end"),
        // It is read to the end with one patience: something comes all the time.
        rest = soon("the end", socket.rest()) => rest,
    };
    assert!(of_type(&frames, "critical_alert").len() > 2);
    assert_eq!(frames.last().map(|notice| &notice["reason"]), Some(&json!("idle_timeout")));
    assert_eq!(closed.map(|closed| closed.code), Some(4408));
}

#[tokio::test]
async fn a_client_message_sets_the_idle_time_anew() {
    let node = Node::start(&[("WS_IDLE_SECONDS", "3"), ("WS_HEARTBEAT_SILENCE_SECONDS", "1")]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=").await;
    // The heartbeat says that a third of the idle time has passed.
    socket.expect("heartbeat").await;
    socket.send(json!({"type": "ping"})).await;
    let pong = socket.wait_for("pong").await;
    let notice = socket.wait_for("disconnect_notice").await;
    assert_eq!(notice["reason"], "idle_timeout");
    assert!(millis(&notice) - millis(&pong) >= 3_000 - ROUNDING_MS, "{pong} {notice}");
}

#[tokio::test]
async fn a_client_that_never_pongs_is_told_and_closed_with_4408() {
    // Three seconds, so that the message comes in time also from a busy machine.
    let settings = [("WS_PROTOCOL_PING_SECONDS", "1"), ("WS_PROTOCOL_PONG_TIMEOUT_SECONDS", "3")];
    let node = Node::start(&settings).await;
    let mut raw = Raw::quiet(&node).await;
    assert_eq!(raw.frame().await.first, PING);
    // A message shows that the client is there, but it is no answer to the ping.
    raw.write(&frame(TEXT, br#"{"type":"ping"}"#)).await;
    raw.expect("pong").await;
    let notice = raw.expect("disconnect_notice").await;
    assert_eq!((&notice["reason"], &notice["code"]), (&json!("heartbeat_timeout"), &json!(4408)));
    assert_eq!(raw.closed().await.close_code(), Some(4408));
    assert_eq!(node.metric(r#"hiveops_ws_disconnections_total{reason="heartbeat_timeout"}"#).await, 1.0);
}

#[tokio::test]
async fn a_client_that_pongs_stays() {
    // Without its pongs there would be no second ping, and the end after three seconds.
    let settings = [("WS_PROTOCOL_PING_SECONDS", "1"), ("WS_PROTOCOL_PONG_TIMEOUT_SECONDS", "3")];
    let node = Node::start(&settings).await;
    let mut raw = Raw::quiet(&node).await;
    for number in 1..=3 {
        let ping = raw.frame().await;
        assert_eq!(ping.first, PING);
        let mut answer = frame(PONG, &ping.payload);
        if number == 3 {
            // In one write with it, so that no further ping comes in between.
            answer.extend(frame(TEXT, br#"{"type":"ping"}"#));
        }
        raw.write(&answer).await;
    }
    raw.expect("pong").await;
}

#[tokio::test]
async fn a_heartbeat_after_silence_shows_the_heads() {
    let node = Node::start(&[("WS_HEARTBEAT_SILENCE_SECONDS", "1")]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=alerts,tasks").await;
    let reply = node.publish("tasks", "task_update", json!({"id": "t1"})).await;
    // On a busy machine the silence before it may have been long enough for a heartbeat as well.
    let update = socket.wait_for("task_update").await;
    let heartbeat = socket.expect("heartbeat").await;
    let silence = millis(&heartbeat) - millis(&update);
    assert!(silence >= 1_000 - ROUNDING_MS, "{silence} ms");
    assert_eq!(heartbeat["positions"]["tasks"], json!({"epoch": reply["epoch"], "seq": reply["seq"]}));
    assert_eq!(heartbeat["positions"]["alerts"]["seq"], 0);
    assert_eq!(heartbeat["live"], true);
    let next = socket.expect("heartbeat").await;
    assert!(millis(&next) - millis(&heartbeat) >= 1_000 - ROUNDING_MS);
}
