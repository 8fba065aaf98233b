//! The opening handshake: nothing that comes along with it is lost, and what is wrong with it is said.

use std::sync::Arc;

use crate::harness::{Node, Socket};
use crate::raw::{QUIET, Raw, TEXT, frame, handshake, ping_message};

/// A handshake and two messages, and where the handshake ends.
fn stream() -> (Vec<u8>, usize) {
    let head = handshake(QUIET, &[]);
    let first = frame(TEXT, ping_message("first").as_bytes());
    let second = frame(TEXT, ping_message("second").as_bytes());
    let end = head.len();
    ([head, first, second].concat(), end)
}

/// Reads the answers to [`stream`] from the 101 on.
async fn check_answers(raw: &mut Raw, cut: usize) {
    assert_eq!(raw.head().await.status, 101, "cut at {cut}");
    check_frames(raw, cut).await;
}

async fn check_frames(raw: &mut Raw, cut: usize) {
    raw.expect("connection_established").await;
    raw.expect("dashboard_initialized").await;
    for id in ["first", "second"] {
        assert_eq!(raw.expect("pong").await["correlation_id"], id, "cut at {cut}");
    }
}

#[tokio::test]
async fn messages_that_come_with_the_handshake_are_answered_wherever_the_stream_is_cut() {
    let node = Node::start(&[]).await;
    let (stream, _) = stream();
    for cut in 0..=stream.len() {
        let mut raw = Raw::connect(&node).await;
        raw.write(&stream[..cut]).await;
        // Lets the node see the first part alone, most of the time.
        tokio::task::yield_now().await;
        raw.write(&stream[cut..]).await;
        check_answers(&mut raw, cut).await;
    }
}

#[tokio::test]
async fn a_message_may_begin_with_the_handshake_and_end_after_its_answer() {
    let node = Node::start(&[]).await;
    let (stream, head_len) = stream();
    for cut in head_len..=stream.len() {
        let mut raw = Raw::connect(&node).await;
        raw.write(&stream[..cut]).await;
        // With the answer read, the rest surely comes to the session and not to the handshake.
        assert_eq!(raw.head().await.status, 101, "cut at {cut}");
        raw.write(&stream[cut..]).await;
        check_frames(&mut raw, cut).await;
    }
}

#[tokio::test]
async fn a_stream_that_comes_byte_by_byte_is_answered() {
    let node = Node::start(&[]).await;
    let (stream, _) = stream();
    let mut raw = Raw::connect(&node).await;
    for byte in &stream {
        raw.write(std::slice::from_ref(byte)).await;
        tokio::task::yield_now().await;
    }
    check_answers(&mut raw, 1).await;
}

#[tokio::test]
async fn many_handshakes_at_once_each_get_their_own_answers() {
    let node = Arc::new(Node::start(&[]).await);
    let one = async |node: Arc<Node>| {
        let mut raw = Raw::connect(&node).await;
        raw.write(&stream().0).await;
        check_answers(&mut raw, 0).await;
    };
    futures_util::future::join_all((0..50).map(|_| one(Arc::clone(&node)))).await;
}

/// What a handshake with these lines is answered with.
async fn refused(node: &Node, path: &str, other: &[(&str, &str)], status: u16) -> crate::raw::Head {
    let mut raw = Raw::connect(node).await;
    raw.write(&handshake(path, other)).await;
    let (head, problem) = raw.problem().await;
    assert_eq!(head.status, status, "{path} {other:?}: {problem}");
    head
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_refused_with_a_problem_document() {
    let node = Node::start(&[]).await;
    let head = refused(&node, QUIET, &[("Sec-WebSocket-Version", "8")], 426).await;
    assert_eq!(head.headers["sec-websocket-version"], "13");
    let head = refused(&node, QUIET, &[("Sec-WebSocket-Version", "")], 426).await;
    assert_eq!(head.headers["sec-websocket-version"], "13");
    refused(&node, QUIET, &[("Sec-WebSocket-Key", "")], 400).await;
    refused(&node, QUIET, &[("Sec-WebSocket-Key", "c2hvcnQ=")], 400).await;
    let head = refused(&node, QUIET, &[("Upgrade", "")], 426).await;
    assert_eq!(head.headers["upgrade"], "websocket");
    refused(&node, QUIET, &[("Connection", "close")], 426).await;
    refused(&node, QUIET, &[("Upgrade", ""), ("Connection", "")], 426).await;
}

#[tokio::test]
async fn only_get_over_http_1_1_opens_a_socket() {
    let node = Node::start(&[]).await;
    let head = String::from_utf8(handshake(QUIET, &[])).unwrap();
    let mut raw = Raw::connect(&node).await;
    raw.write(head.replacen("GET", "POST", 1).as_bytes()).await;
    let (refused, problem) = raw.problem().await;
    assert_eq!((refused.status, &problem["code"]), (405, &"method_not_allowed".into()));
    assert!(refused.headers["allow"].contains("GET"));
    let mut raw = Raw::connect(&node).await;
    raw.write(head.replacen("HTTP/1.1", "HTTP/1.0", 1).as_bytes()).await;
    let (refused, problem) = raw.problem().await;
    assert_eq!((refused.status, &problem["code"]), (400, &"bad_request".into()));
}

#[tokio::test]
async fn a_wish_that_cannot_be_read_is_refused_before_the_upgrade() {
    let node = Node::start(&[]).await;
    for query in [
        "since=tasks",
        "since=tasks:0f:x",
        "since=tasks:XYZ:1",
        "since=tasks:0f:9007199254740992",
        "connection_id=a%20b",
    ] {
        refused(&node, &format!("/api/dashboard/ws/tasks?{query}"), &[], 400).await;
    }
    let long = format!("/api/dashboard/ws/tasks?connection_id={}", "x".repeat(129));
    refused(&node, &long, &[], 400).await;
    refused(&node, QUIET, &[("X-Correlation-ID", "not an id")], 400).await;
    refused(&node, "/api/dashboard/ws/nowhere", &[], 404).await;
}

#[tokio::test]
async fn the_subprotocol_is_answered_only_when_it_was_offered() {
    let node = Node::start(&[]).await;
    for (offered, answer) in [
        ("", None),
        ("chat", None),
        ("hiveops.v1", Some("hiveops.v1")),
        ("chat, hiveops.v1", Some("hiveops.v1")),
    ] {
        let mut raw = Raw::connect(&node).await;
        raw.write(&handshake(QUIET, &[("Sec-WebSocket-Protocol", offered)])).await;
        let head = raw.head().await;
        assert_eq!(head.status, 101);
        assert_eq!(head.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let protocol = head.headers.get("sec-websocket-protocol").map(String::as_str);
        assert_eq!(protocol, answer, "offered: {offered}");
        raw.expect("connection_established").await;
    }
}

#[tokio::test]
async fn the_first_frames_carry_the_correlation_id_of_the_handshake() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::connect(&node).await;
    raw.write(&handshake(QUIET, &[("X-Correlation-ID", "shake.1:a_b-c")])).await;
    assert_eq!(raw.head().await.headers["x-correlation-id"], "shake.1:a_b-c");
    assert_eq!(raw.expect("connection_established").await["correlation_id"], "shake.1:a_b-c");
    assert_eq!(raw.expect("dashboard_initialized").await["correlation_id"], "shake.1:a_b-c");

    let mut made = Socket::connect(&node, "dashboard?subscriptions=").await;
    let id = made.expect("connection_established").await["correlation_id"].clone();
    assert_eq!(id.as_str().unwrap().len(), 36, "{id}");
}
