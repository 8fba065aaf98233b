//! Who may do what: routes that need a credential, roles that may not administer, and handshakes that are
//! refused by a close code because a browser sees nothing else.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;

use crate::harness::{Closed, Node, Socket, soon};

const TOKEN: &str = "a-token-of-the-tests";
const AUTH: [(&str, &str); 2] = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", TOKEN)];
const ORIGINS: (&str, &str) = ("WS_ALLOWED_ORIGINS", "https://a.example,http://127.0.0.1:3000");

/// The operations of the description, each with whether it is open without a credential.
fn operations() -> Vec<(String, String, bool)> {
    let document: Value = serde_json::from_str(include_str!("../../../schemas/openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters");
        operations.map(|(method, operation)| {
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            (method.to_uppercase(), path.replace("{id}", "x1").replace("{connection_id}", "c1"), open)
        })
    });
    // Logins bring their own credential.
    let own = ["/login", "/refresh", "/logout", "/me"];
    let is_login = |path: &str| path.contains("/auth/") && own.iter().any(|name| path.ends_with(name));
    let mut operations: Vec<_> = operations.filter(|(_, path, _)| !is_login(path)).collect();
    // Last, because the node goes away by it.
    operations.sort_by_key(|(_, path, _)| path.ends_with("/drain"));
    operations
}

