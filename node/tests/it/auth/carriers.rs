//! The ways a credential comes to a socket, and the origins whose pages may.

use hiveops_proto::access::Role;
use serde_json::json;

use super::tokens::{self, encode};
use super::{JWT, ORIGINS, PAGE, bearer, check_refused, denied, leaks, start};
use crate::harness::{Node, Socket};

const QUIET: &str = "dashboard?subscriptions=";

async fn check_accepted(node: &Node, path: &str, headers: &[(&'static str, &str)]) {
    Socket::connect_with(node, path, headers).await.expect("connection_established").await;
}

fn cookie(token: &str) -> String {
    format!("theme=dark; hiveops_session={token}")
}

#[tokio::test]
async fn a_header_a_subprotocol_and_a_cookie_each_carry_a_token() {
    let node = start().await;
    let token = tokens::token("ada", Role::Viewer);
    check_accepted(&node, QUIET, &[("authorization", &bearer(&token))]).await;
    let protocols = format!("hiveops.v1, hiveops.bearer.{}", leaks::secret(&encode(&token)));
    check_accepted(&node, QUIET, &[("sec-websocket-protocol", &protocols), ("origin", PAGE)]).await;
    check_accepted(&node, QUIET, &[("cookie", &cookie(&token)), ("origin", PAGE)]).await;
    assert_eq!(node.metric("hiveops_ws_connections_total").await, 3.0);
    leaks::check();
}

#[tokio::test]
async fn a_cookie_without_the_exact_origin_of_a_listed_page_is_closed_with_4403() {
    let node = start().await;
    let cookie = cookie(&tokens::token("ada", Role::SuperAdmin));
    // No browser is without an origin when it opens a socket.
    check_refused(&node, QUIET, &[("cookie", &cookie)], 4403, "origin_denied").await;
    for origin in ["https://evil.example", "https://ops.example.evil.example", "null", "https://ops.example."]
    {
        check_refused(&node, QUIET, &[("cookie", &cookie), ("origin", origin)], 4403, "origin_denied").await;
    }
    assert_eq!(node.metric("hiveops_ws_origin_denied_total").await, 5.0);
    // Where any page may connect, none may by a cookie.
    for origins in [&[("WS_ALLOWED_ORIGINS", "*")][..], &[]] {
        let node = Node::start_with_access(&[&JWT, origins].concat(), tokens::access()).await;
        check_refused(&node, QUIET, &[("cookie", &cookie), ("origin", PAGE)], 4403, "origin_denied").await;
    }
}

#[tokio::test]
async fn a_request_with_a_cookie_that_changes_something_names_its_origin() {
    let node = start().await;
    let cookie = cookie(&tokens::token("ada", Role::SuperAdmin));
    let publish = |origin: Option<&str>| {
        let call = node.broadcast("tasks", "task_event").header("Cookie", &cookie).json(&json!({"n": 1}));
        match origin {
            Some(origin) => call.header("Origin", origin),
            None => call,
        }
    };
    assert_eq!(publish(None).send().await.refusal(), (403, "forbidden".to_owned()));
    assert_eq!(publish(Some("https://evil.example")).send().await.refusal(), (403, "forbidden".to_owned()));
    assert_eq!(publish(Some(PAGE)).send().await.status, 200);
    assert_eq!(node.metric("hiveops_http_auth_denied_total{reason=\"origin\"}").await, 2.0);
    // Reading does not, as browsers do not name the origin of a page that reads from its own node.
    let stats = "/api/dashboard/websocket/stats";
    assert_eq!(node.call("GET", stats).header("Cookie", &cookie).send().await.status, 200);
}

#[tokio::test]
async fn the_table_of_origins() {
    let node = start().await;
    let header = bearer(&tokens::token("ada", Role::Viewer));
    for origins in [&[][..], &[PAGE], &["https://OPS.EXAMPLE"], &["https://ops.example:443"]] {
        let pairs = origins.iter().map(|origin| ("origin", *origin));
        let headers: Vec<_> = pairs.chain([("authorization", &*header)]).collect();
        check_accepted(&node, QUIET, &headers).await;
    }
    let bad = [
        "null",
        "https://ops.example.evil.example",
        "https://ops.example:8443",
        "https://ops.example.",
        "http://ops.example",
        "https://ops.example, https://ops.example",
    ];
    for origin in bad {
        check_refused(&node, QUIET, &[("origin", origin), ("authorization", &header)], 4403, "origin_denied")
            .await;
    }
    assert_eq!(node.metric("hiveops_ws_origin_denied_total").await, bad.len() as f64);
    assert_eq!(denied(&node, "credential_missing").await, 0.0);
}

#[tokio::test]
async fn two_origins_are_nobodys() {
    use crate::raw::{QUIET, Raw, handshake};
    let node = start().await;
    let header = bearer(&tokens::token("ada", Role::Viewer));
    let mut raw = Raw::connect(&node).await;
    let lines = [("Origin", PAGE), ("Authorization", &*header)];
    let request = String::from_utf8(handshake(QUIET, &lines)).unwrap();
    let twice = request.replacen("Origin:", &format!("Origin: {PAGE}\r\nOrigin:"), 1);
    assert_ne!(request, twice);
    raw.write(twice.as_bytes()).await;
    assert_eq!(raw.head().await.status, 101);
    node.metric_reaches("hiveops_ws_origin_denied_total", |count| count == 1.0).await;
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_no_second() {
    let node = start().await;
    let token = tokens::token("ada", Role::Viewer);
    let path = "/api/auth/ws-ticket";
    assert_eq!(node.call("POST", path).send().await.refusal(), (401, "unauthorized".to_owned()));
    for path in [path, "/api/v1/auth/ws-ticket"] {
        let answer = node.call("POST", path).header("Authorization", &bearer(&token)).send().await;
        assert_eq!(answer.header("cache-control"), "no-store");
        let body = answer.ok();
        assert_eq!((&body["expires_in"], &body["node_id"]), (&json!(30), &json!("n1")));
        let ticket = leaks::secret(body["ticket"].as_str().unwrap());
        assert!(!ticket.contains('.'));
        let socket = format!("{QUIET}&ticket={ticket}");
        let mut open = Socket::connect(&node, &socket).await;
        open.expect("connection_established").await;
        open.expect("dashboard_initialized").await;
        check_refused(&node, &socket, &[], 4401, "credential_invalid").await;
        // What came in by it is the user's, and goes on as the user's.
        open.send(json!({"type": "auth_refresh", "token": token})).await;
        open.expect("auth_refreshed").await;
    }
    check_refused(&node, &format!("{QUIET}&ticket=x"), &[], 4401, "credential_invalid").await;
    assert_eq!(denied(&node, "ticket").await, 3.0);
    leaks::check();
}

#[tokio::test]
async fn one_user_cannot_take_the_tickets_of_all() {
    let node = start().await;
    let [ada, bob] = ["ada", "bob"].map(|user| bearer(&tokens::token(user, Role::Viewer)));
    let ask = |header: &str| node.call("POST", "/api/auth/ws-ticket").header("Authorization", header);
    let mut tickets = Vec::new();
    for _ in 0..32 {
        let answer = ask(&ada).send().await.ok();
        tickets.push(leaks::secret(answer["ticket"].as_str().unwrap()));
    }
    let refused = ask(&ada).send().await;
    assert_eq!(refused.refusal(), (429, "too_many_tickets".to_owned()));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    let counted = node.metric("hiveops_http_auth_denied_total{reason=\"tickets_of_user\"}").await;
    assert_eq!(counted, 1.0);
    assert_eq!(ask(&bob).send().await.status, 200, "others have theirs");
    check_accepted(&node, &format!("{QUIET}&ticket={}", tickets[0]), &[]).await;
    assert_eq!(ask(&ada).send().await.status, 200, "one that was used makes room");
    leaks::check();
}

#[tokio::test]
async fn a_token_in_the_query_is_taken_only_where_somebody_said_so() {
    let node = start().await;
    let path = format!("{QUIET}&access_token={}", tokens::token("ada", Role::Viewer));
    check_refused(&node, &path, &[], 4401, "credential_invalid").await;
    assert_eq!(denied(&node, "query_token").await, 1.0);
    let settings = [JWT[0], JWT[1], ORIGINS, ("WS_AUTH_QUERY_TOKEN", "true")];
    let node = Node::start_with_access(&settings, tokens::access()).await;
    check_accepted(&node, &path, &[]).await;
    leaks::check();
}
