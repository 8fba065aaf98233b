//! Nodes on a real NATS server: what a client sees when it changes nodes, and when the bus goes silent.

use hiveops_testkit::broker::NatsServer;
use hiveops_testkit::proxy::{Direction, Fault, FaultProxy};
use serde_json::{Value, json};

use crate::harness::{Node, Socket, until};

const EVENT: &str = "project_index_event";
const UPDATE: &str = "project_index_update";
const INDEX: &str = "project_index";

async fn node(id: &str, bus: &str) -> Node {
    Node::start(&[("HIVEOPS_BUS", bus), ("HIVEOPS_NODE_ID", id)]).await
}

async fn is_ready(node: &Node) -> bool {
    reqwest::get(node.http("/readyz")).await.is_ok_and(|response| response.status() == 200)
}

fn since(reply: &Value) -> String {
    let (epoch, seq) = (reply["epoch"].as_str().unwrap(), reply["seq"].as_u64().unwrap());
    format!("dashboard?subscriptions={INDEX}&since={INDEX}:{epoch}:{seq}")
}

#[tokio::test]
async fn a_client_goes_on_where_it_was_on_another_node() {
    let server = NatsServer::start().unwrap();
    let (one, two) = (node("n1", &server.url()).await, node("n2", &server.url()).await);
    let mut watcher = Socket::joined(&two, &format!("dashboard?subscriptions={INDEX}")).await;
    let first = one.publish(INDEX, EVENT, json!({"n": 1})).await;
    assert_eq!(watcher.expect(EVENT).await["seq"], first["seq"]);
    let second = two.publish(INDEX, UPDATE, json!({"id": "a"})).await;
    assert_eq!((&second["epoch"], &second["seq"]), (&first["epoch"], &json!(2)));
    one.publish(INDEX, EVENT, json!({"n": 3})).await;
    watcher.expect(UPDATE).await;
    let seen = watcher.expect(EVENT).await;
    assert_eq!((&seen["seq"], &seen["prev_seq"]), (&json!(3), &json!(2)));
    drop(watcher);
    let mut back = Socket::connect(&one, &since(&first)).await;
    back.expect("connection_established").await;
    assert_eq!(back.expect("dashboard_initialized").await["recovered"], json!({ INDEX: true }));
    assert_eq!(
        (back.expect(UPDATE).await["seq"].clone(), back.expect(EVENT).await["seq"].clone()),
        (json!(2), json!(3))
    );
}

#[tokio::test]
async fn a_client_that_knows_more_than_the_node_waits_for_it_and_goes_on() {
    let server = NatsServer::start().unwrap();
    let proxy = FaultProxy::start(server.addr(), 7).unwrap();
    let one = node("n1", &server.url()).await;
    let behind = node("n2", &format!("nats://{}", proxy.addr())).await;
    // For less than the node takes to call its connection lost: it is slow, not cut off.
    proxy.set(Direction::ToClient, Fault::Blackhole);
    let known = one.publish(INDEX, EVENT, json!({"n": 1})).await;
    let path = since(&known);
    let asked_before = proxy.counts().bytes_from_client;
    let connecting = async {
        let mut socket = Socket::connect(&behind, &path).await;
        socket.expect("connection_established").await;
        socket.expect("dashboard_initialized").await
    };
    let healing = async {
        // The handshake has reached the node, which asks its bus about every log: more than a probe.
        until("the question", async || {
            let counts = proxy.counts();
            counts.stalls > 0 && counts.bytes_from_client > asked_before + 500
        })
        .await;
        proxy.heal();
    };
    let (initialized, ()) = tokio::join!(connecting, healing);
    assert_eq!(initialized["recovered"], json!({ INDEX: true }), "and no snapshot from the past");
    assert_eq!(initialized["positions"][INDEX]["seq"], known["seq"]);
}

