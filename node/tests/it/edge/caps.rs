//! The caps are exact, however many come at once. Those of users are with the tokens, in `auth`.

use super::{LONG, PROXY, admitted, assert_refused_by, attempt, attempts, refused, session};
use crate::harness::{Node, until};
use crate::raw::Attempt;

const ATTEMPTS: usize = 500;

#[tokio::test]
async fn five_hundred_at_once_get_exactly_the_places_of_the_whole() {
    let node = Node::start(&[LONG, ("WS_MAX_CONNECTIONS_TOTAL", "40")]).await;
    let attempts = attempts(&node, ATTEMPTS, &[]).await;
    let told = attempts
        .iter()
        .filter(|attempt| matches!(attempt, Attempt::Closed(1013, reason) if reason == "connection_limit"));
    assert_eq!(told.count(), ATTEMPTS - 40);
    let mut sessions = admitted(attempts);
    assert_eq!(sessions.len(), 40);
    assert_eq!(node.metric("hiveops_ws_connections_active").await, 40.0);
    assert_eq!(refused(&node, "cluster_full").await, 460.0);
    drop(sessions.pop());
    until("the place to be free", async || matches!(attempt(&node, &[]).await, Attempt::Admitted(_))).await;
}

#[tokio::test]
async fn five_hundred_at_once_behind_a_proxy_get_exactly_the_places_of_their_address() {
    let node = Node::start(&[LONG, PROXY, ("WS_MAX_CONNECTIONS_PER_ADDRESS", "40")]).await;
    let client = [("X-Forwarded-For", "203.0.113.1")];
    let attempts = attempts(&node, ATTEMPTS, &client).await;
    for attempt in attempts.iter().filter(|attempt| !matches!(attempt, Attempt::Admitted(_))) {
        assert_refused_by("max_connections_per_address", attempt);
    }
    let sessions = admitted(attempts);
    assert_eq!(sessions.len(), 40);
    assert_eq!(refused(&node, "address_full").await, 460.0);
    session(attempt(&node, &[("X-Forwarded-For", "203.0.113.2")]).await);
}

#[tokio::test]
async fn five_hundred_at_once_from_one_address_get_exactly_its_places() {
    let admin = ("HIVEOPS_ADMIN_LISTEN", "127.0.0.1:0");
    let node = Node::start(&[LONG, admin, ("WS_MAX_CONNECTIONS_PER_ADDRESS", "40")]).await;
    let attempts = attempts(&node, ATTEMPTS, &[]).await;
    // Some are told, the others are too many even before they have said anything.
    let unheard = attempts.iter().filter(|attempt| matches!(attempt, Attempt::Unheard)).count();
    for attempt in attempts.iter().filter(|attempt| matches!(attempt, Attempt::Refused(..))) {
        assert_refused_by("max_connections_per_address", attempt);
    }
    let closed = attempts.iter().filter(|attempt| matches!(attempt, Attempt::Closed(..))).count();
    let sessions = admitted(attempts);
    assert_eq!((sessions.len(), closed), (40, 0));
    let counted = refused(&node, "address_full").await + refused(&node, "address_waiting").await;
    assert_eq!((counted, refused(&node, "address_waiting").await), (460.0, unheard as f64));
}
