//! permessage-deflate over a real socket: what is agreed on, what is compressed, what is bounded.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::{Value, json};

use crate::harness::Node;
use crate::raw::{QUIET, Raw, TEXT, frame, handshake, ping_message};

const ON: (&str, &str) = ("WS_COMPRESSION_ENABLED", "true");
const OFFER: (&str, &str) = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits");
const COMPRESSED: u8 = 0x40;

async fn open(node: &Node, path: &str, offer: &[(&str, &str)]) -> (Raw, Option<String>) {
    let mut raw = Raw::connect(node).await;
    raw.write(&handshake(path, offer)).await;
    let head = raw.head().await;
    assert_eq!(head.status, 101);
    raw.expect("connection_established").await;
    raw.expect("dashboard_initialized").await;
    (raw, head.headers.get("sec-websocket-extensions").cloned())
}

fn compress(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut compress = Compress::new(Compression::default(), false);
    compress.compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xFF, 0xFF]), "it fitted");
    out.truncate(out.len() - 4);
    out
}

fn inflate(payload: &[u8]) -> Value {
    let mut out = Vec::with_capacity(1 << 20);
    let whole = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    Decompress::new(false).decompress_vec(&whole, &mut out, FlushDecompress::Sync).unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[tokio::test]
async fn large_publications_come_compressed_to_who_asked_for_it_and_to_nobody_else() {
    let node = Node::start(&[ON]).await;
    let path = "/api/dashboard/ws/dashboard?subscriptions=tasks";
    let (mut asked, agreed) = open(&node, path, &[OFFER]).await;
    let expected = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(agreed.as_deref(), Some(expected));
    let (mut plain, agreed) = open(&node, path, &[]).await;
    assert_eq!(agreed, None);
    for raw in [&mut asked, &mut plain] {
        raw.expect("snapshot").await;
    }
    for (size, compressed) in [(10, false), (2_000, true)] {
        let data = json!({"id": "t1", "text": "x".repeat(size)});
        node.publish("tasks", "task_update", data.clone()).await;
        let frame = asked.frame().await;
        let update = match compressed {
            true => {
                assert_eq!(frame.first, TEXT | COMPRESSED);
                assert!(frame.payload.len() < size / 4, "{}", frame.payload.len());
                inflate(&frame.payload)
            }
            false => {
                assert_eq!(frame.first, TEXT);
                serde_json::from_slice(&frame.payload).unwrap()
            }
        };
        assert_eq!((&update["data"], &update), (&data, &plain.expect("task_update").await));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_client_may_send_compressed_messages_and_they_have_the_same_bounds() {
    let node =
        Node::start(&[ON, ("WS_MAX_INBOUND_MESSAGE_BYTES", "1024"), ("WS_MAX_INBOUND_HARD_BYTES", "4096")])
            .await;
    let (mut raw, _) = open(&node, QUIET, &[OFFER]).await;
    raw.write(&frame(TEXT | COMPRESSED, &compress(&ping_message("p1")))).await;
    assert_eq!(raw.expect("pong").await["correlation_id"], "p1");
    raw.write(&frame(TEXT, ping_message("p2").as_bytes())).await;
    assert_eq!(raw.expect("pong").await["correlation_id"], "p2", "plain ones are taken as well");
    let padded = |bytes: usize| compress(&format!("{}{}", ping_message("p3"), " ".repeat(bytes)));
    assert!(padded(2_000).len() < 100);
    raw.write(&frame(TEXT | COMPRESSED, &padded(2_000))).await;
    assert_eq!(raw.expect("error").await["code"], "message_too_large");
    raw.write(&frame(TEXT | COMPRESSED, &padded(100_000))).await;
    assert_eq!(raw.closed().await.close_code(), Some(1009));
    let (mut raw, _) = open(&node, QUIET, &[OFFER]).await;
    raw.write(&frame(TEXT | COMPRESSED, &[0xFF; 20])).await;
    assert_eq!(raw.closed().await.close_code(), Some(1002));
    let (mut raw, _) = open(&node, QUIET, &[]).await;
    raw.write(&frame(TEXT | COMPRESSED, &compress(&ping_message("p4")))).await;
    assert_eq!(raw.closed().await.close_code(), Some(1002), "nothing was agreed on");
    node.stop().await;
}

#[tokio::test]
async fn without_the_setting_nothing_is_agreed_on() {
    let node = Node::start(&[]).await;
    let (_, agreed) = open(&node, QUIET, &[OFFER]).await;
    assert_eq!(agreed, None);
    node.stop().await;
}
