//! Where an update went: one question to any node of the cluster, answered from what all of them remember.

use std::time::Duration;

use hiveops_testkit::broker::NatsServer;
use serde_json::{Value, json};

use crate::harness::{Node, Socket, until};

const TOKEN: &str = "a-token-of-the-tests";

/// How long a publisher waits that goes away too early; a node waits up to seconds for its bus.
const IMPATIENCE: Duration = Duration::from_millis(50);

fn path(id: &str) -> String {
    format!("/api/dashboard/trace/{id}")
}

async fn trace(node: &Node, id: &str) -> Value {
    node.call("GET", &path(id)).send().await.ok()
}

/// The trace, once nothing of its publications is waiting any more and each of so many nodes has it.
/// Once all shards have been through their sessions, and nothing waits.
async fn settled(node: &Node, id: &str, (nodes, recipients): (u64, u64)) -> Value {
    let mut seen = Value::Null;
    until("the end of all deliveries", async || {
        seen = trace(node, id).await;
        let publications = seen["publications"].as_array().unwrap();
        !publications.is_empty()
            && publications.iter().all(|publication| {
                let totals = &publication["totals"];
                totals["nodes"] == nodes && totals["recipients"] == recipients && totals["pending"] == 0
            })
    })
    .await;
    seen
}

async fn publish(node: &Node, id: &str, data: &Value) -> Value {
    let call = node.broadcast("tasks", "task_update").header("X-Correlation-ID", id).json(data);
    call.send().await.ok()
}

#[tokio::test]
async fn an_update_is_found_with_its_publisher_and_its_deliveries() {
    let node = Node::start(&[]).await;
    let (_one, _two) = (Socket::joined(&node, "tasks").await, Socket::joined(&node, "tasks").await);
    let first = publish(&node, "order-7", &json!({"id": "a"})).await;
    publish(&node, "order-7", &json!({"id": "b"})).await;
    let again = publish(&node, "order-7", &json!({"id": "a"})).await;
    assert_eq!((&again["duplicate"], &again["seq"]), (&json!(true), &first["seq"]));
    let seen = settled(&node, "order-7", (1, 2)).await;
    assert_eq!(
        (&seen["result"], &seen["cluster"]),
        (&json!("found"), &json!({"status": "complete", "missing": []}))
    );
    let [a, b] = seen["publications"].as_array().unwrap().as_slice() else { panic!("{seen:#}") };
    assert_eq!(
        (&a["seq"], &a["epoch"], &a["subscription"]),
        (&first["seq"], &first["epoch"], &json!("tasks"))
    );
    let accepted = a["accepted"].as_array().unwrap();
    assert_eq!(
        (&accepted[0]["duplicate"], &accepted[1]["duplicate"]),
        (&json!(false), &json!(true)),
        "{a:#}"
    );
    assert_eq!((&accepted[0]["source"], &accepted[0]["by"]), (&json!("http"), &json!({"kind": "anyone"})));
    for publication in [a, b] {
        let delivery = &publication["deliveries"][0];
        assert_eq!(
            (&delivery["node_id"], &delivery["recipients"], &delivery["delivered"]),
            (&json!("n1"), &json!(2), &json!(2))
        );
        let times = ["p50", "p99", "max"].map(|name| delivery["delivery_ms"][name].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{times:?}");
    }
}

#[tokio::test]
async fn a_session_that_ends_or_comes_back_is_counted_for_what_it_is() {
    let node = Node::start(&[]).await;
    let joined = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let first = publish(&node, "before", &json!({"id": "a"})).await;
    settled(&node, "before", (1, 1)).await;
    drop(joined);
    node.shows("/api/dashboard/websocket/stats", "/websocket_stats/active_connections", &json!(0)).await;
    publish(&node, "missed", &json!({"id": "b"})).await;
    let since = format!("tasks:{}:{}", first["epoch"].as_str().unwrap(), first["seq"]);
    let mut back = Socket::connect(&node, &format!("dashboard?subscriptions=tasks&since={since}")).await;
    assert_eq!(back.wait_for("task_update").await["replayed"], true);
    until("the replay", async || trace(&node, "missed").await["publications"][0]["totals"]["replayed"] == 1)
        .await;
    let missed = trace(&node, "missed").await;
    let totals = &missed["publications"][0]["totals"];
    assert_eq!((&totals["recipients"], &totals["pending"]), (&json!(0), &json!(0)), "{totals}");
}

#[tokio::test]
async fn what_was_refused_is_found_with_the_reason() {
    let node = Node::start(&[]).await;
    let call = node.broadcast("nope", "task_update").header("X-Correlation-ID", "r-1").json(&json!({}));
    assert_eq!(call.send().await.status, 422);
    let seen = trace(&node, "r-1").await;
    assert_eq!((&seen["result"], &seen["publications"]), (&json!("found"), &json!([])));
    let refused = &seen["refused"][0];
    assert_eq!(
        (&refused["reason"], &refused["subscription"]),
        (&json!("unknown_subscription"), &json!("nope"))
    );
}

#[tokio::test]
async fn a_publisher_that_goes_away_before_the_log_answers_is_found() {
    let mut server = NatsServer::start().unwrap();
    let node = Node::start(&[("HIVEOPS_BUS", &server.url())]).await;
    server.freeze().unwrap();
    until("an entry", async || {
        let call = node.broadcast("tasks", "task_update").header("X-Correlation-ID", "gone");
        // Dropped with its connection, wherever it is by then.
        let sent = tokio::time::timeout(IMPATIENCE, call.json(&json!({"id": "a"})).send()).await;
        assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status >= 500));
        let seen = trace(&node, "gone").await;
        let refused = seen["refused"].as_array().unwrap();
        refused.iter().any(|entry| entry["reason"] == "given_up" && entry["source"] == "http")
    })
    .await;
    server.thaw().unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_said_with_how_far_back_that_is_known() {
    let node = Node::start(&[]).await;
    let seen = trace(&node, "never").await;
    assert_eq!((&seen["result"], &seen["publications"]), (&json!("not_found"), &json!([])));
    let oldest = &seen["nodes"][0]["oldest"];
    assert_eq!(
        (&seen["reaches_back_to"], &oldest["all"]),
        (&oldest["all"], &oldest["subscriptions"]["alerts"]["received"])
    );
    // A made id of long ago.
    assert_eq!(trace(&node, "01890000-0000-7000-8000-000000000000").await["result"], "left");
    assert_eq!(node.call("GET", &path("a%20b")).send().await.status, 400);
}

