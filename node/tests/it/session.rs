//! A session from its first frame to its notice: what each client message is answered with.

use serde_json::{Value, json};

use crate::harness::{Node, Socket};

/// A session that is joined to nothing: every frame it gets is an answer.
async fn quiet(node: &Node) -> Socket {
    Socket::joined(node, "dashboard?subscriptions=").await
}

/// Sends a message and returns the next frame.
async fn ask(socket: &mut Socket, message: Value) -> Value {
    socket.send(message).await;
    socket.next().await
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().expect("a map").keys().map(String::as_str).collect()
}

#[tokio::test]
async fn each_route_begins_with_its_own_subscriptions() {
    let node = Node::start(&[]).await;
    let limits = node.get("/api/dashboard/websocket/limits").await;
    for (route, subscriptions) in [
        ("dashboard", vec!["agents", "coordination", "project_index", "system", "tasks"]),
        ("agents", vec!["agents", "system"]),
        ("coordination", vec!["alerts", "coordination", "system"]),
        ("tasks", vec!["agents", "tasks"]),
        ("system", vec!["alerts", "system"]),
    ] {
        let mut socket = Socket::connect(&node, route).await;
        let established = socket.expect("connection_established").await;
        assert_eq!(established["subscriptions"], json!(subscriptions), "{route}");
        assert_eq!(established["node_id"], "n1");
        assert_eq!(established["contract_version"], "1.0.0");
        assert_eq!(established["supported_versions"], json!(["1.0.0"]));
        assert!(established["server_time"].is_string());
        for (name, value) in established["limits"].as_object().unwrap() {
            assert_eq!(*value, limits[name], "{name}");
        }
        let initialized = socket.expect("dashboard_initialized").await;
        let info = &initialized["connection_info"];
        assert_eq!(info["connection_id"], established["connection_id"]);
        assert_eq!((&info["connection_type"], &info["node_id"]), (&json!(route), &json!("n1")));
        assert_eq!(initialized["subscriptions"], json!(subscriptions));
        assert_eq!(initialized["contract_version"], "1.0.0");
        assert_eq!(names(&initialized["positions"]), subscriptions);
        assert_eq!(names(&initialized["recovered"]), subscriptions);
        assert!(initialized["recovered"].as_object().unwrap().values().all(|recovered| *recovered == false));
        for name in subscriptions {
            let snapshot = socket.expect("snapshot").await;
            assert_eq!(snapshot["subscription"], name, "{route}");
            assert_eq!(snapshot["seq"], initialized["positions"][name]["seq"]);
            assert_eq!(snapshot["epoch"], initialized["positions"][name]["epoch"]);
            assert_eq!((&snapshot["part"], &snapshot["parts"]), (&json!(1), &json!(1)));
        }
    }
}

#[tokio::test]
async fn the_subscriptions_of_the_query_are_joined_once_each_and_sorted() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::connect(&node, "agents?subscriptions=tasks,alerts,,tasks,%20alerts").await;
    let established = socket.expect("connection_established").await;
    assert_eq!(established["subscriptions"], json!(["alerts", "tasks"]));
    socket.expect("dashboard_initialized").await;
}

#[tokio::test]
async fn wrong_names_in_the_query_are_told_before_the_dashboard_is_initialized() {
    let node = Node::start(&[("WS_MAX_SUBSCRIPTIONS_PER_CONNECTION", "2")]).await;
    let path = "dashboard?subscriptions=tasks,zoo,system,alerts,ape";
    let mut socket = Socket::connect(&node, path).await;
    let established = socket.expect("connection_established").await;
    let unknown = socket.expect("error").await;
    assert_eq!(unknown["code"], "unknown_subscription");
    assert_eq!(unknown["message"], "Invalid subscription(s): ape, zoo");
    assert_eq!(unknown["correlation_id"], established["correlation_id"]);
    let over = socket.expect("error").await;
    assert_eq!(over["code"], "too_many_subscriptions");
    assert!(over["message"].as_str().unwrap().starts_with("Too many subscriptions requested"));
    // Those that fit, in sorted order.
    let initialized = socket.expect("dashboard_initialized").await;
    assert_eq!(initialized["subscriptions"], json!(["alerts", "system"]));
}

