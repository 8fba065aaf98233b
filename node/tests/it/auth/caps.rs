//! The cap per user, on a node that is the whole cluster.

use futures_util::future::join_all;
use hiveops_proto::access::Role;

use super::{JWT, ORIGINS, bearer, leaks, tokens};
use crate::harness::{Node, until};
use crate::raw::{Attempt, Raw};

async fn attempt(node: &Node, token: &str) -> Attempt {
    Raw::connect(node).await.attempt(&[("Authorization", &bearer(token))]).await
}

fn is_told(attempt: &Attempt) -> bool {
    matches!(attempt, Attempt::Closed(4403, reason) if reason == "connection_limit")
}

#[tokio::test]
async fn five_hundred_at_once_get_exactly_the_places_of_their_user() {
    leaks::watch();
    let cap = ("WS_MAX_CONNECTIONS_PER_USER", "30");
    let node = Node::start_with_access(&[JWT[0], JWT[1], ORIGINS, cap], tokens::access()).await;
    // Different logins of one user, with different roles, are one user.
    let ada = [tokens::token("ada", Role::Viewer), tokens::token("ada", Role::Operator)];
    let bob = tokens::token("bob", Role::Viewer);
    let attempts = (0..500).map(|number| attempt(&node, &ada[number % 2]));
    let mut sessions = join_all(attempts).await;
    assert_eq!(sessions.iter().filter(|attempt| is_told(attempt)).count(), 470);
    sessions.retain(|attempt| matches!(attempt, Attempt::Admitted(_)));
    assert_eq!(sessions.len(), 30);
    let user_full = "hiveops_ws_handshakes_refused_total{reason=\"user_full\"}";
    assert_eq!(node.metric(user_full).await, 470.0);
    assert!(matches!(attempt(&node, &bob).await, Attempt::Admitted(_)), "another user has places of its own");
    drop(sessions.pop());
    until("the place to be free", async || matches!(attempt(&node, &ada[0]).await, Attempt::Admitted(_)))
        .await;
    // Another limit is in force at once, for those who come.
    node.set_limits(|limits| limits.max_connections_per_user = 0);
    until("no limit", async || matches!(attempt(&node, &ada[0]).await, Attempt::Admitted(_))).await;
    leaks::check();
}
