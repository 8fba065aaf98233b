//! `X-Forwarded-For`, end to end: the cap per address shows for whom a session is counted.

use super::{PROXY, assert_refused_by, attempt, session};
use crate::harness::Node;
use crate::raw::{Attempt, Raw};

const ONE_EACH: (&str, &str) = ("WS_MAX_CONNECTIONS_PER_ADDRESS", "1");
const LIMIT: &str = "max_connections_per_address";

fn forwarded(line: &str) -> [(&str, &str); 1] {
    [("X-Forwarded-For", line)]
}

async fn ignored(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("hiveops_http_forwarded_for_ignored_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn a_proxy_that_is_believed_names_the_client_and_nobody_else_does() {
    let node = Node::start(&[PROXY, ONE_EACH]).await;
    let _client = session(attempt(&node, &forwarded("203.0.113.1")).await);
    let _other = session(attempt(&node, &forwarded("2001:db8::1")).await);
    for same in [
        "203.0.113.1",
        "203.0.113.1:4711",
        "::ffff:203.0.113.1",
        "[2001:db8::1]:443",
        // What a client writes itself, the proxy appends to.
        "198.51.100.1, 203.0.113.1",
        "127.0.0.1, 203.0.113.1",
        "nonsense, 203.0.113.1",
        "203.0.113.1, 127.0.0.1",
        "198.51.100.2\r\nX-Forwarded-For: 203.0.113.1",
        "198.51.100.2\r\nX-Forwarded-For: 203.0.113.1, 127.0.0.1",
    ] {
        assert_refused_by(LIMIT, &attempt(&node, &forwarded(same)).await);
    }
    let long = format!("{}203.0.113.1", "198.51.100.3, ".repeat(1_000));
    assert_refused_by(LIMIT, &attempt(&node, &forwarded(&long)).await);
    assert_eq!(ignored(&node, "malformed").await + ignored(&node, "untrusted_peer").await, 0.0);
}

#[tokio::test]
async fn whoever_is_no_proxy_is_counted_for_itself_whatever_it_says() {
    let node = Node::start(&[PROXY, ONE_EACH]).await;
    let from = async |line: &str| -> Attempt {
        Raw::connect_from(&node, "127.0.0.2").await.attempt(&forwarded(line)).await
    };
    let _first = session(from("203.0.113.1").await);
    for spoofed in ["203.0.113.2", "127.0.0.1", "garbage"] {
        assert_refused_by(LIMIT, &from(spoofed).await);
    }
    assert_eq!(ignored(&node, "untrusted_peer").await, 4.0);
    // The one that it named is free.
    session(attempt(&node, &forwarded("203.0.113.1")).await);
}

#[tokio::test]
async fn a_header_that_says_nothing_is_as_good_as_none() {
    let node = Node::start(&[PROXY, ONE_EACH]).await;
    let _proxy = session(attempt(&node, &[]).await);
    for line in ["unknown", "203.0.113.9, unknown", "203.0.113.9,", "203.0.113.9:x"] {
        assert_refused_by(LIMIT, &attempt(&node, &forwarded(line)).await);
    }
    assert_eq!(ignored(&node, "malformed").await, 4.0);
    let loops = vec!["127.0.0.1"; 1_000].join(",");
    assert_refused_by(LIMIT, &attempt(&node, &forwarded(&loops)).await);
    assert_eq!(ignored(&node, "too_many_hops").await, 1.0);
}

#[tokio::test]
async fn nobody_is_believed_by_default() {
    let node = Node::start(&[ONE_EACH]).await;
    let _first = session(attempt(&node, &forwarded("203.0.113.1")).await);
    assert_refused_by(LIMIT, &attempt(&node, &forwarded("203.0.113.2")).await);
    assert_eq!(ignored(&node, "untrusted_peer").await, 2.0);
}
