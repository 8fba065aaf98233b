//! Publications: their size, their shape, and a state that is full.

use serde_json::{Value, json};

use crate::harness::{Node, Socket, soon};

/// Bytes of the `data` of a publication at most.
const DATA_MAX: usize = 65_536;

/// Bytes of a subscription's state at most, and how many of the largest publications that are.
const STATE_MAX: usize = 4 << 20;

/// An object with this id that is exactly `len` bytes long as it is sent.
fn data(id: &str, len: usize) -> Value {
    let empty = json!({"id": id, "pad": ""}).to_string();
    let data = json!({"id": id, "pad": "x".repeat(len - empty.len())});
    assert_eq!(data.to_string().len(), len);
    data
}

#[track_caller]
fn assert_problem(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!((answer.0, answer.1["code"].as_str()), (status, Some(code)), "{}", answer.1);
}

async fn refused(node: &Node, message_type: &str, data: Value) -> (u16, Value) {
    let subscription = if message_type == "critical_alert" { "alerts" } else { "project_index" };
    let response = node.try_publish(subscription, message_type, data).await;
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    (status, soon("a body", response.json()).await.unwrap())
}

#[tokio::test]
async fn exactly_the_largest_publication_passes_and_arrives_whole() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=project_index").await;
    let largest = data("a", DATA_MAX);
    node.publish("project_index", "project_index_update", largest.clone()).await;
    assert_eq!(socket.expect("project_index_update").await["data"], largest);
}

#[tokio::test]
async fn a_byte_more_is_413_and_reaches_nobody() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=project_index").await;
    let answer = refused(&node, "project_index_update", data("a", DATA_MAX + 1)).await;
    assert_problem(&answer, 413, "too_large");
    node.publish("project_index", "project_index_update", json!({"id": "b"})).await;
    let frame = socket.expect("project_index_update").await;
    assert_eq!((&frame["data"]["id"], &frame["seq"]), (&json!("b"), &json!(1)));
}

#[tokio::test]
async fn data_that_breaks_its_schema_is_422() {
    let node = Node::start(&[]).await;
    let answer = refused(&node, "critical_alert", json!({"alerts": "none"})).await;
    assert_problem(&answer, 422, "invalid_data");
    let answer = refused(&node, "nonsense_update", json!({"id": "a"})).await;
    assert_eq!(answer.0, 422, "{}", answer.1);
}

#[tokio::test]
async fn a_full_state_takes_no_new_key_until_one_is_removed() {
    let node = Node::start(&[]).await;
    let keys = STATE_MAX / DATA_MAX;
    for key in 0..keys {
        node.publish("project_index", "project_index_update", data(&format!("k{key}"), DATA_MAX)).await;
    }
    let answer = refused(&node, "project_index_update", json!({"id": "new"})).await;
    assert_problem(&answer, 422, "state_full");
    // Neither a value in the place of another nor an occurrence makes the state larger.
    node.publish("project_index", "project_index_update", data("k0", DATA_MAX - 1)).await;
    node.publish("project_index", "project_index_event", data("e", DATA_MAX)).await;
    node.publish("project_index", "project_index_update", json!({"id": "k1", "deleted": true})).await;
    node.publish("project_index", "project_index_update", data("new", DATA_MAX)).await;
    assert_eq!(node.metric(r#"hiveops_bus_publications_refused_total{reason="state_full"}"#).await, 1.0);
}
