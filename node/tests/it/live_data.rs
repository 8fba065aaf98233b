//! Live data, not constants: what agents and people do over REST is what dashboards see, what reports
//! count and what `request_data` answers.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Node, Socket};
use crate::http::Answer;

async fn post(node: &Node, path: &str, body: Value) -> Answer {
    node.call("POST", path).json(&body).send().await
}

async fn patch(node: &Node, path: &str, body: Value) -> Answer {
    node.call("PATCH", path).json(&body).send().await
}

/// The next update of this type whose data satisfies the condition.
async fn update(socket: &mut Socket, frame_type: &str, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        let frame = socket.wait_for(frame_type).await;
        if holds(&frame["data"]) {
            return frame["data"].clone();
        }
    }
}

async fn request(socket: &mut Socket, data_type: &str) -> Value {
    socket.send(json!({"type": "request_data", "data_type": data_type, "request_id": "r1"})).await;
    let frame = socket.wait_for("data_response").await;
    assert_eq!((&frame["data_type"], &frame["request_id"]), (&json!(data_type), &json!("r1")));
    frame["data"].clone()
}

#[tokio::test]
async fn an_agent_that_falls_silent_goes_stale_and_a_heartbeat_revives_it() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=agents").await;
    let registration = json!({"id": "a1", "name": "Indexer", "agent_type": "indexer"});
    let registered = post(&node, "/api/v1/agents", registration).await;
    assert_eq!((registered.status, registered.header("etag")), (201, "\"1\""));
    let frame = socket.expect("agent_update").await;
    assert_eq!(frame["data"], registered.json());
    assert_eq!((&frame["data"]["status"], &frame["data"]["simulated"]), (&json!("active"), &json!(false)));
    let beat =
        post(&node, "/api/v1/agents/a1/heartbeat", json!({"status": "busy", "metrics": {"files": 7}})).await;
    assert_eq!(socket.expect("agent_update").await["data"], beat.ok());
    // Only now may it fall silent: until here a slow machine is no reason to go stale.
    patch(&node, "/api/v1/agents/a1", json!({"lease_seconds": 1})).await.ok();
    let stale = update(&mut socket, "agent_update", |data| data["status"] == "stale").await;
    assert_eq!(stale["metrics"], json!({"files": 7}), "going stale changes nothing else");
    assert_eq!(node.get("/api/v1/agents/a1").await, stale);
    assert_eq!(node.get("/api/v1/agents?status=stale").await["agents"], json!([stale]));
    let revived = node.call("POST", "/api/v1/agents/a1/heartbeat").send().await.ok();
    assert_eq!(revived["status"], "active");
    assert_eq!(socket.expect("agent_update").await["data"], revived);
    let gone = node.call("DELETE", "/api/v1/agents/a1").send().await.ok();
    assert_eq!(gone, json!({"id": "a1", "deleted": true}));
    update(&mut socket, "agent_update", |data| *data == gone).await;
    assert_eq!(node.call("GET", "/api/v1/agents/a1").send().await.status, 404);
}

