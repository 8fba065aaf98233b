//! Inbound rate: the burst and then the rate pass, what is over is dropped and told, and without end it is
//! abuse.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{errors, millis, of_type};
use crate::harness::{Node, Socket, soon};

/// A session that is joined to nothing, so that only replies come.
const QUIET: &str = "dashboard?subscriptions=";

const RECEIVED: &str = "hiveops_ws_messages_received_total";
const DROPPED: &str = "hiveops_ws_messages_dropped_rate_limit_total";

/// How far the number of accepted messages may lie from what the rate allows.
const TOLERANCE: f64 = 0.02;

/// How long a flood lasts at least: long enough for the rate to tell, beside the burst.
const FLOOD_MIN: Duration = Duration::from_millis(1_200);

/// Messages between two looks at what the node answers: a writer that always finds room would never let
/// the reader run.
const READ_EVERY: usize = 100;

/// What came of a flood.
struct Flood {
    sent: usize,
    /// All frames that the session got.
    frames: Vec<Value>,
    accepted: usize,
    /// Between the first accepted message and the last, by the node's clock.
    seconds: f64,
}

/// Sends at least ten thousand messages without a pause, and ends the session once the node has seen them
/// all.
async fn flood(node: &Node) -> Flood {
    let socket = Socket::joined(node, QUIET).await;
    let (mut sink, mut stream) = socket.stream.split();
    let send = async {
        let (begun, mut sent) = (Instant::now(), 0);
        while sent < 10_000 || begun.elapsed() < FLOOD_MIN {
            soon("room to send", sink.feed(ping())).await.unwrap();
            sent += 1;
            if sent % READ_EVERY == 0 {
                tokio::task::yield_now().await;
            }
        }
        soon("room to send", sink.flush()).await.unwrap();
        node.metric_reaches(RECEIVED, |received| received >= sent as f64).await;
        soon("room to close", sink.close()).await.unwrap();
        sent
    };
    // A client that did not read the answers would be closed for it.
    let read = async {
        let mut frames: Vec<Value> = Vec::new();
        while let Some(Ok(message)) = soon("a frame or the end", stream.next()).await {
            if let Message::Text(text) = message {
                frames.push(serde_json::from_str(&text).unwrap());
            }
        }
        frames
    };
    let (sent, frames) = tokio::join!(send, read);
    let pongs = of_type(&frames, "pong");
    let (first, last) = (pongs.first().expect("a pong"), pongs.last().expect("a pong"));
    let seconds = (millis(last) - millis(first)) as f64 / 1_000.0;
    Flood { sent, accepted: pongs.len(), seconds, frames }
}

fn ping() -> Message {
    Message::text(json!({"type": "ping"}).to_string())
}

#[track_caller]
fn assert_accepted(flood: &Flood, burst: f64, rate: f64) {
    let expected = burst + rate * flood.seconds;
    let off = (flood.accepted as f64 - expected).abs();
    // A message is accepted whole or not at all, so one is the least that can be told apart.
    assert!(
        off <= (expected * TOLERANCE).max(1.0),
        "{} accepted in {} s, not {expected}",
        flood.accepted,
        flood.seconds
    );
}

#[tokio::test]
async fn of_ten_thousand_messages_and_more_the_burst_and_twenty_per_second_are_answered() {
    let node = Node::start(&[]).await;
    let flood = flood(&node).await;
    assert_accepted(&flood, 40.0, 20.0);
    let dropped = flood.sent - flood.accepted;
    assert_eq!(node.metric(DROPPED).await, dropped as f64);
    let told = errors(&flood.frames, "rate_limited");
    assert!((1..=1 + (flood.seconds / 5.0) as usize).contains(&told.len()), "{} notices", told.len());
    assert!(told[0]["message"].as_str().unwrap().contains("Rate limit exceeded"));
    let retry_after_ms = told[0]["retry_after_ms"].as_u64().unwrap();
    assert!((1..=50).contains(&retry_after_ms), "a token comes every 50 ms, not in {retry_after_ms}");
    assert_eq!(flood.frames.len(), flood.accepted + told.len(), "nothing else comes");
}

