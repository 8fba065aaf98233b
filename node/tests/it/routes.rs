//! Each route of CONTRACT section 1 has exactly the members that are promised, and what is wrong with a
//! request is said in a problem document.

use std::collections::BTreeSet;

use hiveops_proto::Limits;
use serde_json::{Value, json};

use crate::harness::{Node, Socket};

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

fn check_members(value: &Value, expected: &[&str]) {
    assert_eq!(members(value), expected.iter().copied().collect());
}

fn is_time(value: &Value) -> bool {
    serde_json::from_value::<hiveops_proto::Timestamp>(value.clone()).is_ok()
}

const NODE_STATS: [&str; 10] = [
    "active_connections",
    "connections_by_type",
    "last_fanout",
    "messages_received",
    "messages_sent",
    "oldest_connection",
    "outbox_frames",
    "send_failures",
    "subscription_counts",
    "total_connections",
];

#[tokio::test]
async fn websocket_health_shows_score_tasks_and_what_it_depends_on() {
    let node = Node::start(&[]).await;
    let health = node.get("/api/dashboard/websocket/health").await;
    check_members(
        &health,
        &[
            "background_tasks",
            "bus",
            "connection_stats",
            "control",
            "node_id",
            "overall_health",
            "timestamp",
            "websocket_manager",
        ],
    );
    assert_eq!(health["overall_health"], json!({"score": 100, "status": "healthy"}));
    assert_eq!((&health["websocket_manager"], &health["node_id"]), (&json!("healthy"), &json!("n1")));
    let tasks = health["background_tasks"].as_object().unwrap();
    assert!(tasks.len() >= 5 && tasks.values().all(|running| *running == json!(true)), "{tasks:?}");
    assert_eq!(health["bus"], json!({"status": "live", "kind": "embedded (in memory)", "live": true}));
    assert_eq!(health["control"]["mode"], "standalone");
    check_members(&health["connection_stats"], &NODE_STATS);
    assert!(is_time(&health["timestamp"]));
}

#[tokio::test]
async fn stats_are_the_figures_of_the_sessions_that_are_there() {
    let node = Node::start(&[]).await;
    let before = node.get("/api/dashboard/websocket/stats").await;
    assert_eq!(before["websocket_stats"]["oldest_connection"], Value::Null);
    let one = Socket::joined(&node, "tasks").await;
    let two = Socket::joined(&node, "dashboard?subscriptions=tasks,alerts").await;
    let stats = node.get("/api/dashboard/websocket/stats").await;
    check_members(
        &stats,
        &["cluster", "endpoints", "last_updated", "node_id", "subscription_types", "websocket_stats"],
    );
    let figures = &stats["websocket_stats"];
    check_members(figures, &NODE_STATS);
    assert_eq!((&figures["active_connections"], &figures["total_connections"]), (&json!(2), &json!(2)));
    let counts =
        json!({"agents": 1, "alerts": 1, "coordination": 0, "project_index": 0, "system": 0, "tasks": 2});
    assert_eq!(figures["subscription_counts"], counts);
    let by_type = &figures["connections_by_type"];
    assert_eq!((&by_type["dashboard"], &by_type["tasks"]), (&json!(1), &json!(1)));
    assert!(is_time(&figures["oldest_connection"]) && is_time(&stats["last_updated"]));
    assert_eq!(stats["endpoints"].as_array().unwrap().len(), 5);
    assert_eq!(stats["subscription_types"], json!(counts.as_object().unwrap().keys().collect::<Vec<_>>()));
    assert_eq!(stats["cluster"]["status"], "complete");
    assert_eq!(stats["cluster"]["missing"], json!([]));
    let [node_1] = stats["cluster"]["nodes"].as_array().unwrap().as_slice() else { panic!("{stats}") };
    assert_eq!((&node_1["node_id"], &node_1["stats"]), (&json!("n1"), figures));
    assert_eq!(stats["cluster"]["totals"]["subscription_counts"], counts);
    drop((one, two));
    let path = "/api/dashboard/websocket/stats";
    node.shows(path, "/websocket_stats/active_connections", &json!(0)).await;
    let after = node.get(path).await;
    assert_eq!(after["websocket_stats"]["total_connections"], 2);
}

