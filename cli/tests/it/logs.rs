//! The log of the real binary: one JSON object per line with the fields of CONTRACT section 11, and never
//! a credential or what somebody published.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Place;
use crate::running::Running;
use crate::wire::{Http, Socket};

const TOKEN: &str = "token-marker-5f1d9a";
const WRONG: &str = "wrong-marker-77c2e0";
const PAYLOAD: &str = "payload-marker-e83b41";

/// Publications that must fill the buffers of a client that does not read, kernel included.
const PUBLICATIONS_MAX: usize = 600;
/// Bytes of each: many frames' worth of a socket buffer.
const PUBLICATION_BYTES: usize = 60_000;

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))
}

fn with_message(lines: &[String], message: &str) -> Vec<Value> {
    lines.iter().map(|line| parsed(line)).filter(|line| line["message"] == message).collect()
}

/// Everything that a log could be tempted to repeat.
fn misbehave(url: &str, authorization: &str) {
    let mut http = Http::connect(url);
    let headers = [("Authorization", authorization)];
    let (status, _) = http
        .publish("tasks", "task_update", &[("Authorization", &format!("Bearer {WRONG}"))], &json!({}))
        .unwrap();
    assert_eq!(status, 401);
    let (status, _) = http.publish("tasks", "task_update", &headers, &json!([PAYLOAD])).unwrap();
    assert_eq!(status, 422);
    let alert = json!({"alerts": PAYLOAD});
    let (status, _) = http.publish("alerts", "critical_alert", &headers, &alert).unwrap();
    assert_eq!(status, 422);
    let (status, _) = http.call("POST /api/v1/tasks", &headers, &format!("{{\"{PAYLOAD}")).unwrap();
    assert_eq!(status, 400);
    let task = json!({"title": PAYLOAD, "metadata": {PAYLOAD: PAYLOAD}});
    let (status, _) = http.call("POST /api/v1/tasks", &headers, &task.to_string()).unwrap();
    assert_eq!(status, 201);
    let mut socket = Socket::connect(url, "dashboard?subscriptions=tasks", Some(TOKEN));
    for text in [
        format!("{{\"type\":\"{PAYLOAD}\"}}"),
        format!("{{\"type\":\"ping\",\"correlation_id\":7,\"x\":\"{PAYLOAD}\"}}"),
        format!("{PAYLOAD}{{"),
        json!({"type": "auth_refresh", "token": WRONG}).to_string(),
    ] {
        socket.send(&text);
    }
    socket.wait_for("error");
    let mut refused = Socket::connect(url, "dashboard", Some(WRONG));
    assert_eq!(refused.next(), None, "a wrong credential is closed at once");
}

#[test]
fn every_line_is_a_json_object_and_none_has_a_credential_or_a_payload() {
    let place = Place::new();
    let env = [
        ("WS_AUTH_REQUIRED", "true"),
        ("WS_AUTH_TOKEN", TOKEN),
        ("HIVEOPS_LOG", "trace"),
        ("HIVEOPS_NODE_ID", "n9"),
    ];
    let (mut node, url) = Running::node(&place, &["--data-dir", "data"], &env);
    let authorization = format!("Bearer {TOKEN}");
    misbehave(&url, &authorization);
    let mut http = Http::connect(&url);
    let headers = [("Authorization", authorization.as_str()), ("X-Correlation-ID", "log:1")];
    let (status, _) = http.publish("tasks", "task_update", &headers, &json!({"id": PAYLOAD})).unwrap();
    assert_eq!(status, 200);
    drop(http);
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(0));
    let lines = [node.out.all(), node.err.all()].concat();
    for line in &lines {
        let object = parsed(line);
        for member in ["timestamp", "level", "message", "node_id", "target"] {
            assert!(object[member].is_string(), "{member} is missing: {line}");
        }
        assert_eq!(object["node_id"], "n9");
        for marker in [TOKEN, WRONG, PAYLOAD] {
            assert!(!line.contains(marker), "{line}");
        }
    }
    let received = with_message(&lines, "publication received");
    let ours =
        received.iter().find(|line| line["correlation_id"] == "log:1").expect("the publication is logged");
    assert_eq!((&ours["type"], &ours["subscription"]), (&json!("task_update"), &json!("tasks")));
    let denied = with_message(&lines, "handshake denied");
    assert_eq!(denied.len(), 1, "one line for one handshake: {denied:#?}");
    let found = ["reason", "told", "code"].map(|member| denied[0][member].clone());
    assert_eq!(found, [json!("credential_invalid"), json!("credential_invalid"), json!(4401)]);
    // What is no handshake has a line of its own: the request with the wrong token.
    assert_eq!(with_message(&lines, "credential denied").len(), 1);
}

#[test]
fn a_send_failure_is_logged_with_the_publication_and_the_session_that_missed_it() {
    let place = Place::new();
    let (node, url) = Running::node(&place, &[], &[("WS_OUTBOX_FRAMES_MAX", "8"), ("HIVEOPS_NODE_ID", "n9")]);
    let mut slow = Socket::connect(&url, "dashboard?subscriptions=tasks&connection_id=slow-1", None);
    slow.wait_for("dashboard_initialized");
    let mut http = Http::connect(&url);
    let data = json!({"pad": format!("{PAYLOAD}{}", "x".repeat(PUBLICATION_BYTES))});
    let ended = |lines: &[String]| lines.iter().any(|line| line.contains("\"message\":\"session ended\""));
    let mut published = Vec::new();
    while !ended(&node.err.all()) {
        assert!(published.len() < PUBLICATIONS_MAX, "a client that does not read is not closed");
        let id = format!("slow:{}", published.len());
        let reply = http.publish("tasks", "task_event", &[("X-Correlation-ID", &id)], &data).unwrap();
        assert_eq!(reply.0, 200);
        published.push(id);
    }
    let lines = node.err.all();
    let failures = with_message(&lines, "frame could not be queued for a session");
    // Five in a row close it (CONTRACT section 6); a buffer that grew in between may have ended a row.
    assert!(failures.len() >= 5, "{failures:#?}");
    for failure in &failures {
        assert!(published.iter().any(|id| failure["correlation_id"] == **id), "{failure}");
        assert_eq!((&failure["type"], &failure["subscription"]), (&json!("task_event"), &json!("tasks")));
        assert_eq!((&failure["connection_id"], &failure["node_id"]), (&json!("slow-1"), &json!("n9")));
        assert_eq!(failure["level"], "warn");
    }
    let end = &with_message(&lines, "session ended")[0];
    assert_eq!((&end["reason"], &end["code"]), (&json!("backpressure"), &json!(1013)));
    assert_eq!(end["connection_id"], "slow-1");
    assert!(!lines.iter().any(|line| line.contains(PAYLOAD)));
}