#[tokio::test]
async fn a_higher_rate_accepts_in_proportion_to_the_time() {
    let node = Node::start(&[("WS_RATE_TOKENS_PER_SEC", "1000"), ("WS_RATE_BURST", "1000")]).await;
    let flood = flood(&node).await;
    assert_accepted(&flood, 1_000.0, 1_000.0);
}

#[tokio::test]
async fn a_flood_that_goes_on_is_told_once_per_cooldown() {
    let node = Node::start(&[("WS_RATE_LIMIT_NOTIFY_COOLDOWN_SECONDS", "1")]).await;
    let mut socket = Socket::joined(&node, QUIET).await;
    let mut told: Vec<Value> = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while told.len() < 3 {
        tokio::select! {
            _ = ticks.tick() => {
                for _ in 0..10 {
                    socket.stream.feed(ping()).await.unwrap();
                }
                socket.stream.flush().await.unwrap();
            }
            frame = socket.next() => told.extend(Some(frame).filter(|frame| frame["type"] == "error")),
        }
    }
    for pair in told.windows(2) {
        // The clock of the cooldown and that of the timestamps both count whole milliseconds.
        assert!(millis(&pair[1]) - millis(&pair[0]) >= 999, "{told:?}");
    }
}

#[tokio::test]
async fn drops_in_each_of_a_row_of_seconds_are_abuse_and_end_the_session_with_1008() {
    let settings =
        [("WS_RATE_TOKENS_PER_SEC", "1"), ("WS_RATE_BURST", "1"), ("WS_RATE_LIMIT_ABUSE_SECONDS", "3")];
    let node = Node::start(&settings).await;
    let mut socket = Socket::joined(&node, QUIET).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut frames: Vec<Value> = Vec::new();
    let closed = loop {
        let message = tokio::select! {
            _ = ticks.tick() => {
                // The node may have closed already; what it said comes by the other branch.
                let _ = socket.stream.send(ping()).await;
                continue;
            }
            message = socket.stream.next() => message,
        };
        match message {
            Some(Ok(Message::Text(text))) => frames.push(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(frame))) => break frame.expect("a code"),
            other => panic!("{other:?} instead of a close frame"),
        }
    };
    let notice = frames.last().expect("a notice");
    assert_eq!(notice["type"], "disconnect_notice");
    assert_eq!((&notice["reason"], &notice["code"]), (&json!("rate_limit_abuse"), &json!(1008)));
    assert_eq!((u16::from(closed.code), closed.reason.as_str()), (1008, "rate_limit_abuse"));
    let first = errors(&frames, "rate_limited")[0];
    let after = millis(notice) - millis(first);
    assert!(after > 1_000, "one whole second and parts of two others lie between, not {after} ms");
    assert_eq!(node.metric(r#"hiveops_ws_disconnections_total{reason="rate_limit_abuse"}"#).await, 1.0);
}

#[tokio::test]
async fn malformed_json_counts_against_the_rate_like_any_message() {
    let node = Node::start(&[("WS_RATE_TOKENS_PER_SEC", "1"), ("WS_RATE_BURST", "5")]).await;
    let mut socket = Socket::joined(&node, QUIET).await;
    for _ in 0..5 {
        socket.stream.feed(Message::text("{\"type\":")).await.unwrap();
    }
    socket.stream.feed(ping()).await.unwrap();
    socket.stream.flush().await.unwrap();
    for _ in 0..5 {
        let error = socket.expect("error").await;
        assert_eq!(error["code"], "invalid_json");
        assert!(error["message"].as_str().unwrap().contains("Invalid JSON message format"));
    }
    let error = socket.expect("error").await;
    assert_eq!(error["code"], "rate_limited");
    assert!((1..=1_000).contains(&error["retry_after_ms"].as_u64().unwrap()));
}