#[tokio::test]
async fn limits_has_every_threshold_in_force_with_its_source() {
    let node = Node::start(&[("WS_IDLE_SECONDS", "77"), ("WS_ALLOWED_ORIGINS", "https://a.example")]).await;
    let limits = node.get("/api/dashboard/websocket/limits").await;
    let mut expected: BTreeSet<&str> = Limits::TABLE.iter().map(|row| row.name).collect();
    expected.extend([
        "age_seconds",
        "contract_version",
        "control",
        "revision",
        "sources",
        "stale",
        "supported_versions",
        "timestamp",
        "ws_allowed_origins_configured",
        "ws_auth_required",
    ]);
    assert_eq!(members(&limits), expected);
    for row in Limits::TABLE {
        match row.name {
            "idle_disconnect_seconds" => assert_eq!(limits[row.name], 77),
            // No more than the process can hold.
            "max_connections_per_node" => assert!(limits[row.name].as_u64().unwrap() <= row.default),
            name => assert_eq!(limits[name], row.default, "{name}"),
        }
        let source = if row.name == "idle_disconnect_seconds" { "env" } else { "default" };
        assert_eq!(limits["sources"][row.name], source, "{}", row.name);
    }
    assert_eq!(members(&limits["sources"]).len(), Limits::TABLE.len());
    assert_eq!(limits["ws_auth_required"], false);
    assert_eq!(limits["ws_allowed_origins_configured"], true);
    assert_eq!(
        (&limits["contract_version"], &limits["supported_versions"]),
        (&json!("1.0.0"), &json!(["1.0.0"]))
    );
    node.set_limits(|limits| limits.idle_disconnect_seconds = 78);
    assert_eq!(node.get("/api/dashboard/websocket/limits").await["idle_disconnect_seconds"], 78);
}

#[tokio::test]
async fn contract_shows_the_version_in_force_and_the_digest_of_the_schema_that_is_served() {
    let node = Node::start(&[]).await;
    let contract = node.get("/api/dashboard/websocket/contract").await;
    check_members(
        &contract,
        &[
            "age_seconds",
            "contract_digest",
            "current_version",
            "deprecation_policy",
            "revision",
            "schema_digest",
            "schema_url",
            "stale",
            "subscriptions",
            "supported_versions",
            "timestamp",
        ],
    );
    check_members(&contract["deprecation_policy"], &["notice", "policy"]);
    check_members(&contract["revision"], &["index", "term"]);
    let schema = node.call("GET", contract["schema_url"].as_str().unwrap()).send().await;
    assert_eq!(schema.header("content-type"), "application/schema+json");
    assert_eq!(schema.text, include_str!("../../../schemas/ws_messages.schema.json"));
    assert_eq!(contract["schema_digest"], hiveops_proto::schema_digest());
    assert_eq!(contract["contract_digest"], hiveops_proto::contract_digest());
}

#[tokio::test]
async fn a_node_without_a_control_plane_has_an_empty_key_set_that_can_be_kept() {
    // Open also where everything else needs a credential.
    let node = Node::start(&[("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", "0123456789abcdef")]).await;
    let answer = node.call("GET", "/.well-known/jwks.json").send().await;
    assert_eq!((answer.status, answer.json()), (200, json!({"keys": []})));
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    assert_eq!(answer.header("cache-control"), "public, max-age=30");
    let tag = answer.header("etag");
    let again = node.call("GET", "/.well-known/jwks.json").header("If-None-Match", tag).send().await;
    assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", tag));
}

#[tokio::test]
async fn both_paths_of_the_metrics_have_the_text_format_with_the_names_of_the_contract() {
    let node = Node::start(&[]).await;
    for path in ["/metrics", "/api/dashboard/metrics/websockets"] {
        let answer = node.call("GET", path).send().await;
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        for line in answer.text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("hiveops_") && value.parse::<f64>().is_ok(), "{line}");
        }
        for name in ["messages_sent_total", "send_failures", "connections_active", "delivery_seconds_bucket"]
        {
            assert!(answer.text.contains(name), "{path} lacks {name}");
        }
    }
}

#[tokio::test]
async fn the_health_routes_say_what_they_are_asked_and_no_more() {
    let node = Node::start(&[]).await;
    let health = node.get("/health").await;
    check_members(&health, &["components", "contract_version", "node_id", "status", "timestamp", "version"]);
    check_members(&health["components"], &["bus", "control", "websocket"]);
    assert_eq!((&health["status"], &health["contract_version"]), (&json!("healthy"), &json!("1.0.0")));
    assert_eq!(node.get("/livez").await, json!({"status": "alive"}));
    assert_eq!(node.get("/readyz").await, json!({"status": "ready"}));
}

#[tokio::test]
async fn the_page_brings_everything_with_it_and_may_talk_to_its_own_node_only() {
    let node = Node::start(&[]).await;
    let page = node.call("GET", "/").send().await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(!page.text.contains("src=\"http") && !page.text.contains("href=\"http"));
}

#[tokio::test]
async fn a_version_mismatch_is_counted_and_nothing_else() {
    let node = Node::start(&[]).await;
    let path = "/api/dashboard/telemetry/version-mismatch";
    let answer = node.call("POST", path).json(&json!({"client_version": "0.9.0"})).send().await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_eq!(node.call("POST", path).send().await.status, 204);
    assert_eq!(node.metric("hiveops_ws_client_version_mismatch_total").await, 2.0);
}

