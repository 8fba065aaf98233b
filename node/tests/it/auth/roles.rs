//! What each role may do, over sockets and over HTTP.

use hiveops_proto::access::Role;
use serde_json::json;

use super::tokens::token;
use super::{JWT, bearer, denied, joined, start};
use crate::harness::{Node, Socket};

#[tokio::test]
async fn alerts_are_joined_by_administrators_and_forbidden_to_the_others() {
    let node = start().await;
    for role in Role::ALL {
        let admin = matches!(role, Role::SuperAdmin | Role::EnterpriseAdmin);
        let mut socket = joined(&node, "dashboard?subscriptions=alerts,tasks", &token("ada", *role)).await;
        if !admin {
            let error = socket.expect("error").await;
            assert_eq!((&error["code"], &error["correlation_id"].is_string()), (&json!("forbidden"), &true));
        }
        let joined = if admin { json!(["alerts", "tasks"]) } else { json!(["tasks"]) };
        assert_eq!(socket.expect("dashboard_initialized").await["subscriptions"], joined, "{role}");
    }
    assert_eq!(denied(&node, "forbidden").await, 3.0);
    assert_eq!(node.metric("hiveops_ws_errors_sent_total{code=\"forbidden\"}").await, 3.0);
}

#[tokio::test]
async fn a_viewer_on_a_route_whose_defaults_have_alerts_gets_the_rest() {
    let node = start().await;
    for (route, rest) in [("system", json!(["system"])), ("coordination", json!(["coordination", "system"]))]
    {
        let mut socket = joined(&node, route, &token("ada", Role::Viewer)).await;
        assert_eq!(socket.expect("error").await["code"], "forbidden");
        assert_eq!(socket.expect("dashboard_initialized").await["subscriptions"], rest);
    }
}

#[tokio::test]
async fn an_open_socket_hears_one_error_of_what_it_may_not_join() {
    let node = start().await;
    let mut socket = joined(&node, "dashboard?subscriptions=", &token("ada", Role::Operator)).await;
    socket.expect("dashboard_initialized").await;
    socket
        .send(json!({"type": "subscribe", "subscriptions": ["alerts", "tasks"], "correlation_id": "s1"}))
        .await;
    let error = socket.expect("error").await;
    assert_eq!((&error["code"], &error["correlation_id"]), (&json!("forbidden"), &json!("s1")));
    assert_eq!(socket.expect("subscription_updated").await["subscriptions"], json!(["tasks"]));
}

#[tokio::test]
async fn where_nobody_is_asked_alerts_are_for_all() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::connect(&node, "dashboard?subscriptions=alerts").await;
    socket.expect("connection_established").await;
    assert_eq!(socket.expect("dashboard_initialized").await["subscriptions"], json!(["alerts"]));
}

#[tokio::test]
async fn routes_ask_for_their_permission_and_say_no_more_than_that_it_is_missing() {
    let node = start().await;
    for (role, expected) in [
        (Role::Viewer, [403, 403, 403]),
        (Role::Operator, [403, 403, 201]),
        (Role::Developer, [403, 403, 201]),
        (Role::EnterpriseAdmin, [200, 404, 201]),
        (Role::SuperAdmin, [200, 404, 201]),
    ] {
        let header = bearer(&token("ada", role));
        let publish = node.broadcast("tasks", "task_event").json(&json!({"n": 1}));
        let disconnect = node.call("POST", "/api/dashboard/websocket/disconnect/nobody");
        let task = node.call("POST", "/api/v1/tasks").json(&json!({"title": "of a role"}));
        for (call, status) in [publish, disconnect, task].into_iter().zip(expected) {
            let answer = call.header("Authorization", &header).send().await;
            assert_eq!(answer.status, status, "{role}: {answer:?}");
        }
    }
    assert_eq!(node.metric("hiveops_http_auth_denied_total{reason=\"forbidden\"}").await, 7.0);
}

#[tokio::test]
async fn the_static_token_of_the_other_mode_is_no_credential_here() {
    let node = start().await;
    let header = bearer("a-static-token-of-the-tests");
    let answer =
        node.call("GET", "/api/dashboard/websocket/stats").header("Authorization", &header).send().await;
    assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()));
    assert_eq!(node.get("/api/dashboard/websocket/limits").await["ws_auth_required"], true);
    assert_eq!(JWT[1].1, "jwt");
}
