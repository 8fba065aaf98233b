//! Connections that say nothing, or half of something: they end in time, and hold up nobody meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{LONG, PROXY, admitted, attempts, refused};
use crate::harness::{Node, soon, until};
use crate::raw::{Attempt, QUIET, Raw, handshake};

const ADMIN: (&str, &str) = ("HIVEOPS_ADMIN_LISTEN", "127.0.0.1:0");

/// A connection that has said so much of its handshake, and says no more.
async fn mute(node: &Node, said: usize) -> TcpStream {
    let mut raw = Raw::connect(node).await;
    raw.write(&handshake(QUIET, &[])[..said]).await;
    raw.stream
}

/// So many that say nothing, and as many that begin and stop.
async fn crowd(node: &Node, each: usize) -> Vec<TcpStream> {
    join_all((0..2 * each).map(|number| mute(node, if number < each { 0 } else { 40 }))).await
}

/// Whether the connection has ended; what came before that is passed over.
async fn has_ended(stream: &mut TcpStream) -> bool {
    let mut some = [0; 1_024];
    while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut some)).await {
        if count == 0 {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_storm_of_five_hundred_is_served_while_three_hundred_of_it_say_nothing() {
    let node = Node::start(&[LONG]).await;
    // They come at the same time, and stay for longer than a test waits.
    let (mut crowd, attempts) = tokio::join!(crowd(&node, 150), attempts(&node, 200, &[]));
    assert_eq!(admitted(attempts).len(), 200);
    // Those who come after them are not kept either, nor are other requests.
    assert_eq!(admitted(super::attempts(&node, 100, &[]).await).len(), 100);
    assert_eq!(node.call("GET", "/livez").send().await.status, 200);
    for stream in &mut crowd {
        assert!(!has_ended(stream).await, "its time is not over");
    }
    assert_eq!(refused(&node, "timeout").await, 0.0);
    // One that says the rest after all is a session.
    let mut late = crowd.pop().unwrap();
    late.write_all(&handshake(QUIET, &[])[40..]).await.unwrap();
    let mut status = [0; 12];
    soon("a status line", late.read_exact(&mut status)).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
}

#[tokio::test]
async fn silent_and_slow_connections_end_at_the_deadline_while_a_hundred_handshakes_succeed() {
    // Long enough for a hundred handshakes of a busy machine.
    let node = Node::start(&[("WS_HANDSHAKE_TIMEOUT_SECONDS", "6")]).await;
    let begun = Instant::now();
    let (crowd, attempts) = tokio::join!(crowd(&node, 100), attempts(&node, 100, &[]));
    let sessions = admitted(attempts);
    assert_eq!(sessions.len(), 100);
    let ends = crowd.into_iter().map(async |mut stream| {
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = soon("the end", stream.read_to_end(&mut answer)).await;
        assert!(begun.elapsed() >= Duration::from_millis(5_990), "too early");
        assert!(!answer.starts_with(b"HTTP/1.1 101"));
    });
    join_all(ends).await;
    until("each to be counted", async || refused(&node, "timeout").await == 200.0).await;
    assert_eq!(node.metric("hiveops_ws_connections_active").await, 100.0, "and nobody else ended");
}

#[tokio::test]
async fn one_address_that_says_nothing_holds_its_share_of_connections_and_no_more() {
    let node = Node::start(&[LONG, ADMIN, ("WS_MAX_CONNECTIONS_PER_ADDRESS", "20")]).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(mute(&node, 0).await);
    }
    // The kernel hands connections over in their order, so these twenty are there before it.
    assert!(matches!(super::attempt(&node, &[]).await, Attempt::Unheard));
    assert_eq!(refused(&node, "address_waiting").await, 1.0);
    // Another address has its own, and so has the listener for admins.
    let other = Raw::connect_from(&node, "127.0.0.2").await.attempt(&[]).await;
    assert!(matches!(other, Attempt::Admitted(_)), "{other:?}");
    assert_eq!(node.admin_call("GET", "/livez").send().await.status, 200);
    drop(silent.pop());
    until("the place to be free", async || matches!(super::attempt(&node, &[]).await, Attempt::Admitted(_)))
        .await;
}

#[tokio::test]
async fn a_session_takes_no_place_of_those_who_have_yet_to_become_one() {
    let node = Node::start(&[LONG, ADMIN, ("WS_MAX_CONNECTIONS_PER_ADDRESS", "20")]).await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(super::session(super::attempt(&node, &[]).await));
    }
    // They are the twenty that the address may have, and the twenty-first is told so.
    super::assert_refused_by("max_connections_per_address", &super::attempt(&node, &[]).await);
    assert_eq!(node.call("GET", "/livez").send().await.status, 200);
    assert_eq!(refused(&node, "address_waiting").await, 0.0);
}

#[tokio::test]
async fn a_proxy_that_is_believed_may_have_more_connections_than_an_address() {
    let node = Node::start(&[LONG, PROXY, ("WS_MAX_CONNECTIONS_PER_ADDRESS", "20")]).await;
    let _silent = crowd(&node, 50).await;
    let client = [("X-Forwarded-For", "203.0.113.1")];
    assert_eq!(admitted(attempts(&node, 20, &client).await).len(), 20);
    assert_eq!(refused(&node, "address_waiting").await, 0.0);
}
