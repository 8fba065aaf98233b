//! RFC 6455 over real sockets: what breaks it is told by a close frame that really arrives.

use serde_json::json;

use crate::harness::{Node, Socket};
use crate::raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, close, frame, ping_message};

/// The first frame of a fragmented text, a frame in its middle and its last.
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;

/// Sends `bytes` on a session of their own and expects to be closed with `code`.
async fn closed_with(node: &Node, what: &str, bytes: &[u8], code: u16) {
    let mut raw = Raw::quiet(node).await;
    raw.write(bytes).await;
    assert_eq!(raw.closed().await.close_code(), Some(code), "{what}");
}

#[tokio::test]
async fn what_breaks_the_protocol_is_closed_with_1002() {
    let node = Node::start(&[]).await;
    let (first, text) = (frame(TEXT_BEGINS, b"{"), ping_message("x"));
    for (what, bytes) in [
        ("garbage", b"GET / HTTP/1.1\r\nHost: node\r\n\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("no mask", [&[TEXT, text.len() as u8], text.as_bytes()].concat()),
        ("no mask on an empty frame", vec![TEXT, 0]),
        ("fragmented ping", frame(PING & 0x7F, b"")),
        ("fragmented close", frame(CLOSE & 0x7F, b"")),
        ("ping of 126 bytes", frame(PING, &[b'x'; 126])),
        ("continuation of nothing", frame(ENDS, b"x")),
        ("a message inside a message", [first.clone(), frame(TEXT, b"}")].concat()),
        ("a binary frame inside a text", [first.clone(), frame(BINARY, b"}")].concat()),
        ("a length not in its shortest form", vec![TEXT, 0xFE, 0, 5, 1, 2, 3, 4, 1, 2, 3, 4, 5]),
        ("a length over 63 bits", vec![TEXT, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        ("a close frame of one byte", frame(CLOSE, &[3])),
    ] {
        closed_with(&node, what, &bytes, 1002).await;
    }
    for bits in [0x10, 0x20, 0x40, 0x70] {
        closed_with(&node, &format!("reserved bits {bits:x}"), &frame(TEXT | bits, b"{}"), 1002).await;
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        closed_with(&node, &format!("opcode {opcode:x}"), &frame(0x80 | opcode, b"{}"), 1002).await;
    }
    assert_eq!(node.metric(r#"hiveops_ws_disconnections_total{reason="protocol_error"}"#).await, 27.0);
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_closed_with_1007() {
    let node = Node::start(&[]).await;
    let cut_character = [frame(TEXT_BEGINS, b"{\"type\":\"\xC3"), frame(ENDS, b"\"}")].concat();
    for (what, bytes) in [
        ("whole", frame(TEXT, b"{\"type\":\"\xFF\"}")),
        ("a surrogate", frame(TEXT, b"\xED\xA0\x80")),
        ("an end inside a character", frame(TEXT, b"\xE2\x82")),
        ("a character cut off by the next frame", cut_character),
        // Refused at once: the rest of the message never comes.
        ("the first of several frames", frame(TEXT_BEGINS, b"\xFF")),
        ("the reason of a close frame", frame(CLOSE, b"\x03\xE8\xFF")),
    ] {
        closed_with(&node, what, &bytes, 1007).await;
    }
}

#[tokio::test]
async fn binary_messages_are_closed_with_1003_whatever_their_size() {
    let node = Node::start(&[]).await;
    closed_with(&node, "empty", &frame(BINARY, b""), 1003).await;
    closed_with(&node, "small", &frame(BINARY, b"\x00\xFF"), 1003).await;
    closed_with(&node, "over the soft cap", &frame(BINARY, &[0; 70_000]), 1003).await;
    let fragments = [frame(0x02, &[0; 40_000]), frame(ENDS, &[0; 40_000])].concat();
    closed_with(&node, "over the soft cap in fragments", &fragments, 1003).await;
}

#[tokio::test]
async fn a_message_in_fragments_is_answered_once_it_is_whole() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    let text = ping_message("pieces");
    let (head, rest) = text.as_bytes().split_at(7);
    let (middle, tail) = rest.split_at(9);
    for piece in [frame(TEXT_BEGINS, head), frame(GOES_ON, middle), frame(GOES_ON, b""), frame(ENDS, tail)] {
        raw.write(&piece).await;
    }
    assert_eq!(raw.expect("pong").await["correlation_id"], "pieces");
}

#[tokio::test]
async fn a_character_may_be_cut_between_fragments() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    let text = "{\"type\":\"ä\"}".as_bytes();
    let (head, tail) = text.split_at(10);
    raw.write(&[frame(TEXT_BEGINS, head), frame(ENDS, tail)].concat()).await;
    assert_eq!(raw.expect("error").await["message"], "Unknown message type: ä");
}

#[tokio::test]
async fn a_ping_between_fragments_is_answered_before_the_message() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    let text = ping_message("outer");
    let (head, tail) = text.as_bytes().split_at(12);
    let pong = frame(PONG, b"nobody asked");
    let pieces = [frame(TEXT_BEGINS, head), frame(PING, b"inner"), pong, frame(ENDS, tail)].concat();
    raw.write(&pieces).await;
    let pong = raw.frame().await;
    assert_eq!((pong.first, pong.payload.as_slice()), (PONG, b"inner".as_slice()));
    assert_eq!(raw.expect("pong").await["correlation_id"], "outer");
}

#[tokio::test]
async fn a_pong_carries_the_payload_of_its_ping() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    for payload in [b"".as_slice(), b"x", &[0xFF; 125]] {
        raw.write(&frame(PING, payload)).await;
        let pong = raw.frame().await;
        assert_eq!((pong.first, pong.payload.as_slice()), (PONG, payload));
    }
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_own_code() {
    let node = Node::start(&[]).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
        let mut raw = Raw::quiet(&node).await;
        raw.write(&close(code, "bye")).await;
        let answer = raw.closed().await;
        assert_eq!((answer.close_code(), answer.payload.len()), (Some(code), 2));
    }
    let mut raw = Raw::quiet(&node).await;
    raw.write(&frame(CLOSE, b"")).await;
    assert_eq!(raw.closed().await.close_code(), None);
}

#[tokio::test]
async fn a_close_code_that_may_not_be_sent_is_closed_with_1002() {
    let node = Node::start(&[]).await;
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        closed_with(&node, &format!("close {code}"), &close(code, ""), 1002).await;
    }
}

#[tokio::test]
async fn what_was_asked_before_a_close_is_answered_and_what_follows_it_is_not() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    let before = frame(TEXT, ping_message("before").as_bytes());
    let after = frame(TEXT, ping_message("after").as_bytes());
    raw.write(&[before, close(1000, ""), after].concat()).await;
    assert_eq!(raw.expect("pong").await["correlation_id"], "before");
    assert_eq!(raw.frame().await.close_code(), Some(1000));
    assert_eq!(raw.frame_or_end().await, None);
}

