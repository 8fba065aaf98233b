//! Users and their access tokens: what lets a socket in, keeps it, and puts it out; logins, which control
//! decides about; and that no token ends up in a log.

mod caps;
mod carriers;
mod control;
mod handshake;
mod leaks;
mod logins;
mod open;
mod roles;
mod tokens;

use hiveops_proto::control::AccessView;

use crate::harness::{Closed, Node, Socket};

/// A node that asks for access tokens.
const JWT: [(&str, &str); 2] = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_MODE", "jwt")];
const PAGE: &str = "https://ops.example";
const ORIGINS: (&str, &str) = ("WS_ALLOWED_ORIGINS", PAGE);

/// A node that asks for access tokens of the tests' key.
async fn start() -> Node {
    start_with(tokens::access()).await
}

async fn start_with(access: AccessView) -> Node {
    leaks::watch();
    Node::start_with_access(&[JWT[0], JWT[1], ORIGINS], access).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Connects with a token and reads up to the first snapshots.
async fn joined(node: &Node, path: &str, token: &str) -> Socket {
    let mut socket = Socket::connect_with(node, path, &[("authorization", &bearer(token))]).await;
    socket.expect("connection_established").await;
    socket
}

/// The handshake succeeds, and nothing but the close frame comes.
async fn check_refused(node: &Node, path: &str, headers: &[(&'static str, &str)], code: u16, reason: &str) {
    let (frames, closed) = Socket::connect_with(node, path, headers).await.rest().await;
    assert!(frames.is_empty(), "frames before the refusal: {frames:?}");
    assert_eq!(closed, Some(Closed { code, reason: reason.to_owned() }));
}

/// What a socket is told before it is closed.
async fn check_ended(socket: &mut Socket, reason: &str) {
    let (frames, closed) = socket.rest().await;
    let notice = frames.last().expect("a notice");
    assert_eq!((&notice["type"], &notice["reason"]), (&"disconnect_notice".into(), &reason.into()));
    assert_eq!(closed, Some(Closed { code: 4401, reason: reason.to_owned() }));
}

async fn denied(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("hiveops_ws_auth_denied_total{{reason=\"{reason}\"}}")).await
}
