//! Subscriptions per connection: those that fit are joined, and each name that is not joined is accounted
//! for.

use serde_json::{Value, json};

use crate::harness::{Node, Socket};

const CAP_OF_THREE: &[(&str, &str)] = &[("WS_MAX_SUBSCRIPTIONS_PER_CONNECTION", "3")];

/// A file with the contract and as many subscriptions more as it takes to have twelve.
fn contract_of_twelve() -> tempfile::NamedTempFile {
    let mut contract: Value = serde_json::from_str(hiveops_proto::CONTRACT).unwrap();
    let subscriptions = contract["subscriptions"].as_array_mut().unwrap();
    for number in subscriptions.len()..12 {
        let message = json!({"type": format!("more{number}_event"), "kind": "event", "data": {}});
        subscriptions.push(json!({"name": format!("more{number}"), "messages": [message]}));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contract.to_string()).unwrap();
    file
}

#[tokio::test]
async fn an_eleventh_subscription_is_not_joined_and_told() {
    let file = contract_of_twelve();
    let node = Node::start(&[("HIVEOPS_CONTRACT", file.path().to_str().unwrap())]).await;
    let names = "tasks,system,alerts,more6,more7,more8,more9,more10,more11,agents,coordination";
    let mut socket = Socket::connect(&node, &format!("dashboard?subscriptions={names}")).await;
    let mut fitting: Vec<&str> = names.split(',').collect();
    fitting.sort_unstable();
    assert_eq!(fitting.pop(), Some("tasks"), "the last of eleven, in sorted order, does not fit");
    let established = socket.expect("connection_established").await;
    assert_eq!(established["subscriptions"], json!(fitting));
    let error = socket.expect("error").await;
    assert_eq!(error["code"], "too_many_subscriptions");
    assert!(error["message"].as_str().unwrap().contains("Too many subscriptions requested"));
    assert_eq!(socket.expect("dashboard_initialized").await["subscriptions"], json!(fitting));
    for name in &fitting {
        assert_eq!(socket.wait_for("snapshot").await["subscription"], json!(name));
    }
    socket.send(json!({"type": "subscribe", "subscriptions": ["tasks"]})).await;
    assert_eq!(socket.wait_for("error").await["code"], "too_many_subscriptions");
    assert_eq!(socket.wait_for("subscription_updated").await["subscriptions"], json!(fitting));

    socket.send(json!({"type": "unsubscribe", "subscriptions": ["more6"]})).await;
    socket.wait_for("subscription_updated").await;
    socket.send(json!({"type": "subscribe", "subscriptions": ["tasks"]})).await;
    let updated = socket.wait_for("subscription_updated").await;
    assert!(updated["subscriptions"].as_array().unwrap().contains(&json!("tasks")), "a freed place is free");
}

#[tokio::test]
async fn the_errors_come_first_then_the_list_then_the_snapshots() {
    let node = Node::start(CAP_OF_THREE).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let names = ["zzz", "project_index", "agents", "nope", "alerts", "agents", "nope"];
    socket.send(json!({"type": "subscribe", "subscriptions": names, "correlation_id": "mine"})).await;

    let unknown = socket.expect("error").await;
    assert_eq!(unknown["code"], "unknown_subscription");
    assert_eq!(unknown["message"], "Invalid subscription(s): nope, zzz");
    let over = socket.expect("error").await;
    assert_eq!(over["code"], "too_many_subscriptions");
    let updated = socket.expect("subscription_updated").await;
    assert_eq!(updated["subscriptions"], json!(["agents", "alerts", "tasks"]));
    assert_eq!(updated["recovered"], json!({"agents": false, "alerts": false}));
    for frame in [&unknown, &over, &updated] {
        assert_eq!(frame["correlation_id"], "mine");
    }
    assert_eq!(socket.expect("snapshot").await["subscription"], "agents");
    assert_eq!(socket.expect("snapshot").await["subscription"], "alerts");
    assert_eq!(node.metric(r#"hiveops_ws_errors_sent_total{code="unknown_subscription"}"#).await, 1.0);
    assert_eq!(node.metric(r#"hiveops_ws_errors_sent_total{code="too_many_subscriptions"}"#).await, 1.0);
}

#[tokio::test]
async fn a_name_that_comes_twice_is_joined_once() {
    let node = Node::start(CAP_OF_THREE).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks,alerts,tasks").await;
    for _ in 0..2 {
        let names = ["tasks", "agents", "agents", "tasks", "alerts"];
        socket.send(json!({"type": "subscribe", "subscriptions": names})).await;
        let updated = socket.wait_for("subscription_updated").await;
        assert_eq!(updated["subscriptions"], json!(["agents", "alerts", "tasks"]));
    }
    // Only `agents` was new, and only the first time.
    node.publish("agents", "agent_event", json!({"n": 1})).await;
    socket.expect("agent_event").await;
    socket.send(json!({"type": "ping"})).await;
    socket.expect("pong").await;
    assert_eq!(node.metric(r#"hiveops_ws_snapshots_total{reason="join"}"#).await, 3.0);
    assert_eq!(node.metric(r#"hiveops_ws_subscriptions{subscription="agents"}"#).await, 1.0);
}

#[tokio::test]
async fn unknown_names_in_the_query_are_told_before_the_session_begins() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::connect(&node, "dashboard?subscriptions=yyy,tasks,nope").await;
    assert_eq!(socket.expect("connection_established").await["subscriptions"], json!(["tasks"]));
    let error = socket.expect("error").await;
    assert_eq!(error["message"], "Invalid subscription(s): nope, yyy");
    assert_eq!(socket.expect("dashboard_initialized").await["recovered"], json!({"tasks": false}));
    socket.expect("snapshot").await;
}