#[tokio::test]
async fn a_client_that_is_still_sending_receives_the_close_frame() {
    let node = Node::start(&[]).await;
    let megabyte = vec![0xFF; 1 << 20];
    let message = [frame(TEXT_BEGINS, &[b'x'; 60_000]), megabyte.clone()].concat();
    for (what, bytes, code) in [
        ("garbage", megabyte.clone(), 1002),
        ("garbage inside a message", message, 1002),
        ("binary, then garbage", [frame(BINARY, b"x"), megabyte.clone()].concat(), 1003),
        ("a message over the hard cap", frame(TEXT, &megabyte), 1009),
        ("a close frame, then garbage", [close(1001, ""), megabyte].concat(), 1001),
    ] {
        let mut raw = Raw::quiet(&node).await;
        // Nothing is read while all of it is written.
        raw.write(&bytes).await;
        assert_eq!(raw.closed().await.close_code(), Some(code), "{what}");
    }
}

#[tokio::test]
async fn a_half_closed_socket_gets_its_answers_and_then_the_end() {
    // Nothing but the end of the stream can tell the node: its own pings would take too long.
    let node = Node::start(&[("WS_PROTOCOL_PING_SECONDS", "3600")]).await;
    for round in 0..200 {
        let mut raw = Raw::quiet(&node).await;
        raw.write(&frame(TEXT, ping_message("last").as_bytes())).await;
        raw.finish().await;
        assert_eq!(raw.expect("pong").await["correlation_id"], "last", "{round}");
        assert_eq!(raw.frame_or_end().await, None, "{round}");
        let mut raw = Raw::quiet(&node).await;
        raw.write(&close(1000, "")).await;
        raw.finish().await;
        assert_eq!(raw.closed().await.close_code(), Some(1000), "{round}");
    }
    node.metric_reaches("hiveops_ws_connections_active", |active| active == 0.0).await;
}

#[tokio::test]
async fn a_connection_that_breaks_frees_its_name_and_its_subscriptions() {
    let node = Node::start(&[]).await;
    let first = Socket::joined(&node, "tasks?connection_id=me").await;
    let stats = node.get("/api/dashboard/websocket/stats").await;
    assert_eq!(stats["websocket_stats"]["active_connections"], 1);
    assert_eq!(stats["websocket_stats"]["subscription_counts"]["tasks"], 1);
    assert_eq!(stats["websocket_stats"]["connections_by_type"], json!({"tasks": 1}));
    let tokio_tungstenite::MaybeTlsStream::Plain(socket) = first.stream.get_ref() else {
        panic!("a plain socket");
    };
    // The connection ends with a reset: no close frame, not even the end of the stream.
    socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(first);
    node.metric_reaches("hiveops_ws_connections_active", |active| active == 0.0).await;
    node.metric_reaches(r#"hiveops_ws_disconnections_total{reason="client_gone"}"#, |count| count == 1.0)
        .await;
    let stats = node.get("/api/dashboard/websocket/stats").await;
    assert_eq!(stats["websocket_stats"]["active_connections"], 0);
    assert_eq!(stats["websocket_stats"]["subscription_counts"]["tasks"], 0);
    let mut again = Socket::connect(&node, "tasks?connection_id=me").await;
    let established = again.expect("connection_established").await;
    assert_eq!(established["connection_id"], "me");
    assert!(established.get("requested_connection_id").is_none());
}
