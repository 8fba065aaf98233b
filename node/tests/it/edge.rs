//! The edge: who is behind a connection, how many may come from where, what a crowd that says nothing can do,
//! and the listener for those who run the node.

mod admin;
mod caps;
mod crowds;
mod forwarded;

use futures_util::future::join_all;

use crate::harness::Node;
use crate::raw::{Attempt, Raw};

/// A proxy of the tests, which is this machine.
const PROXY: (&str, &str) = ("HIVEOPS_TRUSTED_PROXIES", "127.0.0.1");

/// So long that nothing ends by itself within a test.
const LONG: (&str, &str) = ("WS_HANDSHAKE_TIMEOUT_SECONDS", "120");

/// A handshake from this machine.
async fn attempt(node: &Node, headers: &[(&str, &str)]) -> Attempt {
    Raw::connect(node).await.attempt(headers).await
}

/// So many handshakes at once.
async fn attempts(node: &Node, count: usize, headers: &[(&str, &str)]) -> Vec<Attempt> {
    join_all((0..count).map(|_| attempt(node, headers))).await
}

/// The sessions among them; the others are dropped.
fn admitted(attempts: Vec<Attempt>) -> Vec<Raw> {
    let admitted = attempts.into_iter().filter_map(|attempt| match attempt {
        Attempt::Admitted(raw) => Some(raw),
        Attempt::Closed(..) | Attempt::Refused(..) | Attempt::Unheard => None,
    });
    admitted.collect()
}

#[track_caller]
fn session(attempt: Attempt) -> Raw {
    match attempt {
        Attempt::Admitted(raw) => raw,
        other => panic!("no session: {other:?}"),
    }
}

/// It was answered with 503, which names the limit and says when to come again.
#[track_caller]
fn assert_refused_by(limit: &str, attempt: &Attempt) {
    let Attempt::Refused(head, problem) = attempt else { panic!("not refused by {limit}: {attempt:?}") };
    assert_eq!((head.status, &problem["code"]), (503, &"overloaded".into()), "{problem}");
    assert_eq!(head.headers["retry-after"], "1");
    assert!(problem["detail"].as_str().unwrap().contains(limit), "{problem}");
}

async fn refused(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("hiveops_ws_handshakes_refused_total{{reason=\"{reason}\"}}")).await
}