#[tokio::test]
async fn a_task_is_changed_by_whoever_knows_its_version() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let created = post(&node, "/api/v1/tasks", json!({"id": "t1", "title": "Index"})).await;
    assert_eq!((created.status, created.header("location")), (201, "/api/v1/tasks/t1"));
    assert_eq!(socket.expect("task_update").await["data"], created.json());
    let path = "/api/v1/tasks/t1";
    let changed = patch(&node, path, json!({"expected_version": 1, "status": "in_progress"})).await.ok();
    assert_eq!((&changed["version"], &changed["status"]), (&json!(2), &json!("in_progress")));
    assert_eq!(socket.expect("task_update").await["data"], changed);
    // Somebody who saw the first version is told what there is now.
    let late = patch(&node, path, json!({"expected_version": 1, "status": "cancelled"})).await;
    assert_eq!(late.refusal(), (409, "version_conflict".to_owned()));
    assert_eq!(late.problem().current.unwrap(), changed);
    let unmet =
        node.call("PATCH", path).header("If-Match", "\"1\"").json(&json!({"title": "x"})).send().await;
    assert_eq!(unmet.refusal(), (412, "precondition_failed".to_owned()));
    assert_eq!(unmet.problem().current.unwrap(), changed);
    let met = node
        .call("PATCH", path)
        .header("If-Match", "\"2\"")
        .json(&json!({"status": "completed"}))
        .send()
        .await;
    assert_eq!((met.status, met.header("etag")), (200, "\"3\""));
    assert!(met.json()["finished_at"].is_string());
    assert_eq!(socket.expect("task_update").await["data"], met.json());
    let known = node.call("GET", path).header("If-None-Match", "\"3\"").send().await;
    assert_eq!((known.status, known.text.as_str()), (304, ""));
    let unmet = node.call("DELETE", path).header("If-Match", "\"2\"").send().await;
    assert_eq!(unmet.refusal(), (412, "precondition_failed".to_owned()));
    let deleted = node.call("DELETE", path).header("If-Match", "\"3\"").send().await.ok();
    assert_eq!(socket.expect("task_update").await["data"], deleted);
    assert_eq!(node.call("GET", path).send().await.status, 404);
    let again = post(&node, "/api/v1/tasks", json!({"id": "t1", "title": "Index"})).await;
    assert_eq!(again.status, 201, "a removed id may be used again");
    let twice = post(&node, "/api/v1/tasks", json!({"id": "t1", "title": "Other"})).await;
    assert_eq!(twice.refusal(), (409, "already_exists".to_owned()));
    assert_eq!(twice.problem().current.unwrap(), again.json());
}

#[tokio::test]
async fn a_change_that_is_sent_again_is_known_by_its_correlation_id_and_published_once() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    let send = |method: &str, path: &str, id: &str, body: Value| {
        node.call(method, path).header("X-Correlation-ID", id).json(&body)
    };
    let create = || send("POST", "/api/v1/tasks", "c-1", json!({"title": "Index"})).send();
    let (created, again) = (create().await, create().await);
    assert_eq!((created.status, again.status), (201, 200));
    assert_eq!(created.json(), again.json(), "the key that was made is made again");
    let path = format!("/api/v1/tasks/{}", created.json()["id"].as_str().unwrap());
    let change =
        || send("PATCH", &path, "c-2", json!({"expected_version": 1, "status": "in_progress"})).send();
    let (changed, again) = (change().await, change().await);
    assert_eq!((changed.status, again.status), (200, 200));
    assert_eq!(changed.json(), again.json());
    let delete = || node.call("DELETE", &path).header("X-Correlation-ID", "c-3").send();
    assert_eq!((delete().await.status, delete().await.status), (200, 200));
    assert_eq!(node.call("DELETE", &path).send().await.status, 404);
    for (seq, cause) in [(1, "c-1"), (2, "c-2"), (3, "c-3")] {
        let frame = socket.expect("task_update").await;
        assert_eq!((&frame["seq"], &frame["correlation_id"]), (&json!(seq), &json!(cause)));
    }
}

