//! Sessions over TLS are sessions: nothing is lost on the way from HTTP to a shard, and a slow reader hurts itself.

use rustls::ProtocolVersion;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::client::TlsStream;

use super::client::{Manner, SLOW_BYTES, Secured, TLS12, TLS13};
use crate::harness::{Closed, Socket, soon};
use crate::raw::{QUIET, TEXT, close, frame, handshake, ping_message};

const ONE_SHARD: (&str, &str) = ("HIVEOPS_SHARDS", "1");
const SUBSCRIPTION: &str = "project_index";
const PATH: &str = "dashboard?subscriptions=project_index";

/// Bytes of padding; some ten of them fill the kernel's buffers.
const LARGE: usize = 40_000;

fn data(number: u64) -> Value {
    json!({"id": format!("k{number}"), "number": number, "pad": "x".repeat(LARGE)})
}

async fn joined(secured: &Secured, manner: &Manner) -> Socket {
    let mut socket = secured.connect(PATH, manner).await;
    socket.expect("connection_established").await;
    socket.expect("dashboard_initialized").await;
    socket.expect("snapshot").await;
    socket
}

/// The next event, which must be this one.
async fn expect_event(socket: &mut Socket, number: u64) {
    let event = socket.wait_for("project_index_event").await;
    assert_eq!(event["data"]["number"], number, "in their order, and none left out");
}

async fn pong(socket: &mut Socket, id: &str) {
    socket.send_text(&ping_message(id)).await;
    assert_eq!(socket.wait_for("pong").await["correlation_id"], id);
}

#[tokio::test]
async fn http_and_sessions_work_over_either_version_and_whichever_listener() {
    let secured = Secured::start(&[("HIVEOPS_ADMIN_LISTEN", "127.0.0.1:0")]).await;
    for (version, expected) in [(TLS12, ProtocolVersion::TLSv1_2), (TLS13, ProtocolVersion::TLSv1_3)] {
        let manner = Manner { versions: version, alpn: &[b"h2", b"http/1.1"], ..Manner::default() };
        let stream = secured.try_stream(&manner).await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.protocol_version(), Some(expected));
        assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut socket = secured.connect("dashboard?subscriptions=tasks", &manner).await;
        socket.expect("connection_established").await;
        pong(&mut socket, "c1").await;
    }
    assert_eq!(secured.call("GET", "/readyz", None).await.0, 200);
    // The listener for admins is encrypted as well: it is where the strongest credentials go.
    let mut admin = tokio::net::TcpStream::connect(secured.node.admin.unwrap()).await.unwrap();
    admin.write_all(b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", admin.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[tokio::test]
async fn what_was_sent_along_with_the_handshake_is_not_lost() {
    let secured = Secured::start(&[]).await;
    let mut stream = secured.stream().await;
    // Several records in one segment: HTTP takes some of them, TLS holds some, and some are still in the socket.
    stream.write_all(&handshake(QUIET, &[])).await.unwrap();
    for number in 0..30 {
        let message = ping_message(&format!("early{number}"));
        stream.write_all(&frame(TEXT, message.as_bytes())).await.unwrap();
    }
    stream.flush().await.unwrap();
    let text = read_until(&mut stream, "early29").await;
    let places: Vec<usize> = (0..30).filter_map(|number| text.find(&format!("early{number}\""))).collect();
    assert!(places.len() == 30 && places.is_sorted(), "all are answered, in their order: {places:?}");
}

async fn read_until(stream: &mut TlsStream<tokio::net::TcpStream>, end: &str) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if text.contains(end) {
            return text;
        }
        assert!(soon("bytes", stream.read_buf(&mut read)).await.unwrap() > 0, "it ended: {text}");
    }
}

#[tokio::test]
async fn a_burst_beyond_the_kernels_buffers_arrives_whole_and_in_order() {
    let secured = Secured::start(&[ONE_SHARD]).await;
    let slow = Manner { receive_bytes: Some(SLOW_BYTES), ..Manner::default() };
    let mut socket = joined(&secured, &slow).await;
    // Less than an outbox takes, several times what the kernels do.
    for number in 0..20 {
        secured.publish(SUBSCRIPTION, "project_index_event", &data(number)).await;
    }
    // Some of it has to wait.
    secured.metric_reaches("hiveops_ws_outbox_frames", |frames| frames > 0.0).await;
    for number in 0..20 {
        expect_event(&mut socket, number).await;
    }
    secured.metric_reaches("hiveops_ws_outbox_frames", |value| value == 0.0).await;
    pong(&mut socket, "after").await;
}