/// Connects with headers of the test's own and returns what the handshake was answered with.
async fn shake(node: &Node, headers: &[(&'static str, &str)]) -> (Socket, Response) {
    let url = format!("ws://{}/api/dashboard/ws/dashboard?subscriptions=tasks", node.address);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let shaken = soon("a handshake", tokio_tungstenite::connect_async(request)).await;
    let (stream, response) = shaken.expect("an upgrade: refusals come after it");
    assert!(response.headers().contains_key("x-correlation-id"));
    (Socket { stream }, response)
}

/// The handshake succeeds and nothing but the close frame comes.
async fn check_refused(node: &Node, headers: &[(&'static str, &str)], code: u16, reason: &str) {
    let (mut socket, response) = shake(node, headers).await;
    assert_eq!(response.status(), 101);
    let (frames, closed) = socket.rest().await;
    assert!(frames.is_empty(), "frames before the refusal: {frames:?}");
    assert_eq!(closed, Some(Closed { code, reason: reason.to_owned() }), "{headers:?}");
}

async fn check_accepted(node: &Node, headers: &[(&'static str, &str)]) -> Response {
    let (mut socket, response) = shake(node, headers).await;
    socket.expect("connection_established").await;
    response
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Unpadded base64url, written out so that the test does not share the node's own.
fn base64url(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let encode = |chunk: &[u8]| {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |n| char::from(ALPHABET[(bits >> (18 - 6 * n) & 63) as usize]))
    };
    text.as_bytes().chunks(3).flat_map(encode).collect()
}

#[tokio::test]
async fn without_a_credential_the_open_routes_stay_open_and_all_others_are_refused() {
    let node = Node::start(&AUTH).await;
    let mut open = Vec::new();
    for (method, path, is_open) in operations() {
        let answer = node.call(&method, &path).send().await;
        if is_open {
            assert_eq!(answer.status, 200, "{method} {path}");
            open.push(path);
        } else {
            assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()), "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    open.sort();
    // CONTRACT section 1.
    let expected = [
        "/",
        "/.well-known/jwks.json",
        "/api/dashboard/metrics/websockets",
        "/api/dashboard/schema/ws_messages.schema.json",
        "/api/dashboard/websocket/contract",
        "/api/dashboard/websocket/limits",
        "/health",
        "/livez",
        "/metrics",
        "/readyz",
    ];
    assert_eq!(open, expected);
    assert_eq!(node.get("/api/dashboard/websocket/limits").await["ws_auth_required"], true);
    // What does not exist is not there for anybody.
    assert_eq!(node.call("GET", "/api/x").send().await.status, 404);
}

#[tokio::test]
async fn a_wrong_credential_is_refused_as_invalid_and_the_right_one_passes() {
    let node = Node::start(&AUTH).await;
    let path = "/api/dashboard/websocket/stats";
    let halves = TOKEN.split_at(10);
    for wrong in [bearer("another-token-of-them"), bearer(halves.0), bearer(""), format!("Basic {TOKEN}")] {
        let answer = node.call("GET", path).header("Authorization", &wrong).send().await;
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()), "{wrong}");
        assert_eq!(answer.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    for (method, path, _) in operations() {
        let answer = node.call(&method, &path).header("Authorization", &bearer(TOKEN)).send().await;
        assert!(![401, 403].contains(&answer.status), "{method} {path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_role_that_does_not_administer_may_look_but_not_publish_disconnect_or_drain() {
    for role in ["viewer", "operator", "developer"] {
        let node = Node::start(&[AUTH[0], AUTH[1], ("WS_AUTH_TOKEN_ROLE", role)]).await;
        let call = |method: &str, path: &str| node.call(method, path).header("Authorization", &bearer(TOKEN));
        assert_eq!(call("GET", "/api/dashboard/websocket/stats").send().await.status, 200);
        for path in ["broadcast?subscription=tasks&message_type=task_update", "disconnect/c1", "drain"] {
            let path = format!("/api/dashboard/websocket/{path}");
            let answer = call("POST", &path).text("{}").send().await;
            assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{role} {path}");
            // Without a credential it is not the role that is missing.
            assert_eq!(node.call("POST", &path).text("{}").send().await.status, 401);
        }
        let task = call("POST", "/api/v1/tasks").json(&json!({"title": "From a role"})).send().await;
        assert_eq!(task.status, if role == "viewer" { 403 } else { 201 }, "{role}");
        let mismatch = call("POST", "/api/dashboard/telemetry/version-mismatch").send().await;
        assert_eq!(mismatch.status, 204, "{role}");
    }
    let node = Node::start(&[AUTH[0], AUTH[1], ("WS_AUTH_TOKEN_ROLE", "enterprise_admin")]).await;
    let publish = node.broadcast("tasks", "task_update").header("Authorization", &bearer(TOKEN));
    assert_eq!(publish.text("{}").send().await.status, 200);
}

#[tokio::test]
async fn a_socket_without_a_valid_credential_is_closed_with_4401_before_any_data() {
    let node = Node::start(&AUTH).await;
    check_refused(&node, &[], 4401, "credential_missing").await;
    for wrong in [bearer("another-token-of-them"), "Bearer".to_owned(), format!("Basic {TOKEN}")] {
        check_refused(&node, &[("authorization", &wrong)], 4401, "credential_invalid").await;
    }
    let wrong = format!("hiveops.v1, hiveops.bearer.{}", base64url("another-token-of-them"));
    check_refused(&node, &[("sec-websocket-protocol", &wrong)], 4401, "credential_invalid").await;
    let garbage = "hiveops.v1, hiveops.bearer.~~~";
    check_refused(&node, &[("sec-websocket-protocol", garbage)], 4401, "credential_invalid").await;
    check_refused(&node, &[("sec-websocket-protocol", "hiveops.v1")], 4401, "credential_missing").await;
    let denied = "hiveops_ws_auth_denied_total{reason=\"credential_missing\"}";
    assert_eq!(node.metric(denied).await, 2.0);
    let denied = "hiveops_ws_auth_denied_total{reason=\"credential_invalid\"}";
    assert_eq!(node.metric(denied).await, 5.0);
    // A refusal is no session.
    assert_eq!(node.metric("hiveops_ws_connections_total").await, 0.0);
}

#[tokio::test]
async fn a_socket_brings_its_credential_in_a_header_or_beside_the_subprotocol() {
    let node = Node::start(&AUTH).await;
    let response = check_accepted(&node, &[("authorization", &bearer(TOKEN))]).await;
    assert_eq!(response.headers().get("sec-websocket-protocol"), None);
    let encoded = base64url(TOKEN);
    let protocols = format!("hiveops.v1, hiveops.bearer.{encoded}");
    let response = check_accepted(&node, &[("sec-websocket-protocol", &protocols)]).await;
    assert_eq!(response.headers()["sec-websocket-protocol"], "hiveops.v1");
    assert!(!format!("{response:?}").contains(&encoded), "the credential comes back");
}

#[tokio::test]
async fn a_page_of_another_origin_is_closed_with_4403_before_its_credential_is_looked_at() {
    let node = Node::start(&[AUTH[0], AUTH[1], ORIGINS]).await;
    let right = bearer(TOKEN);
    for origin in ["https://evil.example", "https://a.example:8443", "http://a.example", "null", "a.example"]
    {
        check_refused(&node, &[("origin", origin)], 4403, "origin_denied").await;
        check_refused(&node, &[("origin", origin), ("authorization", &right)], 4403, "origin_denied").await;
    }
    assert_eq!(node.metric("hiveops_ws_origin_denied_total").await, 10.0);
    assert_eq!(node.metric("hiveops_ws_auth_denied_total{reason=\"credential_missing\"}").await, 0.0);
    for origin in ["https://a.example", "http://127.0.0.1:3000"] {
        check_accepted(&node, &[("origin", origin), ("authorization", &right)]).await;
        check_refused(&node, &[("origin", origin)], 4401, "credential_missing").await;
    }
    // No browser, no origin.
    check_accepted(&node, &[("authorization", &right)]).await;
}

/// A page can send a form, or a body without a type, to any address that its visitor's browser reaches.
#[tokio::test]
async fn without_credentials_a_page_of_somebody_else_changes_nothing() {
    let node = Node::start(&[]).await;
    let own = format!("http://{}", node.address);
    let changes = [
        ("POST", "/api/dashboard/websocket/broadcast?subscription=tasks&message_type=task_event", "{}"),
        ("POST", "/api/dashboard/websocket/disconnect/nobody", ""),
        ("POST", "/api/dashboard/websocket/drain", ""),
        ("POST", "/api/v1/tasks", r#"{"title":"of a page"}"#),
        ("POST", "/api/v1/agents", r#"{"id":"a1","name":"of a page"}"#),
        ("DELETE", "/api/v1/tasks/t1", ""),
        ("POST", "/api/dashboard/telemetry/version-mismatch", ""),
        ("POST", "/api/auth/ws-ticket", ""),
    ];
    let foreign = ["https://evil.example", "null", "http://127.0.0.1:1"];
    for (method, path, body) in changes {
        for origin in foreign {
            let answer = node.call(method, path).header("Origin", origin).text(body).send().await;
            assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{method} {path} {origin}");
        }
    }
    let counted = node.metric("hiveops_http_auth_denied_total{reason=\"origin\"}").await;
    assert_eq!(counted, (changes.len() * foreign.len()) as f64);
    assert_eq!(node.get("/api/v1/tasks").await["tasks"], json!([]));
    // The node's own page, and whoever is no browser, may; reading is for all.
    let publish = || node.broadcast("tasks", "task_event").text("{}");
    assert_eq!(publish().header("Origin", &own).send().await.status, 200);
    assert_eq!(publish().send().await.status, 200);
    let stats = node.call("GET", "/api/dashboard/websocket/stats");
    assert_eq!(stats.header("Origin", "https://evil.example").send().await.status, 200);
    // A page that somebody has allowed may too.
    let node = Node::start(&[ORIGINS]).await;
    let publish = |origin: &str| node.broadcast("tasks", "task_event").text("{}").header("Origin", origin);
    assert_eq!(publish("https://a.example").send().await.status, 200);
    assert_eq!(publish("https://evil.example").send().await.status, 403);
}

#[tokio::test]
async fn without_listed_origins_and_credentials_everybody_may_connect() {
    let node = Node::start(&[]).await;
    check_accepted(&node, &[]).await;
    check_accepted(&node, &[("origin", "https://anywhere.example")]).await;
    // A credential that nobody asks for does no harm.
    check_accepted(&node, &[("authorization", "Bearer whatever-it-is")]).await;
}
