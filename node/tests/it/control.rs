//! The control view: what it changes without a restart, and what its loss does not change.

use hiveops_proto::Limits;
use serde_json::json;

use crate::harness::{Node, Socket, until};

#[tokio::test]
async fn limits_show_every_threshold_with_its_source_and_follow_the_view() {
    let node = Node::start(&[("WS_IDLE_SECONDS", "77")]).await;
    let limits = node.get("/api/dashboard/websocket/limits").await;
    // The cap of the node is what the process can hold, when that is less; `routes` looks at it.
    for spec in Limits::TABLE.iter().filter(|spec| spec.name != "max_connections_per_node") {
        let wanted = if spec.name == "idle_disconnect_seconds" { 77 } else { spec.default };
        assert_eq!(limits[spec.name], json!(wanted), "{}", spec.name);
    }
    assert_eq!(limits["sources"]["idle_disconnect_seconds"], "env");
    assert_eq!(limits["sources"]["outbox_frames_max"], "default");
    assert_eq!((&limits["control"], &limits["stale"]), (&json!("standalone"), &json!(false)));
    node.set_limits(|limits| limits.max_subscriptions_per_connection = 2);
    until("the new limit", async || {
        node.get("/api/dashboard/websocket/limits").await["max_subscriptions_per_connection"] == 2
    })
    .await;
    assert_eq!(node.get("/api/dashboard/websocket/limits").await["revision"]["index"], 2);
}

#[tokio::test]
async fn a_node_without_its_control_plane_serves_on_and_says_how_old_its_view_is() {
    let mut node = Node::start(&[]).await;
    let mut before = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    node.lose_control();
    until("the view to be called stale", async || {
        node.get("/api/dashboard/websocket/health").await["control"]["stale"] == true
    })
    .await;
    until("the age to grow", async || {
        node.get("/api/dashboard/websocket/limits").await["age_seconds"].as_u64() > Some(0)
    })
    .await;
    let mut after = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    node.publish("tasks", "task_event", json!({"n": 1})).await;
    for socket in [&mut before, &mut after] {
        assert_eq!(socket.wait_for("task_event").await["data"], json!({"n": 1}));
    }
    assert_eq!(node.get("/readyz").await["status"], "ready");
}