#[tokio::test]
async fn a_ping_is_answered_with_the_heads_of_what_is_joined() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=project_index,alerts").await;
    let reply = node.publish("project_index", "project_index_event", json!({"n": 1})).await;
    socket.expect("project_index_event").await;
    let pong = ask(&mut socket, json!({"type": "ping", "correlation_id": "p1"})).await;
    assert_eq!((&pong["type"], &pong["correlation_id"]), (&json!("pong"), &json!("p1")));
    assert_eq!(names(&pong["positions"]), ["alerts", "project_index"]);
    assert_eq!(pong["positions"]["project_index"], json!({"epoch": reply["epoch"], "seq": 1}));
    assert_eq!(pong["live"], true);
    let made = ask(&mut socket, json!({"type": "ping"})).await;
    assert_eq!(made["correlation_id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn subscribing_is_answered_by_errors_then_the_update_then_the_snapshots() {
    let node = Node::start(&[]).await;
    node.publish("project_index", "project_index_update", json!({"id": "p", "n": 1})).await;
    let mut socket = quiet(&node).await;
    let wanted = json!(["zoo", "project_index", "alerts", "project_index", "Ape"]);
    let message = json!({"type": "subscribe", "subscriptions": wanted, "correlation_id": "s1"});
    let error = ask(&mut socket, message).await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("unknown_subscription")));
    assert_eq!(error["message"], "Invalid subscription(s): Ape, zoo");
    assert_eq!(error["correlation_id"], "s1");
    let updated = socket.expect("subscription_updated").await;
    assert_eq!(updated["correlation_id"], "s1");
    assert_eq!(updated["subscriptions"], json!(["alerts", "project_index"]));
    assert_eq!(updated["recovered"], json!({"alerts": false, "project_index": false}));
    assert_eq!(updated["positions"]["project_index"]["seq"], 1);
    let alerts = socket.expect("snapshot").await;
    assert_eq!((&alerts["subscription"], &alerts["items"]), (&json!("alerts"), &json!([])));
    let index = socket.expect("snapshot").await;
    assert_eq!((&index["subscription"], &index["seq"]), (&json!("project_index"), &json!(1)));
    assert_eq!(
        index["items"],
        json!([{"type": "project_index_update", "key": "p", "data": {"id": "p", "n": 1}, "seq": 1}])
    );

    // What is joined already is neither an error nor sent again.
    let message = json!({"type": "subscribe", "subscriptions": ["alerts"]});
    let updated = ask(&mut socket, message).await;
    assert_eq!(updated["type"], "subscription_updated");
    assert_eq!(updated["recovered"], json!({}));
    assert_eq!(ask(&mut socket, json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn unsubscribing_tolerates_every_name_and_ends_what_it_names() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=alerts,project_index").await;
    let wanted = json!(["project_index", "zoo", "tasks", "project_index", "Ä"]);
    let message = json!({"type": "unsubscribe", "subscriptions": wanted, "correlation_id": "u1"});
    let updated = ask(&mut socket, message).await;
    assert_eq!(
        (&updated["type"], &updated["correlation_id"]),
        (&json!("subscription_updated"), &json!("u1"))
    );
    assert_eq!(updated["subscriptions"], json!(["alerts"]));
    assert_eq!(names(&updated["positions"]), ["alerts"]);
    assert_eq!(updated["recovered"], json!({}));
    let reply = node.publish("project_index", "project_index_event", json!({})).await;
    assert_eq!(reply["clients_reached"], 0);
    node.publish("alerts", "critical_alert", json!({"alerts": [], "timestamp": "now"})).await;
    socket.expect("critical_alert").await;
}

#[tokio::test]
async fn what_is_not_a_message_is_answered_with_its_error_and_the_session_goes_on() {
    let node = Node::start(&[]).await;
    let mut socket = quiet(&node).await;
    let rule = "correlation_id must be 1 to 128 characters of A-Z a-z 0-9 . _ : -";
    let since = "since must be an object of {epoch, seq} by subscription";
    for (text, code, message) in [
        ("{", "invalid_json", "Invalid JSON message format"),
        ("", "invalid_json", "Invalid JSON message format"),
        ("{\"type\":\"ping\"} {}", "invalid_json", "Invalid JSON message format"),
        ("[]", "invalid_message", "the message must be a JSON object"),
        ("\"ping\"", "invalid_message", "the message must be a JSON object"),
        ("null", "invalid_message", "the message must be a JSON object"),
        ("{}", "invalid_message", "type is missing"),
        (r#"{"type":7}"#, "invalid_message", "type must be a string"),
        (r#"{"type":"dance"}"#, "unknown_message_type", "Unknown message type: dance"),
        (r#"{"type":"pong"}"#, "unknown_message_type", "Unknown message type: pong"),
        (r#"{"type":"subscribe"}"#, "invalid_message", "subscriptions is missing"),
        (
            r#"{"type":"subscribe","subscriptions":"tasks"}"#,
            "invalid_message",
            "subscriptions must be a list of names",
        ),
        (
            r#"{"type":"unsubscribe","subscriptions":[1]}"#,
            "invalid_message",
            "subscriptions must be a list of names",
        ),
        (r#"{"type":"subscribe","subscriptions":[],"since":[]}"#, "invalid_message", since),
        (
            r#"{"type":"subscribe","subscriptions":[],"since":{"tasks":{"epoch":"0f","seq":-1}}}"#,
            "invalid_message",
            since,
        ),
        (r#"{"type":"request_data"}"#, "invalid_message", "data_type is missing"),
        (
            r#"{"type":"request_data","data_type":"agent_status","params":[]}"#,
            "invalid_message",
            "params must be an object",
        ),
        (
            r#"{"type":"request_data","data_type":"agent_status","request_id":1}"#,
            "invalid_message",
            "request_id must be a string of at most 128 bytes",
        ),
        (r#"{"type":"auth_refresh"}"#, "invalid_message", "token is missing"),
        (r#"{"type":"ping","correlation_id":"a b"}"#, "invalid_message", rule),
        (r#"{"type":"ping","correlation_id":""}"#, "invalid_message", rule),
        (r#"{"type":"ping","correlation_id":1}"#, "invalid_message", rule),
    ] {
        socket.send_text(text).await;
        let error = socket.expect("error").await;
        assert_eq!((&error["code"], &error["message"]), (&json!(code), &json!(message)), "{text}");
        assert!(error.get("retry_after_ms").is_none(), "{error}");
    }
    let message = json!({"type": "dance", "correlation_id": "mine"});
    assert_eq!(ask(&mut socket, message).await["correlation_id"], "mine");
    let message = json!({"type": "subscribe", "correlation_id": "mine-too"});
    assert_eq!(ask(&mut socket, message).await["correlation_id"], "mine-too");
    assert_eq!(ask(&mut socket, json!({"type": "ping"})).await["type"], "pong");
    assert_eq!(node.metric(r#"hiveops_ws_errors_sent_total{code="invalid_json"}"#).await, 3.0);
}

#[tokio::test]
async fn text_of_a_client_is_repeated_only_in_part() {
    let node = Node::start(&[]).await;
    let mut socket = quiet(&node).await;
    let error = ask(&mut socket, json!({"type": "x".repeat(60_000)})).await;
    assert!(error["message"].as_str().unwrap().len() < 200, "{error}");
    let many: Vec<String> = (0..1_000).map(|n| format!("name-{n:04}")).collect();
    let error = ask(&mut socket, json!({"type": "subscribe", "subscriptions": many})).await;
    assert!(error["message"].as_str().unwrap().len() < 3_000, "{error}");
    socket.expect("subscription_updated").await;
}

#[tokio::test]
async fn a_credential_cannot_be_renewed_where_none_expires() {
    let node = Node::start(&[]).await;
    let mut socket = quiet(&node).await;
    let message = json!({"type": "auth_refresh", "token": "s3cret", "correlation_id": "a1"});
    let error = ask(&mut socket, message).await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("invalid_message")));
    assert_eq!(error["correlation_id"], "a1");
    assert!(!error.to_string().contains("s3cret"));
}

#[tokio::test]
async fn data_is_answered_from_the_live_state_with_the_ids_of_its_request() {
    let node = Node::start(&[]).await;
    let client = reqwest::Client::new();
    let agent = json!({"id": "a1", "name": "one", "agent_type": "worker"});
    let made = client.post(node.http("/api/v1/agents")).json(&agent).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
    let task = json!({"id": "t1", "title": "first"});
    let made = client.post(node.http("/api/v1/tasks")).json(&task).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());

    let mut socket = quiet(&node).await;
    for (data_type, members) in [
        ("agent_status", vec!["agents", "summary"]),
        ("coordination_metrics", vec!["success_rate", "trend", "total_tasks", "window_seconds"]),
        ("task_distribution", vec!["queue_length", "in_progress", "failed_recent", "by_status", "by_agent"]),
        ("system_health", vec!["overall_status", "components"]),
    ] {
        let ids = json!({"correlation_id": "c1", "request_id": "r 1"});
        let message = json!({
            "type": "request_data", "data_type": data_type, "params": {},
            "correlation_id": "c1", "request_id": "r 1",
        });
        let answer = ask(&mut socket, message).await;
        assert_eq!(answer["type"], "data_response", "{answer}");
        assert_eq!(answer["data_type"], data_type);
        assert_eq!(
            json!({"correlation_id": answer["correlation_id"], "request_id": answer["request_id"]}),
            ids
        );
        for member in members {
            assert!(answer["data"].get(member).is_some(), "{data_type} has {member}: {answer}");
        }
        match data_type {
            "agent_status" => {
                assert_eq!(answer["data"]["agents"][0]["id"], "a1");
                assert_eq!(answer["data"]["summary"]["total"], 1);
            }
            "coordination_metrics" => assert_eq!(answer["data"]["total_tasks"], 1),
            "task_distribution" => assert_eq!(answer["data"]["queue_length"], 1),
            _ => assert_eq!(answer["data"]["components"]["bus"]["live"], true),
        }
        let answer = ask(&mut socket, json!({"type": "request_data", "data_type": data_type})).await;
        assert!(answer.get("request_id").is_none(), "{answer}");
    }
    let message = json!({"type": "request_data", "data_type": "coordination_metrics",
        "params": {"window_seconds": 120, "unknown": 1}});
    assert_eq!(ask(&mut socket, message).await["data"]["window_seconds"], 120);
}

#[tokio::test]
async fn data_that_cannot_be_had_is_a_data_error_with_the_ids_of_its_request() {
    let node = Node::start(&[]).await;
    let mut socket = quiet(&node).await;
    for (data_type, params, code, text) in [
        ("weather", json!({}), "unknown_data_type", "Unknown data type: weather"),
        ("agent_status", json!({"limit": 0}), "invalid_message", "params.limit"),
        ("task_distribution", json!({"window_seconds": "x"}), "invalid_message", "params.window_seconds"),
    ] {
        let message = json!({
            "type": "request_data", "data_type": data_type, "params": params,
            "correlation_id": "c2", "request_id": "r2",
        });
        let error = ask(&mut socket, message).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("data_error"), &json!(code)), "{error}");
        assert_eq!((&error["data_type"], &error["request_id"]), (&json!(data_type), &json!("r2")));
        assert_eq!(error["correlation_id"], "c2");
        assert!(error["error"].as_str().unwrap().starts_with(text), "{error}");
    }
    assert_eq!(node.metric(r#"hiveops_ws_errors_sent_total{code="unknown_data_type"}"#).await, 1.0);
}

#[tokio::test]
async fn a_name_that_a_live_session_holds_is_not_given_twice() {
    let node = Node::start(&[]).await;
    let mut first = Socket::connect(&node, "tasks?connection_id=me").await;
    assert_eq!(first.expect("connection_established").await["connection_id"], "me");
    let mut second = Socket::connect(&node, "tasks?connection_id=me").await;
    let established = second.expect("connection_established").await;
    assert_eq!(established["requested_connection_id"], "me");
    assert_ne!(established["connection_id"], "me");
    let initialized = second.expect("dashboard_initialized").await;
    assert_eq!(initialized["connection_info"]["connection_id"], established["connection_id"]);
    first.expect("dashboard_initialized").await;
}

#[tokio::test]
async fn an_administrator_ends_one_session_with_a_notice() {
    let node = Node::start(&[]).await;
    let mut other = quiet(&node).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=&connection_id=me").await;
    let client = reqwest::Client::new();
    let path = "/api/dashboard/websocket/disconnect/me?reason=maintenance%20at%20noon";
    let request = client.post(node.http(path)).header("X-Correlation-ID", "change-7");
    assert_eq!(request.send().await.unwrap().status(), 200);
    let (frames, closed) = socket.rest().await;
    let [notice] = frames.as_slice() else { panic!("one notice: {frames:?}") };
    assert_eq!((&notice["type"], &notice["reason"]), (&json!("disconnect_notice"), &json!("admin")));
    assert_eq!((&notice["code"], &notice["detail"]), (&json!(1000), &json!("maintenance at noon")));
    assert_eq!(notice["correlation_id"], "change-7");
    let closed = closed.expect("a close frame");
    assert_eq!((closed.code, closed.reason.as_str()), (1000, "admin"));
    drop(socket);
    node.metric_reaches("hiveops_ws_connections_active", |active| active == 1.0).await;
    let response = client.post(node.http(path)).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(ask(&mut other, json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn the_schema_that_frames_are_held_against_is_the_one_that_the_node_publishes() {
    let node = Node::start(&[]).await;
    let served = node.get("/api/dashboard/schema/ws_messages.schema.json").await;
    let known: Value = serde_json::from_str(hiveops_proto::WS_SCHEMA).unwrap();
    assert_eq!(served, known);
}
