//! Peers that speak no TLS, half of it, or break it: they end in time, are counted, and hurt nobody else.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::client::{Manner, Secured};
use crate::harness::soon;
use crate::raw::{PONG, QUIET, TEXT, frame, handshake, ping_message};

const TLS: &str = r#"hiveops_ws_handshakes_refused_total{reason="tls"}"#;
const TIMEOUT: &str = r#"hiveops_ws_handshakes_refused_total{reason="timeout"}"#;

/// A record as TLS 1.3 has them, whose content nobody encrypted.
fn garbage() -> Vec<u8> {
    [&[23, 3, 3, 0, 64][..], &[7; 64]].concat()
}

/// Sends this and reads to the end.
async fn answer_to(secured: &Secured, bytes: &[u8]) -> Vec<u8> {
    let mut stream = soon("a connection", TcpStream::connect(secured.node.address)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_closed_and_counted() {
    let secured = Secured::start(&[]).await;
    for (count, bytes) in
        [&handshake(QUIET, &[])[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[0; 100]].into_iter().enumerate()
    {
        assert!(!answer_to(&secured, bytes).await.starts_with(b"HTTP/"));
        secured.metric_reaches(TLS, |value| value == count as f64 + 1.0).await;
    }
    // One that does not like the certificate, and one that wants another protocol.
    let manner = Manner { alpn: &[b"h2"], ..Manner::default() };
    assert!(secured.try_stream(&manner).await.is_err());
    secured.metric_reaches(TLS, |value| value == 4.0).await;
    // Who only looks whether somebody is there has refused nothing.
    drop(soon("a connection", TcpStream::connect(secured.node.address)).await.unwrap());
    assert_eq!(secured.call("GET", "/livez", None).await.0, 200);
    assert_eq!(secured.metric(TLS).await, 4.0);
}

#[tokio::test]
async fn a_handshake_that_stops_halfway_ends_at_the_deadline_and_keeps_nobody() {
    let secured = Secured::start(&[("WS_HANDSHAKE_TIMEOUT_SECONDS", "2")]).await;
    let name = ServerName::try_from("localhost").unwrap();
    let mut hello = Vec::new();
    let mut connection = ClientConnection::new(secured.config(&Manner::default()), name).unwrap();
    connection.write_tls(&mut hello).unwrap();
    let begun = Instant::now();
    let (halfway, answered) = tokio::join!(
        answer_to(&secured, &hello[..hello.len() / 2]),
        // This one gets the node's part of the handshake, and does not go on.
        answer_to(&secured, &hello),
    );
    assert!(begun.elapsed() >= Duration::from_millis(1_990), "too early");
    assert!(halfway.is_empty() && !answered.is_empty());
    secured.metric_reaches(TIMEOUT, |value| value == 2.0).await;
    // Shaking hands is a part of the time, not a new one: this one sends no request.
    let begun = Instant::now();
    let mut mute = secured.stream().await;
    let mut rest = Vec::new();
    let _ = soon("the end", mute.read_to_end(&mut rest)).await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    secured.metric_reaches(TIMEOUT, |value| value == 3.0).await;
}

#[tokio::test]
async fn garbage_in_the_middle_ends_that_session_alone() {
    let secured = Secured::start(&[("HIVEOPS_SHARDS", "1")]).await;
    let mut good = secured.connect("dashboard?subscriptions=", &Manner::default()).await;
    let mut bad = secured.stream().await;
    bad.write_all(&handshake(QUIET, &[])).await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("dashboard_initialized") {
        assert!(soon("bytes", bad.read_buf(&mut read)).await.unwrap() > 0);
    }
    let (mut socket, _) = bad.into_inner();
    socket.write_all(&garbage()).await.unwrap();
    let mut alert = Vec::new();
    let _ = soon("the end", socket.read_to_end(&mut alert)).await;
    assert_eq!(alert.first(), Some(&23), "it is told, by an encrypted alert");
    secured
        .metric_reaches(r#"hiveops_ws_disconnections_total{reason="protocol_error"}"#, |value| value == 1.0)
        .await;
    good.send_text(&ping_message("alive")).await;
    assert_eq!(good.wait_for("pong").await["correlation_id"], "alive");
}

#[tokio::test]
async fn garbage_behind_good_data_ends_the_session_at_once() {
    let secured = Secured::start(&[]).await;
    let pings = |pad| frame(TEXT, format!(r#"{{"type":"ping","pad":"{}"}}"#, "x".repeat(pad)).as_bytes());
    let pongs = |count| frame(PONG, &[b'x'; 120]).repeat(count);
    // What is answered, and what is not; short enough to be read together with what follows, and too long for it.
    let goods = [pings(0), pings(3_000), pings(9_000), pongs(1), pongs(24), pongs(70)];
    for (count, good) in goods.iter().enumerate() {
        let mut stream = secured.stream().await;
        stream.write_all(&handshake(QUIET, &[])).await.unwrap();
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains("dashboard_initialized") {
            assert!(soon("bytes", stream.read_buf(&mut read)).await.unwrap() > 0);
        }
        let (mut socket, mut connection) = stream.into_inner();
        let mut wire = Vec::new();
        for _ in 0..2 {
            connection.writer().write_all(good).unwrap();
            while connection.wants_write() {
                connection.write_tls(&mut wire).unwrap();
            }
        }
        wire.extend(garbage());
        socket.write_all(&wire).await.unwrap();
        // It sends nothing more, and stays.
        let reason = r#"hiveops_ws_disconnections_total{reason="protocol_error"}"#;
        secured.metric_reaches(reason, |value| value == count as f64 + 1.0).await;
        drop(socket);
    }
}

#[tokio::test]
async fn garbage_after_the_nodes_leave_hurts_nobody() {
    let secured = Secured::start(&[("HIVEOPS_SHARDS", "1")]).await;
    let mut good = secured.connect("dashboard?subscriptions=", &Manner::default()).await;
    let mut bad = secured.stream().await;
    bad.write_all(&handshake(&format!("{QUIET}&connection_id=bad"), &[])).await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("dashboard_initialized") {
        assert!(soon("bytes", bad.read_buf(&mut read)).await.unwrap() > 0);
    }
    assert_eq!(secured.call("POST", "/api/dashboard/websocket/disconnect/bad", None).await.0, 200);
    // The node's close frame, and the leave that TLS takes behind it.
    soon("the leave", bad.read_to_end(&mut read)).await.unwrap();
    let (mut socket, _) = bad.into_inner();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    soon("the end of the socket", async {
        while socket.write_all(&garbage()).await.is_ok() {
            ticks.tick().await;
        }
    })
    .await;
    good.send_text(&ping_message("alive")).await;
    assert_eq!(good.wait_for("pong").await["correlation_id"], "alive");
}

#[tokio::test]
async fn an_address_has_its_share_of_handshakes_over_tls_as_well() {
    let settings = [("WS_HANDSHAKE_TIMEOUT_SECONDS", "120"), ("WS_MAX_CONNECTIONS_PER_ADDRESS", "20")];
    let secured = Secured::start(&settings).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(soon("a connection", TcpStream::connect(secured.node.address)).await.unwrap());
    }
    assert!(secured.try_stream(&Manner::default()).await.is_err(), "the address has twenty already");
    silent.clear();
    crate::harness::until("the places to be free", async || {
        secured.try_stream(&Manner::default()).await.is_ok()
    })
    .await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(secured.connect("dashboard?subscriptions=", &Manner::default()).await);
    }
    let mut stream = secured.stream().await;
    stream.write_all(&handshake(QUIET, &[])).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"}") {
        assert!(soon("bytes", stream.read_buf(&mut read)).await.unwrap() > 0);
    }
    drop(sessions);
    let text = String::from_utf8_lossy(&read);
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("max_connections_per_address"), "{text}");
}
