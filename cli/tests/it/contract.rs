//! A contract version that is pushed to control is in force on every node, without a restart.

use hiveops_testkit::wait::wait_for;
use serde_json::{Value, json};

use crate::control::cluster::call;
use crate::whole::Whole;
use crate::wire::{Http, Socket};

const CONTRACT: &str = "/api/dashboard/websocket/contract";

/// The built-in contract as another version, changed.
fn changed(version: &str, change: impl Fn(&mut Vec<Value>)) -> String {
    let mut contract: Value = serde_json::from_str(hiveops_proto::CONTRACT).unwrap();
    contract["version"] = version.into();
    change(contract["subscriptions"].as_array_mut().unwrap());
    contract.to_string()
}

fn deployments() -> Value {
    json!({"name": "deployments", "messages": [
        {"type": "deployment_update", "kind": "update", "key": "id",
         "data": {"type": "object", "required": ["stage"], "properties": {"stage": {"type": "string"}}}},
        {"type": "deployment_event", "kind": "event", "data": {"type": "object"}},
    ]})
}

fn push(whole: &Whole, document: &str, more: Value) {
    let mut push = json!({"document": document, "label": null, "migration_note": null, "supported": null});
    push.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"push_contract": push}).to_string();
    let headers = [("Idempotency-Key", "push")];
    let (status, answer) =
        call(whole.control.addr(1), "POST", "/api/control/commands", &headers, &body).unwrap();
    assert_eq!(status, 200, "{answer}");
}

/// Waits until every node answers this version, and compares what they say.
fn in_force(whole: &Whole, nodes: usize, version: &str) {
    let contracts = || (0..nodes).map(|node| whole.get(node, CONTRACT)).collect::<Vec<_>>();
    wait_for("the contract on every node", || {
        contracts().iter().all(|contract| contract["current_version"] == version)
    })
    .unwrap();
    let answers = contracts();
    let said = |answer: &Value| {
        ["current_version", "supported_versions", "schema_digest", "contract_digest", "revision"]
            .map(|name| answer[name].clone())
    };
    assert!(answers.iter().all(|answer| said(answer) == said(&answers[0])), "{answers:#?}");
    assert!(answers[0]["contract_digest"].as_str().unwrap().starts_with("sha256:"));
}

fn publish(whole: &Whole, node: usize, subscription: &str, message_type: &str, data: &Value) -> (u16, Value) {
    Http::connect(whole.url(node)).publish(subscription, message_type, &[], data).unwrap()
}

#[test]
fn a_new_subscription_is_joinable_and_publishable_on_every_node_without_a_restart() {
    let whole = Whole::start(3);
    let mut sockets: Vec<Socket> =
        (0..3).map(|node| Socket::connect(whole.url(node), "dashboard", None)).collect();
    let join = r#"{"type":"subscribe","subscriptions":["deployments"]}"#;
    for socket in &mut sockets {
        socket.wait_for("dashboard_initialized");
        socket.send(join);
        assert_eq!(socket.wait_for("error")["code"], "unknown_subscription");
    }
    let (status, problem) = publish(&whole, 0, "deployments", "deployment_update", &json!({"stage": "x"}));
    assert_eq!((status, &problem["code"]), (422, &json!("unknown_subscription")), "{problem}");

    let minor = changed("1.1.0", |subscriptions| subscriptions.push(deployments()));
    push(&whole, &minor, json!({}));
    in_force(&whole, 3, "1.1.0");
    for socket in &mut sockets {
        socket.send(join);
        let updated = socket.wait_for("subscription_updated");
        // The frame before it was of the refusal.
        let updated = match updated["positions"]["deployments"].is_null() {
            true => socket.wait_for("subscription_updated"),
            false => updated,
        };
        assert_eq!(updated["positions"]["deployments"]["seq"], 0, "{updated}");
        while socket.wait_for("snapshot")["subscription"] != "deployments" {}
    }
    for node in 0..3 {
        let data = json!({"id": format!("d{node}"), "stage": "built"});
        let (status, published) = publish(&whole, node, "deployments", "deployment_update", &data);
        assert_eq!((status, published["seq"].as_u64()), (200, Some(node as u64 + 1)), "{published}");
    }
    for socket in &mut sockets {
        for seq in 1..=3 {
            let update = socket.wait_for("deployment_update");
            assert_eq!((update["seq"].as_u64(), update["prev_seq"].as_u64()), (Some(seq), Some(seq - 1)));
        }
    }
    let (status, problem) = publish(&whole, 1, "deployments", "deployment_update", &json!({"id": "d"}));
    assert_eq!(status, 422, "its data is checked as well: {problem}");
    // Somebody who comes later finds its state, on any node.
    let mut late = Socket::connect(whole.url(2), "dashboard?subscriptions=deployments", None);
    assert_eq!(late.wait_for("snapshot")["items"].as_array().unwrap().len(), 3);
}

#[test]
fn a_node_that_was_away_starts_with_the_new_contract_and_a_removed_subscription_is_left() {
    let mut whole = Whole::start(2);
    let mut socket = Socket::connect(whole.url(0), "dashboard?contract_version=1.0.0", None);
    socket.wait_for("dashboard_initialized");
    whole.kill_node(1);
    let major = changed("2.0.0", |subscriptions| {
        subscriptions.retain(|subscription| subscription["name"] != "project_index");
        subscriptions.push(deployments());
    });
    let more = json!({"label": "major", "migration_note": "project_index is gone", "supported": ["2.0.0"]});
    push(&whole, &major, more);
    in_force(&whole, 1, "2.0.0");
    let warning = socket.wait_for("version_warning");
    assert_eq!(
        (&warning["requested_version"], &warning["current_version"]),
        (&"1.0.0".into(), &"2.0.0".into())
    );
    assert_eq!(socket.wait_for("error")["message"], "Invalid subscription(s): project_index");
    let left = socket.wait_for("subscription_updated");
    assert!(!left["subscriptions"].as_array().unwrap().contains(&"project_index".into()), "{left}");
    let (status, problem) = publish(&whole, 0, "project_index", "project_index_event", &json!({}));
    let valid = problem["valid_subscriptions"].as_array().unwrap();
    assert!(status == 422 && !valid.contains(&"project_index".into()), "{problem}");
    assert!(valid.contains(&"deployments".into()) && valid.is_sorted_by_key(Value::as_str), "{problem}");
    whole.start_node(1);
    in_force(&whole, 2, "2.0.0");
    assert_eq!(publish(&whole, 1, "deployments", "deployment_event", &json!({})).0, 200);
}
