//! Publishing over HTTP: where it went, when it is a repetition, and that nobody who listens misses it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Node, Socket};
use crate::http::Call;

const CONFLICT: &str = "idempotency_conflict";

fn update(node: &Node, data: &Value) -> Call {
    node.broadcast("tasks", "task_update").json(data)
}

#[tokio::test]
async fn the_reply_says_where_it_went_and_how_many_it_reached() {
    let node = Node::start(&[]).await;
    let sockets = [
        Socket::joined(&node, "tasks").await,
        Socket::joined(&node, "dashboard?subscriptions=tasks,system").await,
        Socket::joined(&node, "system").await,
    ];
    let call = update(&node, &json!({"id": "t1"})).header("X-Correlation-ID", "caused-by:me");
    let reply = call.send().await.ok();
    let members: Vec<&str> = reply.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "clients_reached",
        "correlation_id",
        "duplicate",
        "epoch",
        "message_type",
        "scope",
        "seq",
        "subscription",
        "success",
        "timestamp",
    ];
    assert_eq!(members.iter().collect::<BTreeSet<_>>(), expected.iter().collect());
    assert_eq!((&reply["clients_reached"], &reply["scope"]), (&json!(2), &json!("node")));
    assert_eq!((&reply["success"], &reply["duplicate"]), (&json!(true), &json!(false)));
    assert_eq!(reply["correlation_id"], "caused-by:me");
    for mut socket in sockets.into_iter().take(2) {
        let frame = socket.wait_for("task_update").await;
        assert_eq!(frame["correlation_id"], "caused-by:me");
        assert_eq!((&frame["seq"], &frame["epoch"]), (&reply["seq"], &reply["epoch"]));
    }
    node.metric_reaches("hiveops_ws_messages_sent_total", |sent| sent >= 1.0).await;
}

#[tokio::test]
async fn the_same_idempotency_key_is_the_same_publication_and_other_data_is_a_conflict() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let keyed = |data: Value| update(&node, &data).header("Idempotency-Key", "k-1");
    let first = keyed(json!({"id": "t1", "n": 1})).send().await.ok();
    let again = keyed(json!({"id": "t1", "n": 1})).send().await.ok();
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!((&again["seq"], &again["epoch"]), (&first["seq"], &first["epoch"]));
    let other = keyed(json!({"id": "t1", "n": 2})).send().await;
    assert_eq!(other.refusal(), (409, CONFLICT.to_owned()));
    let next = update(&node, &json!({"id": "t1", "n": 3})).send().await.ok();
    assert_eq!(next["seq"], json!(first["seq"].as_u64().unwrap() + 1));
    for n in [1, 3] {
        assert_eq!(socket.expect("task_update").await["data"]["n"], n);
    }
    for bad in ["", "two words", &"k".repeat(256)] {
        let call = update(&node, &json!({"id": "t1"})).header("Idempotency-Key", bad);
        assert_eq!(call.send().await.refusal(), (400, "bad_request".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn without_a_key_a_repetition_is_known_by_its_correlation_id_and_content() {
    let node = Node::start(&[]).await;
    let data = json!({"id": "t1", "n": 1});
    let caused = |data: &Value, id: &str| update(&node, data).header("X-Correlation-ID", id);
    let first = caused(&data, "c-1").send().await.ok();
    let again = caused(&data, "c-1").send().await.ok();
    assert_eq!((&again["duplicate"], &again["seq"]), (&json!(true), &first["seq"]));
    // One cause may well lead to several publications.
    let other = caused(&json!({"id": "t1", "n": 2}), "c-1").send().await.ok();
    let event = node.broadcast("tasks", "task_event").json(&data).header("X-Correlation-ID", "c-1");
    let event = event.send().await.ok();
    let elsewhere = node.broadcast("agents", "agent_update").json(&data).header("X-Correlation-ID", "c-1");
    let elsewhere = elsewhere.send().await.ok();
    let cause = caused(&data, "c-2").send().await.ok();
    for reply in [&other, &event, &elsewhere, &cause] {
        assert_eq!(reply["duplicate"], false, "{reply}");
    }
    // Without a correlation id each is its own.
    let (one, two) = (update(&node, &data).send().await.ok(), update(&node, &data).send().await.ok());
    assert_eq!((&one["duplicate"], &two["duplicate"]), (&json!(false), &json!(false)));
    assert_ne!(one["correlation_id"], two["correlation_id"]);
}

#[tokio::test]
async fn a_removal_reaches_subscribers_and_leaves_the_snapshot() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=project_index").await;
    for id in ["p1", "p2"] {
        node.publish("project_index", "project_index_update", json!({"id": id})).await;
        socket.expect("project_index_update").await;
    }
    node.publish("project_index", "project_index_update", json!({"id": "p1", "deleted": true})).await;
    assert_eq!(socket.expect("project_index_update").await["data"], json!({"id": "p1", "deleted": true}));
    let mut late = Socket::connect(&node, "dashboard?subscriptions=project_index").await;
    let snapshot = late.wait_for("snapshot").await;
    assert_eq!(snapshot["items"].as_array().unwrap().len(), 1, "{snapshot}");
    assert_eq!((&snapshot["items"][0]["key"], &snapshot["seq"]), (&json!("p2"), &json!(3)));
}

#[tokio::test]
async fn what_is_refused_takes_no_place_in_the_log() {
    let node = Node::start(&[]).await;
    let alert = |data: Value| node.broadcast("alerts", "critical_alert").json(&data);
    let refused = alert(json!({"alerts": "none"})).send().await;
    assert_eq!(refused.refusal(), (422, "invalid_data".to_owned()));
    let stored = alert(json!({"alerts": [], "timestamp": "2026-01-01T00:00:00Z"})).send().await.ok();
    assert_eq!(stored["seq"], 1);
    assert_eq!(node.metric("hiveops_bus_publications_refused_total{reason=\"invalid\"}").await, 1.0);
}

#[tokio::test]
async fn eight_publishers_at_once_and_a_subscriber_sees_all_in_one_order_without_a_gap() {
    const PUBLISHERS: u64 = 8;
    const EACH: u64 = 100;
    // The subscriber reads only when the publishers have finished, so its outbox must hold them all.
    let node = Node::start(&[("WS_OUTBOX_FRAMES_MAX", "2000")]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let publisher = async |publisher: u64| {
        let mut places = Vec::new();
        for n in 0..EACH {
            let data = json!({"publisher": publisher, "n": n});
            let reply = node.broadcast("tasks", "task_event").json(&data).send().await.ok();
            places.push((reply["seq"].as_u64().unwrap(), (publisher, n)));
        }
        places
    };
    let acked = join_all((0..PUBLISHERS).map(publisher)).await;
    for places in &acked {
        assert!(places.is_sorted(), "a publisher's own order is kept: {places:?}");
    }
    let acked: BTreeMap<u64, (u64, u64)> = acked.into_iter().flatten().collect();
    assert_eq!(acked.len() as u64, PUBLISHERS * EACH, "no place is given twice");
    for (expected, (publisher, n)) in acked.values().enumerate().map(|(at, from)| (at as u64 + 1, from)) {
        let frame = socket.expect("task_event").await;
        assert_eq!((&frame["seq"], &frame["prev_seq"]), (&json!(expected), &json!(expected - 1)));
        assert_eq!(frame["data"], json!({"publisher": publisher, "n": n}));
    }
}
