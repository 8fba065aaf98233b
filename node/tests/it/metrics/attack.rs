//! Outsiders make up names by the thousand. None becomes a series.

use std::collections::BTreeSet;

use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::scrape;
use crate::harness::{Node, Socket, soon};

/// Made-up names of each kind that go over one socket.
const NAMES: usize = 1_000;
/// Connections and requests that each bring names of their own.
const CONNECTIONS: usize = 60;

/// Every series, without its value.
async fn series(node: &Node) -> BTreeSet<String> {
    let text = scrape(node, "text/plain").await.text;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Messages that name what nobody has heard of.
async fn over_one_socket(node: &Node) {
    let mut socket = Socket::joined(node, "dashboard?subscriptions=tasks").await;
    for number in 0..NAMES {
        let name = format!("made-up-{number}");
        for frame in [
            json!({"type": "subscribe", "subscriptions": [name], "correlation_id": name}),
            json!({"type": "unsubscribe", "subscriptions": [name]}),
            json!({"type": name}),
            json!({"type": "request_data", "data_type": name, "request_id": name}),
            json!({"type": "auth_refresh", "token": name}),
        ] {
            socket.send(frame).await;
        }
        // What was answered is read, so that the socket is not closed for being slow.
        if number % 50 == 0 {
            socket.send(json!({"type": "ping"})).await;
            socket.wait_for("pong").await;
        }
    }
}

/// Connections with names, addresses, versions and ends of their own.
async fn over_many_sockets(node: &Node) {
    for number in 0..CONNECTIONS {
        let query = format!(
            "dashboard?subscriptions=made-up-{number},tasks&connection_id=c{number}&contract_version=9.{number}.0"
        );
        let address = format!("10.0.{}.{}", number / 256, number % 256);
        let user = format!("Bearer made-up-{number}");
        let headers =
            [("x-forwarded-for", address.as_str()), ("authorization", &user), ("user-agent", &user)];
        let mut socket = Socket::connect_with(node, &query, &headers).await;
        let reason = format!("made up {number}");
        let code = 3_000 + u16::try_from(number).unwrap();
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let _ = soon("a send", socket.stream.send(Message::Close(Some(frame)))).await;
    }
}

async fn over_http(node: &Node) {
    for number in 0..CONNECTIONS {
        let name = format!("made-up-{number}");
        for (method, path) in [
            ("GET", format!("/{name}")),
            ("GET", format!("/api/v1/tasks/{name}")),
            ("POST", format!("/api/v1/agents/{name}/heartbeat")),
            ("POST", format!("/api/dashboard/websocket/broadcast?subscription={name}&message_type={name}")),
            ("POST", format!("/api/dashboard/websocket/broadcast?subscription=tasks&message_type={name}")),
            ("POST", format!("/api/dashboard/websocket/disconnect/{name}?reason={name}")),
            ("POST", "/api/auth/login".to_owned()),
            ("POST", "/api/dashboard/telemetry/version-mismatch".to_owned()),
        ] {
            let body =
                json!({"id": name, "email": name, "password": name, "client_version": name, "role": name});
            let call = node.call(method, &path).json(&body).header("X-Correlation-ID", &name);
            call.header("X-Forwarded-For", &format!("10.1.0.{number}")).send().await;
        }
        let key = json!({"id": name, "agent_type": name});
        let call = node.broadcast("tasks", "task_update").json(&key).header("Idempotency-Key", &name);
        let trace = format!("00-{number:032x}-{number:016x}-01");
        call.header("X-Correlation-ID", &name).header("traceparent", &trace).send().await;
    }
}

#[tokio::test]
async fn no_name_that_somebody_makes_up_becomes_a_series() {
    let settings = [
        ("HIVEOPS_TRUSTED_PROXIES", "127.0.0.1"),
        ("WS_RATE_TOKENS_PER_SEC", "10000"),
        ("WS_RATE_BURST", "10000"),
    ];
    let node = Node::start(&settings).await;
    let before = series(&node).await;
    assert!(before.len() > 300, "{}", before.len());
    over_one_socket(&node).await;
    over_many_sockets(&node).await;
    over_http(&node).await;
    let after = series(&node).await;
    let new: Vec<&String> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:#?}");
    // It was not for want of trying.
    let unknown = node.metric(r#"hiveops_ws_errors_sent_total{code="unknown_message_type"}"#).await;
    assert!(unknown >= (NAMES / 2) as f64, "{unknown}");
}