#[tokio::test]
async fn a_bus_that_is_connected_and_delivers_nothing_is_not_live() {
    let server = NatsServer::start().unwrap();
    let proxy = FaultProxy::start(server.addr(), 7).unwrap();
    let node = node("n1", &format!("nats://{}", proxy.addr())).await;
    assert!(is_ready(&node).await);
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    proxy.set(Direction::ToClient, Fault::Blackhole);
    until("not ready", async || !is_ready(&node).await).await;
    // One that was on its way when it went silent, and the one after it.
    assert!(node.metric("hiveops_bus_probe_failures_total").await <= 2.0);
    assert_eq!(node.metric("hiveops_ws_bus_live").await, 0.0);
    assert_eq!(node.get("/api/dashboard/websocket/health").await["bus"]["live"], false);
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.wait_for("pong").await["live"], false, "and its sessions stay");
    let refused = node.try_publish("tasks", "task_event", json!({})).await;
    assert!([503, 504].contains(&refused.status().as_u16()), "{}", refused.status());
    proxy.heal();
    until("ready again", async || is_ready(&node).await).await;
    socket.send(json!({"type": "ping"})).await;
    assert_eq!(socket.wait_for("pong").await["live"], true);
    let reply = node.publish("tasks", "task_event", json!({"after": true})).await;
    let frame = socket.wait_for("task_event").await;
    assert_eq!((&frame["seq"], &frame["data"]), (&reply["seq"], &json!({"after": true})));
}

#[tokio::test]
async fn what_outside_publishers_hand_in_is_checked_counted_and_delivered() {
    let server = NatsServer::start().unwrap();
    let node = node("n1", &server.url()).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=alerts,tasks").await;
    let publisher = async_nats::connect(server.url()).await.unwrap();
    let hand_in = async |subscription: &str, message_type: &str, correlation_id: &str, payload: String| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Hiveops-Type", message_type);
        headers.insert("X-Correlation-ID", correlation_id);
        let subject = format!("hiveops.default.in.{subscription}");
        publisher.publish_with_headers(subject, headers, payload.into()).await.unwrap();
    };
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(70_000));
    for (subscription, message_type, payload) in [
        ("tasks", "task_event", "{".to_owned()),
        ("tasks", "task_event", "[]".to_owned()),
        ("tasks", "agent_event", "{}".to_owned()),
        ("nothing", "task_event", "{}".to_owned()),
        ("alerts", "critical_alert", r#"{"alerts":7}"#.to_owned()),
        ("tasks", "task_event", large),
    ] {
        hand_in(subscription, message_type, "bad", payload).await;
    }
    publisher.publish("hiveops.default.in.tasks", r#"{"no":"headers"}"#.into()).await.unwrap();
    hand_in("tasks", "task_event", "not an id!", r#"{"n":1}"#.to_owned()).await;
    hand_in("tasks", "task_event", "mine", r#"{"n":2}"#.to_owned()).await;
    let repaired = socket.wait_for("task_event").await;
    assert_eq!(repaired["data"], json!({"n": 1}));
    assert_eq!(repaired["source_correlation_id"], "not an id!");
    let good = socket.wait_for("task_event").await;
    assert_eq!((&good["data"], &good["correlation_id"]), (&json!({"n": 2}), &json!("mine")));
    for (reason, count) in [
        ("invalid_json", 2.0),
        ("unknown_message_type", 2.0),
        ("unknown_subscription", 1.0),
        ("schema", 1.0),
        ("too_large", 1.0),
        ("correlation_id", 1.0),
    ] {
        let name = format!("hiveops_bus_invalid_total{{reason=\"{reason}\"}}");
        assert_eq!(node.metric_reaches(&name, |value| value >= count).await, count, "{reason}");
    }
    // It is counted after it was published, so after its frame may have come.
    let taken = node.metric_reaches("hiveops_bus_taken_in_total{source=\"nats_in\"}", |value| value >= 2.0);
    assert_eq!(taken.await, 2.0);
}

#[tokio::test]
async fn a_publisher_that_hands_in_keeps_its_order_whatever_node_takes_it() {
    const LAST: u64 = 100;
    let server = NatsServer::start().unwrap();
    let (one, two) = (node("n1", &server.url()).await, node("n2", &server.url()).await);
    let mut socket = Socket::joined(&one, &format!("dashboard?subscriptions={INDEX}")).await;
    let publisher = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    for n in 1..=LAST {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Hiveops-Type", UPDATE);
        let (subject, payload) =
            (format!("hiveops.default.in.{INDEX}"), json!({"id": "a", "n": n}).to_string());
        publisher.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap();
    }
    for n in 1..=LAST {
        assert_eq!(socket.wait_for(UPDATE).await["data"]["n"], n);
    }
    let taken = "hiveops_bus_taken_in_total{source=\"nats_in\"}";
    // Both took some.
    for node in [&one, &two] {
        node.metric_reaches(taken, |value| value > 0.0).await;
    }
}
