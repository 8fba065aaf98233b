//! Metrics and the admin routes on a listener of their own.

use serde_json::json;

use crate::harness::{Node, Socket, config, view};
use crate::http::Call;

const ADMIN: (&str, &str) = ("HIVEOPS_ADMIN_LISTEN", "127.0.0.1:0");
const TOKEN: &str = "a-token-of-some-length";
const AUTH: [(&str, &str); 2] = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", TOKEN)];

const MOVED: [(&str, &str); 6] = [
    ("GET", "/metrics"),
    ("GET", "/api/dashboard/metrics/websockets"),
    ("POST", "/api/dashboard/websocket/broadcast?subscription=tasks&message_type=task_event"),
    ("POST", "/api/dashboard/websocket/disconnect/c1"),
    ("POST", "/api/dashboard/websocket/drain"),
    ("GET", "/api/dashboard/audit"),
];

fn bearer(call: Call) -> Call {
    call.header("Authorization", &format!("Bearer {TOKEN}"))
}

#[tokio::test]
async fn what_has_moved_is_nowhere_to_be_found_on_the_public_listener() {
    for settings in [&[ADMIN][..], &[ADMIN, AUTH[0], AUTH[1]]] {
        let node = Node::start(settings).await;
        for (method, path) in MOVED {
            for call in [node.call(method, path), bearer(node.call(method, path))] {
                assert_eq!(call.text("{}").send().await.refusal(), (404, "not_found".to_owned()), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn what_has_moved_works_on_the_other_listener() {
    let node = Node::start(&[ADMIN]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks&connection_id=c1").await;
    for (_, path) in &MOVED[..2] {
        let metrics = node.admin_call("GET", path).send().await;
        assert!(metrics.text.contains("\nhiveops_ws_connections_active 1\n"), "{path}");
    }
    let publish = node.admin_call("POST", MOVED[2].1).json(&json!({"n": 1}));
    assert_eq!(publish.send().await.ok()["clients_reached"], 1);
    assert_eq!(socket.wait_for("task_event").await["data"], json!({"n": 1}));
    assert_eq!(node.admin_call("POST", MOVED[3].1).send().await.status, 200);
    assert_eq!(socket.wait_for("disconnect_notice").await["reason"], "admin");
    assert_eq!(node.admin_call("GET", MOVED[5].1).send().await.ok()["cluster"]["residual"], 0);
    assert!(node.admin_call("POST", MOVED[4].1).send().await.status < 300);
    node.ended().await;
}

#[tokio::test]
async fn the_other_listener_asks_for_credentials_as_before() {
    let node = Node::start(&[ADMIN, AUTH[0], AUTH[1]]).await;
    assert_eq!(node.admin_call("GET", "/metrics").send().await.status, 200, "it stays open");
    for (method, path) in &MOVED[2..4] {
        let answer = node.admin_call(method, path).text("{}").send().await;
        assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()), "{path}");
        let answer = bearer(node.admin_call(method, path)).text("{}").send().await;
        assert!(![401, 403].contains(&answer.status), "{answer:?}");
    }
    let viewer = ("WS_AUTH_TOKEN_ROLE", "viewer");
    let node = Node::start(&[ADMIN, AUTH[0], AUTH[1], viewer]).await;
    // Figures are for everybody who is let in, there as on the public one.
    let stats = "/api/dashboard/websocket/stats";
    let unknown = node.admin_call("GET", stats).send().await;
    assert_eq!(unknown.refusal(), (401, "unauthorized".to_owned()));
    assert_eq!(bearer(node.admin_call("GET", stats)).send().await.status, 200);
    for (method, path) in &MOVED[2..] {
        let answer = bearer(node.admin_call(method, path)).text("{}").send().await;
        assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn both_say_how_the_node_is_and_everything_else_stays_where_it_was() {
    let node = Node::start(&[ADMIN]).await;
    for path in ["/health", "/livez", "/readyz", "/api/dashboard/websocket/stats"] {
        for call in [node.call("GET", path), node.admin_call("GET", path)] {
            assert_eq!(call.send().await.status, 200, "{path}");
        }
    }
    let elsewhere = [
        "/",
        "/.well-known/jwks.json",
        "/api/dashboard/schema/ws_messages.schema.json",
        "/api/dashboard/websocket/contract",
        "/api/dashboard/websocket/limits",
        "/api/dashboard/websocket/health",
        "/api/openapi.json",
        "/api/v1/agents",
        "/api/v1/tasks",
    ];
    for path in elsewhere {
        assert_eq!(node.call("GET", path).send().await.status, 200, "{path}");
        assert_eq!(
            node.admin_call("GET", path).send().await.refusal(),
            (404, "not_found".to_owned()),
            "{path}"
        );
    }
    let socket = node.admin_call("GET", "/api/dashboard/ws/dashboard").send().await;
    assert_eq!(socket.refusal(), (404, "not_found".to_owned()));
    let login = node.admin_call("POST", "/api/auth/login").json(&json!({"email": "a", "password": "b"}));
    assert_eq!(login.send().await.refusal(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_with_the_setting_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = config(None, &[("HIVEOPS_ADMIN_LISTEN", &address)]);
    let view = view(&config, config.limits.clone(), 1);
    let (_control, views) = tokio::sync::watch::channel(std::sync::Arc::new(view));
    let run = hiveops_node::run(config, views, |_| panic!("it does not serve"), std::future::pending());
    let error = run.await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("HIVEOPS_ADMIN_LISTEN"), "{error}");
}
