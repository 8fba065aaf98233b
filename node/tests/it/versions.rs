//! Contract versions: who asks for one that is not supported is warned, and served all the same.

use serde_json::json;

use crate::harness::{Node, Socket};

#[tokio::test]
async fn an_unsupported_version_is_warned_of_after_the_first_frame_and_served() {
    let node = Node::start(&[]).await;
    let contract = node.get("/api/dashboard/websocket/contract").await;
    for version in ["9.9.9", "0.1.0", "2", "banana"] {
        let path = format!("dashboard?subscriptions=alerts&contract_version={version}");
        let mut socket = Socket::connect(&node, &path).await;
        let established = socket.expect("connection_established").await;
        let warning = socket.expect("version_warning").await;
        assert_eq!(warning["requested_version"], version);
        assert_eq!(warning["current_version"], contract["current_version"]);
        assert_eq!(warning["supported_versions"], contract["supported_versions"]);
        assert_eq!(warning["correlation_id"], established["correlation_id"]);
        // The way to another version is something that this node answers.
        assert_eq!(
            node.get(warning["migration_url"].as_str().unwrap()).await["schema_digest"],
            contract["schema_digest"]
        );
        socket.expect("dashboard_initialized").await;
        socket.expect("snapshot").await;
        socket.send(json!({"type": "ping"})).await;
        socket.expect("pong").await;
    }
}

#[tokio::test]
async fn a_supported_version_or_none_is_served_without_a_word() {
    let node = Node::start(&[]).await;
    for path in ["dashboard?subscriptions=", "dashboard?subscriptions=&contract_version=1.0.0"] {
        let mut socket = Socket::connect(&node, path).await;
        socket.expect("connection_established").await;
        socket.expect("dashboard_initialized").await;
    }
}

#[tokio::test]
async fn a_client_that_knows_no_supported_version_is_counted() {
    let node = Node::start(&[]).await;
    let url = node.http("/api/dashboard/telemetry/version-mismatch");
    let client = reqwest::Client::new();
    for body in ["", r#"{"current_version":"1.0.0","client_version":"0.9.0"}"#] {
        let response = client.post(&url).body(body).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
    }
    let refused = client.get(&url).send().await.unwrap();
    assert_eq!(refused.status(), 405);
    assert_eq!(node.metric("hiveops_ws_client_version_mismatch_total").await, 2.0);
}