#[tokio::test]
async fn a_batch_says_of_each_operation_what_became_of_it_and_may_be_sent_again() {
    let node = Node::start(&[]).await;
    post(&node, "/api/v1/tasks", json!({"id": "old", "title": "Old"})).await;
    patch(&node, "/api/v1/tasks/old", json!({"title": "Changed meanwhile"})).await;
    let batch = json!({"operations": [
        {"op": "create", "correlation_id": "o-1", "task": {"id": "t1", "title": "Made offline"}},
        {"op": "update", "correlation_id": "o-2", "id": "t1", "changes": {"status": "in_progress"}},
        {"op": "update", "correlation_id": "o-3", "id": "old", "changes": {"expected_version": 1, "title": "x"}},
        {"op": "update", "correlation_id": "o-4", "id": "nowhere", "changes": {"title": "x"}},
        {"op": "create", "correlation_id": "o-5", "task": {"id": "t2", "title": "Short-lived"}},
        {"op": "delete", "correlation_id": "o-6", "id": "t2", "expected_version": 1},
    ]});
    let results = post(&node, "/api/v1/sync/tasks", batch.clone()).await.ok();
    let statuses = |results: &Value| -> Vec<(String, String)> {
        let results = results["results"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        results.map(|result| (text(&result["correlation_id"]), text(&result["status"]))).collect()
    };
    let expected = |words: [&str; 6]| -> Vec<(String, String)> {
        words.iter().enumerate().map(|(n, word)| (format!("o-{}", n + 1), (*word).to_owned())).collect()
    };
    assert_eq!(
        statuses(&results),
        expected(["applied", "applied", "conflict", "rejected", "applied", "applied"])
    );
    assert_eq!(results["results"][2]["task"]["title"], "Changed meanwhile");
    assert!(results["results"][3]["detail"].is_string());
    let again = post(&node, "/api/v1/sync/tasks", batch).await.ok();
    let found = statuses(&again);
    for at in [0, 1, 5] {
        assert_eq!(found[at].1, "duplicate", "{found:?}");
    }
    assert_eq!((found[2].1.as_str(), found[3].1.as_str()), ("conflict", "rejected"));
    let tasks = node.get("/api/v1/tasks").await;
    let ids: Vec<&Value> = tasks["tasks"].as_array().unwrap().iter().map(|task| &task["id"]).collect();
    assert_eq!(ids, [&json!("old"), &json!("t1")]);
}

#[tokio::test]
async fn the_coordination_report_follows_what_happens_to_tasks_and_agents() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=coordination").await;
    post(&node, "/api/v1/agents", json!({"id": "a1", "name": "Builder"})).await;
    for (id, status) in [("t1", "pending"), ("t2", "in_progress"), ("t3", "completed"), ("t4", "failed")] {
        post(&node, "/api/v1/tasks", json!({"id": id, "title": "x"})).await;
        patch(&node, &format!("/api/v1/tasks/{id}"), json!({"status": status})).await.ok();
    }
    // The first reports may have been made half way.
    let report = update(&mut socket, "coordination_update", |data| {
        data["total_tasks"] == 4 && data["by_status"]["failed"] == 1
    })
    .await;
    assert_eq!((&report["id"], &report["success_rate"]), (&json!("cluster"), &json!(0.5)));
    assert_eq!((&report["queue_length"], &report["in_progress"]), (&json!(1), &json!(1)));
    assert_eq!((&report["agents"]["total"], &report["agents"]["active"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn the_system_report_of_a_node_has_its_own_figures() {
    let node = Node::start(&[("HIVEOPS_NODE_ID", "edge-7")]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=system").await;
    let others = [Socket::joined(&node, "tasks").await, Socket::joined(&node, "agents").await];
    let report = update(&mut socket, "system_update", |data| data["connections"] == 3).await;
    assert_eq!(report["id"], "edge-7");
    assert_eq!((&report["status"], &report["score"]), (&json!("healthy"), &json!(100)));
    assert_eq!(report["bus"]["live"], true);
    for (name, max) in [("cpu_percent", 100.0), ("memory_percent", 100.0)] {
        let value = report[name].as_f64().unwrap_or_else(|| panic!("no {name}: {report}"));
        assert!((0.0..=max).contains(&value), "{name} {value}");
    }
    assert!(report["rss_bytes"].as_u64().unwrap() > 1_048_576, "{report}");
    drop(others);
    update(&mut socket, "system_update", |data| data["connections"] == 1).await;
}

#[tokio::test]
async fn what_a_client_asks_for_is_what_the_rest_routes_show() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=alerts").await;
    for (id, status) in [("a1", "busy"), ("a2", "idle"), ("a3", "error")] {
        post(&node, "/api/v1/agents", json!({"id": id, "name": id, "status": status})).await.ok();
    }
    for (id, status, agent) in
        [("t1", "pending", None), ("t2", "in_progress", Some("a1")), ("t3", "completed", Some("a1"))]
    {
        let task = json!({"id": id, "title": id, "assigned_agent": agent});
        post(&node, "/api/v1/tasks", task).await.ok();
        patch(&node, &format!("/api/v1/tasks/{id}"), json!({"status": status})).await.ok();
    }
    let agents = node.get("/api/v1/agents").await["agents"].clone();
    let tasks = node.get("/api/v1/tasks").await["tasks"].clone();
    let status = request(&mut socket, "agent_status").await;
    assert_eq!(status["agents"], agents);
    assert_eq!((&status["summary"]["total"], &status["summary"]["active"]), (&json!(3), &json!(2)));
    let distribution = request(&mut socket, "task_distribution").await;
    let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
    for task in tasks.as_array().unwrap() {
        *by_status.entry(task["status"].as_str().unwrap()).or_default() += 1;
    }
    for (status, count) in by_status {
        assert_eq!(distribution["by_status"][status], count, "{status}");
    }
    assert_eq!(distribution["by_agent"], json!({"a1": 1}), "what is finished is no load");
    let metrics = request(&mut socket, "coordination_metrics").await;
    assert_eq!((&metrics["total_tasks"], &metrics["success_rate"]), (&json!(3), &json!(1.0)));
    let health = request(&mut socket, "system_health").await;
    assert_eq!(
        (&health["overall_status"], &health["components"]["bus"]["live"]),
        (&json!("healthy"), &json!(true))
    );
    let nodes = health["components"]["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), &nodes[0]["id"]), (1, &json!("n1")));
    let shown = node.get("/api/dashboard/websocket/health").await;
    assert_eq!(health["overall_status"], shown["overall_health"]["status"]);
    socket.send(json!({"type": "request_data", "data_type": "weather"})).await;
    assert_eq!(socket.wait_for("data_error").await["error"], "Unknown data type: weather");
}

#[tokio::test]
async fn a_key_that_holds_something_else_can_be_taken_back() {
    let node = Node::start(&[]).await;
    for (collection, subscription, message_type, body) in [
        ("/api/v1/tasks", "tasks", "task_update", json!({"id": "t1", "title": "Mine"})),
        ("/api/v1/agents", "agents", "agent_update", json!({"id": "t1", "name": "Mine"})),
    ] {
        let path = format!("{collection}/t1");
        let foreign = json!({"id": "t1", "shape": "of somebody else"});
        node.publish(subscription, message_type, foreign.clone()).await;
        assert_eq!(node.call("GET", &path).send().await.status, 404);
        let made = post(&node, collection, body).await;
        assert_eq!((made.status, node.get(&path).await), (201, made.json()));
        node.publish(subscription, message_type, foreign).await;
        let gone = node.call("DELETE", &path).send().await.ok();
        assert_eq!(gone, json!({"id": "t1", "deleted": true}));
        let mut socket = Socket::connect(&node, &format!("dashboard?subscriptions={subscription}")).await;
        assert_eq!(socket.wait_for("snapshot").await["items"], json!([]));
    }
}

#[tokio::test]
async fn one_value_that_cannot_go_stale_keeps_no_other_from_it() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=agents").await;
    let agent = |id: &str, version: u64, metrics: Value| {
        let beaten = "2026-01-01T00:00:00.000Z";
        json!({
            "id": id, "name": id, "agent_type": "generic", "status": "active", "lease_seconds": 1,
            "registered_at": beaten, "last_heartbeat": beaten, "version": version, "metrics": metrics,
        })
    };
    // Written anew, the numbers take more room than a publication has.
    let numbers = vec!["1e15"; 11_000].join(",");
    let large = agent("a-large", 1, json!({})).to_string().replace("{}", &format!("{{\"n\":[{numbers}]}}"));
    let path = "/api/dashboard/websocket/broadcast?subscription=agents&message_type=agent_update";
    let sent = reqwest::Client::new().post(node.http(path)).body(large).send().await.unwrap();
    assert_eq!(sent.status(), 200);
    node.publish("agents", "agent_update", agent("b-last", u64::MAX, json!({}))).await;
    node.publish("agents", "agent_update", agent("c-plain", 1, json!({}))).await;
    let mut stale = BTreeMap::new();
    while stale.len() < 2 {
        let data = update(&mut socket, "agent_update", |data| data["status"] == "stale").await;
        stale.insert(data["id"].to_string(), data["version"].clone());
    }
    assert_eq!(stale["\"b-last\""], json!(u64::MAX), "it has no next version");
    assert_eq!(stale["\"c-plain\""], json!(2));
    let refused = r#"hiveops_bus_publications_refused_total{reason="too_large"}"#;
    node.metric_reaches(refused, |count| count > 0.0).await;
}