#[tokio::test]
async fn a_correlation_id_comes_back_and_an_invalid_one_is_refused_everywhere() {
    let node = Node::start(&[]).await;
    for path in ["/", "/health", "/metrics", "/nowhere", "/api/v1/tasks/nowhere"] {
        let answer = node.call("GET", path).header("X-Correlation-ID", "mine:1").send().await;
        assert_eq!(answer.header("x-correlation-id"), "mine:1", "{path}");
        let answer = node.call("GET", path).header("X-Correlation-ID", "not one").send().await;
        assert_eq!(answer.refusal(), (400, "bad_request".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_problem_and_no_page() {
    let node = Node::start(&[]).await;
    for path in ["/dashboard", "/api/x", "/api/dashboard/ws", "/api/dashboard/ws/alerts", "/health/", "//"] {
        assert_eq!(node.call("GET", path).send().await.refusal(), (404, "not_found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_taken_is_refused_for_what_is_wrong_with_it() {
    let node = Node::start(&[]).await;
    let publish = || node.broadcast("tasks", "task_update");
    let refusal = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(publish().text("{").send().await.refusal(), refusal(400, "bad_request"));
    assert_eq!(publish().send().await.refusal(), refusal(400, "bad_request"));
    assert_eq!(publish().text("[]").send().await.refusal(), refusal(422, "invalid_data"));
    let other = publish().header("content-type", "text/plain").text("{}").send().await;
    assert_eq!(other.refusal(), refusal(415, "unsupported_media_type"));
    // Exactly the limit passes; one byte more does not.
    let filled = |bytes: usize| format!("{{\"id\":\"{}\"}}", "x".repeat(bytes - 9));
    let exact = json!({"id": "k", "pad": "x".repeat(65_536 - 19)}).to_string();
    assert_eq!(exact.len(), 65_536);
    assert_eq!(publish().text(exact.clone()).send().await.status, 200);
    let over = publish().text(exact.replace("\"k\"", "\"kk\"")).send().await;
    assert_eq!(over.refusal(), refusal(413, "too_large"));
    // Far beyond what any route reads.
    let huge = node.call("POST", "/api/v1/tasks").text(filled(3 * 1_048_576)).send().await;
    assert_eq!(huge.refusal(), refusal(413, "too_large"));
    // A key has a length of its own.
    assert_eq!(publish().text(filled(2_000)).send().await.refusal(), refusal(422, "invalid_data"));
    let title = node.call("POST", "/api/v1/tasks").json(&json!({"titel": "x"})).send().await;
    assert_eq!(title.refusal(), refusal(422, "invalid_data"));
}

#[tokio::test]
async fn a_wrong_name_is_answered_with_the_right_ones() {
    let node = Node::start(&[]).await;
    let problem = node.broadcast("task", "task_update").json(&json!({})).send().await.problem();
    assert_eq!((problem.status, problem.code.to_string().as_str()), (422, "unknown_subscription"));
    let names: Vec<String> = problem.valid_subscriptions.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["agents", "alerts", "coordination", "project_index", "system", "tasks"]);
    let problem = node.broadcast("tasks", "agent_update").json(&json!({})).send().await.problem();
    assert_eq!((problem.status, problem.code.to_string().as_str()), (422, "unknown_message_type"));
    let names: Vec<String> = problem.valid_message_types.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["task_event", "task_update"]);
    let answer = node.call("POST", "/api/dashboard/websocket/broadcast").json(&json!({})).send().await;
    assert_eq!(answer.refusal(), (400, "bad_request".to_owned()));
}

#[tokio::test]
async fn an_administrator_ends_a_session_with_a_notice_that_carries_the_words() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "tasks?connection_id=c7").await;
    let path = "/api/dashboard/websocket/disconnect/c7";
    let answer = node.call("POST", &format!("{path}?reason=too%20loud")).send().await.ok();
    check_members(&answer, &["connection_id", "correlation_id", "node_id", "reason", "success", "timestamp"]);
    assert_eq!((&answer["connection_id"], &answer["reason"]), (&json!("c7"), &json!("too loud")));
    let (frames, closed) = socket.rest().await;
    let notice = frames.last().expect("a notice");
    assert_eq!((&notice["type"], &notice["reason"]), (&json!("disconnect_notice"), &json!("admin")));
    assert_eq!(notice["detail"], "too loud");
    assert_eq!(closed.map(|closed| closed.code), Some(1000));
    drop(socket);
    let stats = "/api/dashboard/websocket/stats";
    node.shows(stats, "/websocket_stats/active_connections", &json!(0)).await;
    assert_eq!(node.call("POST", path).send().await.refusal(), (404, "not_found".to_owned()));
    let long = node.call("POST", &format!("{path}?reason={}", "x".repeat(201))).send().await;
    assert_eq!(long.refusal(), (400, "bad_request".to_owned()));
}
