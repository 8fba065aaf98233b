//! Handshakes and connections: who is too slow, too many or too fast, and that a freed place is free.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Closed, Node, PATIENCE, Socket, soon};
use crate::raw::{QUIET, Raw, handshake};

const SOCKET: &str = "dashboard?subscriptions=";
const HANDSHAKE_TIMEOUT: (&str, &str) = ("WS_HANDSHAKE_TIMEOUT_SECONDS", "1");

/// Tries a handshake; what refused it when it was refused.
async fn try_handshake(node: &Node) -> Result<Raw, (u16, Value)> {
    let mut raw = Raw::connect(node).await;
    raw.write(&handshake(QUIET, &[])).await;
    let head = raw.head().await;
    if head.status == 101 {
        return Ok(raw);
    }
    let problem = raw.problem_after(&head).await;
    assert_eq!(head.headers["retry-after"], "1", "a client is told when to come back");
    Err((head.status, problem))
}

#[track_caller]
fn assert_refused_by(limit: &str, attempt: Result<Raw, (u16, Value)>) {
    let Err((status, problem)) = attempt else { panic!("{limit} admits too many") };
    assert_eq!((status, &problem["code"]), (503, &"overloaded".into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(limit), "{problem}");
}

/// Waits until a handshake passes again.
async fn admitted_again(node: &Node) -> Raw {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    soon("a free place", async {
        loop {
            ticks.tick().await;
            if let Ok(raw) = try_handshake(node).await {
                return raw;
            }
        }
    })
    .await
}

/// Reads whatever comes to the end of the stream, and says how long it took.
async fn cut_off(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    begun.elapsed()
}

#[tokio::test]
async fn half_a_request_head_is_cut_off_after_the_handshake_timeout() {
    let node = Node::start(&[HANDSHAKE_TIMEOUT]).await;
    let head = handshake(QUIET, &[]);
    for sent in [0, 1, head.len() / 2, head.len() - 1] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(&head[..sent]).await.unwrap();
        cut_off(&mut stream).await;
        assert!(begun.elapsed() >= Duration::from_millis(990), "after {sent} bytes");
    }
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off_as_well() {
    let node = Node::start(&[HANDSHAKE_TIMEOUT]).await;
    let stream = TcpStream::connect(node.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let head = handshake(QUIET, &[("X-Pad", &"x".repeat(10_000))]);
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let trickle = async {
        for byte in head.chunks(1) {
            ticks.tick().await;
            if writer.write_all(byte).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = trickle => {}
        _ = soon("the end", reader.read_to_end(&mut answer)) => {}
    }
    assert!(!answer.starts_with(b"HTTP/1.1 101"));
}

#[tokio::test]
async fn beyond_the_nodes_connections_a_handshake_gets_503_until_one_ends() {
    let node = Node::start(&[("WS_MAX_CONNECTIONS_PER_NODE", "2")]).await;
    let first = Socket::joined(&node, SOCKET).await;
    let _second = Socket::joined(&node, SOCKET).await;
    assert_refused_by("max_connections_per_node", try_handshake(&node).await);
    drop(first);
    admitted_again(&node).await;
    assert!(node.metric(r#"hiveops_ws_handshakes_refused_total{reason="node_full"}"#).await >= 1.0);
}

#[tokio::test]
async fn beyond_an_addresss_connections_a_handshake_gets_503_until_one_ends() {
    let node = Node::start(&[("WS_MAX_CONNECTIONS_PER_ADDRESS", "1")]).await;
    let first = Socket::joined(&node, SOCKET).await;
    assert_refused_by("max_connections_per_address", try_handshake(&node).await);
    // Another address has places of its own: all of 127/8 is this machine.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = other.connect(node.address).await.unwrap();
    other.write_all(&handshake(QUIET, &[])).await.unwrap();
    let mut status = [0; 12];
    soon("a status line", other.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    drop(first);
    admitted_again(&node).await;
}

#[tokio::test]
async fn beyond_the_rate_of_handshakes_they_get_503() {
    let node = Node::start(&[("WS_HANDSHAKE_RATE_PER_SECOND", "2")]).await;
    let begun = Instant::now();
    let (mut admitted, mut refused) = (Vec::new(), 0_u32);
    while refused == 0 {
        match try_handshake(&node).await {
            Ok(raw) => admitted.push(raw),
            refusal => {
                refused += 1;
                assert_refused_by("handshake_rate_per_second", refusal);
            }
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is refused");
    }
    // A bucket of one second's handshakes, and what has flowed in since.
    let allowed = 2.0 + 2.0 * begun.elapsed().as_secs_f64();
    assert!(admitted.len() >= 2 && admitted.len() as f64 <= allowed, "{} of {allowed}", admitted.len());
    admitted_again(&node).await;
}

#[tokio::test]
async fn beyond_the_clusters_connections_the_upgrade_is_closed_with_1013_until_one_ends() {
    let node = Node::start(&[("WS_MAX_CONNECTIONS_TOTAL", "1")]).await;
    let first = Socket::joined(&node, SOCKET).await;
    let (frames, closed) = Socket::connect(&node, SOCKET).await.rest().await;
    assert!(frames.is_empty(), "a refusal sends only the close frame: {frames:?}");
    assert_eq!(closed, Some(Closed { code: 1013, reason: "connection_limit".to_owned() }));
    drop(first);
    node.metric_reaches("hiveops_ws_connections_active", |active| active == 0.0).await;
    Socket::joined(&node, SOCKET).await;
}