#[tokio::test]
async fn a_snapshot_of_many_parts_arrives_whole() {
    let secured = Secured::start(&[ONE_SHARD]).await;
    for number in 0..40 {
        secured.publish(SUBSCRIPTION, "project_index_update", &data(number)).await;
    }
    let slow = Manner { receive_bytes: Some(SLOW_BYTES), ..Manner::default() };
    let mut socket = secured.connect(PATH, &slow).await;
    let mut numbers = Vec::new();
    loop {
        let part = socket.wait_for("snapshot").await;
        let items = part["items"].as_array().unwrap();
        numbers.extend(items.iter().map(|item| item["data"]["number"].as_u64().unwrap()));
        if part["part"] == part["parts"] {
            assert!(part["parts"].as_u64().unwrap() > 3);
            break;
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_that_stops_reading_is_closed_for_backpressure_and_others_get_everything() {
    let secured = Secured::start(&[ONE_SHARD]).await;
    let slow = Manner { receive_bytes: Some(SLOW_BYTES), ..Manner::default() };
    let (mut bad, mut good) = (joined(&secured, &slow).await, joined(&secured, &Manner::default()).await);
    let closed = r#"hiveops_ws_backpressure_disconnects_total{reason="outbox_full"}"#;
    let mut number = 0;
    while secured.metric(closed).await == 0.0 {
        assert!(number < 200, "one that reads nothing is not closed");
        secured.publish(SUBSCRIPTION, "project_index_event", &data(number)).await;
        expect_event(&mut good, number).await;
        number += 1;
    }
    let (frames, end) = bad.rest().await;
    assert_eq!(end, Some(Closed { code: 1013, reason: "backpressure".to_owned() }));
    let (notice, before) = frames.split_last().unwrap();
    assert_eq!(notice["type"], "disconnect_notice");
    let got = before.iter().filter(|frame| frame["type"] == "project_index_event");
    let got: Vec<u64> = got.map(|frame| frame["data"]["number"].as_u64().unwrap()).collect();
    assert_eq!(got, (0..got.len() as u64).collect::<Vec<_>>(), "the beginning, without a hole");
    secured.publish(SUBSCRIPTION, "project_index_event", &data(number)).await;
    expect_event(&mut good, number).await;
}

#[tokio::test]
async fn a_message_over_the_hard_cap_ends_with_1009_that_its_client_sees() {
    let secured = Secured::start(&[]).await;
    let mut socket = secured.connect("dashboard?subscriptions=", &Manner::default()).await;
    socket.send_text(&"x".repeat(65_537)).await;
    assert_eq!(socket.wait_for("error").await["code"], "message_too_large");
    pong(&mut socket, "still").await;
    socket.send_text(&"x".repeat(1 << 20)).await;
    let (_, closed) = socket.rest().await;
    assert_eq!(closed.map(|closed| closed.code), Some(1009));
}

#[tokio::test]
async fn a_close_is_answered_and_tls_is_ended_in_order() {
    let secured = Secured::start(&[]).await;
    let mut stream = secured.stream().await;
    stream.write_all(&handshake(QUIET, &[])).await.unwrap();
    read_until(&mut stream, "dashboard_initialized").await;
    stream.write_all(&close(1000, "")).await.unwrap();
    let mut rest = Vec::new();
    // Without the word that it ends, this is an error.
    soon("the end", stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"\x88\x02\x03\xE8"), "the code comes back: {rest:?}");
}

#[tokio::test]
async fn a_client_that_says_it_ends_without_a_close_frame_has_ended() {
    let secured = Secured::start(&[]).await;
    let mut stream = secured.stream().await;
    stream.write_all(&handshake(QUIET, &[])).await.unwrap();
    read_until(&mut stream, "dashboard_initialized").await;
    // The socket itself stays open: only TLS says so.
    let (socket, mut connection) = stream.into_inner();
    connection.send_close_notify();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    let mut socket = socket;
    socket.write_all(&bytes).await.unwrap();
    secured
        .metric_reaches(r#"hiveops_ws_disconnections_total{reason="client_gone"}"#, |value| value == 1.0)
        .await;
}