#[tokio::test]
async fn only_who_may_see_traces_does_and_the_token_is_in_none() {
    let auth = |role: &'static str| {
        [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", TOKEN), ("WS_AUTH_TOKEN_ROLE", role)]
    };
    let bearer = format!("Bearer {TOKEN}");
    let node = Node::start(&auth("super_admin")).await;
    let call = node.broadcast("tasks", "task_update").header("Authorization", &bearer);
    call.header("X-Correlation-ID", "mine").json(&json!({"id": "a"})).send().await.ok();
    assert_eq!(node.call("GET", &path("mine")).send().await.refusal(), (401, "unauthorized".to_owned()));
    let answer = node.call("GET", &path("mine")).header("Authorization", &bearer).send().await;
    assert_eq!(answer.ok()["publications"][0]["accepted"][0]["by"], json!({"kind": "static_token"}));
    assert!(!answer.text.contains(TOKEN));
    let node = Node::start(&auth("viewer")).await;
    let answer = node.call("GET", &path("mine")).header("Authorization", &bearer).send().await;
    assert_eq!(answer.refusal(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn any_node_tells_of_all_nodes_and_names_one_that_does_not_answer() {
    let server = NatsServer::start().unwrap();
    let start = |name| {
        let url = server.url();
        async move { Node::start(&[("HIVEOPS_BUS", &url), ("HIVEOPS_NODE_ID", name)]).await }
    };
    let (n1, n2) = tokio::join!(start("n1"), start("n2"));
    for node in [&n1, &n2] {
        let path = "/api/dashboard/websocket/stats";
        until("both nodes", async || {
            let seen = node.get(path).await["cluster"].clone();
            seen["status"] == "complete" && seen["nodes"].as_array().unwrap().len() == 2
        })
        .await;
    }
    let (_one, _two) = (Socket::joined(&n1, "tasks").await, Socket::joined(&n2, "tasks").await);
    let _three = Socket::joined(&n2, "tasks").await;
    publish(&n1, "order-8", &json!({"id": "a"})).await;
    for node in [&n2, &n1] {
        let seen = settled(node, "order-8", (2, 3)).await;
        let publication = &seen["publications"][0];
        assert_eq!(publication["accepted"][0]["node_id"], "n1");
        let each: Vec<_> = publication["deliveries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["node_id"].as_str().unwrap(), it["delivered"].as_u64().unwrap()))
            .collect();
        assert!(each.len() == 2 && each.contains(&("n1", 1)) && each.contains(&("n2", 2)), "{each:?}");
        assert_eq!(publication["totals"]["recipients"], 3);
    }
    n2.kill().await;
    let seen = trace(&n1, "order-8").await;
    // Until its lease has run out, which may be now. (cluster/tests.rs has a node that is silent for sure.)
    if seen["cluster"]["missing"] != json!([]) {
        assert_eq!(seen["cluster"], json!({"status": "partial", "missing": ["n2"]}));
    }
    assert_eq!(seen["publications"][0]["totals"]["nodes"], 1, "{seen:#}");
}
