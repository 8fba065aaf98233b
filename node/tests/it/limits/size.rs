//! Inbound size: up to the soft cap is read, up to the hard cap is told and survived, beyond it the
//! connection ends with a close frame that really arrives.

use super::padded_ping;
use crate::harness::{Node, Socket};
use crate::raw::{Raw, TEXT, frame};

const SOFT: usize = 65_536;
const HARD: usize = 262_144;
const QUIET: &str = "dashboard?subscriptions=";

/// The first frame of a text message that goes on.
const TEXT_BEGINS: u8 = 0x01;
/// The last frame of a message.
const CONTINUES_LAST: u8 = 0x80;

#[tokio::test]
async fn exactly_the_soft_cap_passes() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, QUIET).await;
    socket.send_text(&padded_ping(SOFT)).await;
    socket.expect("pong").await;
}

#[tokio::test]
async fn over_the_soft_cap_is_told_on_a_socket_that_still_answers() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, QUIET).await;
    for len in [SOFT + 1, HARD] {
        socket.send_text(&padded_ping(len)).await;
        let error = socket.expect("error").await;
        assert_eq!(error["code"], "message_too_large");
        assert!(error["message"].as_str().unwrap().contains("Message too large"), "{error}");
        socket.send_text(&padded_ping(100)).await;
        socket.expect("pong").await;
    }
}

#[tokio::test]
async fn a_message_in_fragments_is_as_large_as_all_of_them() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    let message = padded_ping(SOFT + 1);
    let (front, back) = message.split_at(40_000);
    raw.write(&frame(TEXT_BEGINS, front.as_bytes())).await;
    raw.write(&frame(CONTINUES_LAST, back.as_bytes())).await;
    assert_eq!(raw.expect("error").await["code"], "message_too_large");
    raw.write(&frame(TEXT, padded_ping(100).as_bytes())).await;
    raw.expect("pong").await;
}

#[tokio::test]
async fn over_the_hard_cap_the_client_receives_the_close_frame() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, QUIET).await;
    socket.send_text(&padded_ping(HARD + 1)).await;
    let (frames, closed) = socket.rest().await;
    assert_eq!(frames, Vec::<serde_json::Value>::new(), "a protocol close sends only the close frame");
    let closed = closed.expect("a close frame");
    assert_eq!((closed.code, closed.reason.as_str()), (1009, "message_too_big"));
    assert_eq!(node.metric(r#"hiveops_ws_disconnections_total{reason="message_too_big"}"#).await, 1.0);
}

#[tokio::test]
async fn over_the_hard_cap_in_fragments_is_over_it_all_the_same() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    raw.write(&frame(TEXT_BEGINS, &vec![b'x'; 200_000])).await;
    raw.write(&frame(CONTINUES_LAST, &vec![b'x'; HARD + 1 - 200_000])).await;
    assert_eq!(raw.closed().await.close_code(), Some(1009));
}

/// A peer that writes all before it reads: a socket that was simply closed would answer it with a reset,
/// and the close frame would be lost.
#[tokio::test]
async fn a_client_that_is_still_sending_receives_the_close_frame() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    raw.write(&frame(TEXT, &vec![b'x'; 8 << 20])).await;
    assert_eq!(raw.closed().await.close_code(), Some(1009));
}

#[tokio::test]
async fn a_header_that_announces_a_tebibyte_is_enough_for_the_close_frame() {
    let node = Node::start(&[]).await;
    let mut raw = Raw::quiet(&node).await;
    let header = [&[TEXT, 0xFF], &(1_u64 << 40).to_be_bytes()[..], &[1, 2, 3, 4]].concat();
    raw.write(&header).await;
    assert_eq!(raw.closed().await.close_code(), Some(1009));
}
