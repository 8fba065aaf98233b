//! A node of the real binary, and the tools that talk to it.

use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Place, Ran};
use crate::running::Running;
use crate::wire::{Http, Socket};

fn tool(url: &str, args: &[&str]) -> Ran {
    Place::new().run(args, &[("HIVEOPS_URL", url)])
}

fn succeeded(ran: Ran) -> String {
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    ran.out
}

/// Starts `hiveops watch --json` and waits until it is connected.
fn watch(url: &str, subscriptions: &[&str]) -> Running {
    let args = [&["watch", "--json", "--url", url], subscriptions].concat();
    let watching = Running::start(&Place::new(), &args, &[]);
    watching.out.wait(|line| line.contains("\"snapshot\""));
    watching
}

fn frame(watching: &Running, frame_type: &str) -> Value {
    let start = format!("\"type\":\"{frame_type}\"");
    serde_json::from_str(&watching.out.wait(|line| line.contains(&start))).unwrap()
}

#[test]
fn what_one_tool_publishes_another_sees() {
    let place = Place::new();
    let (_node, url) = Running::dev(&place, &[], &[]);
    let watching = watch(&url, &["tasks"]);
    let data = r#"{"id":"t1","status":"done"}"#;
    let reply = succeeded(tool(
        &url,
        &["publish", "tasks", "task_update", data, "--correlation-id", "cli:1", "--json"],
    ));
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!((&reply["clients_reached"], &reply["seq"]), (&json!(1), &json!(1)));
    let seen = frame(&watching, "task_update");
    assert_eq!(
        (&seen["data"], &seen["correlation_id"]),
        (&json!({"id": "t1", "status": "done"}), &json!("cli:1"))
    );
    let keyed = ["publish", "tasks", "task_update", data, "--idempotency-key", "k1"];
    assert!(succeeded(tool(&url, &keyed)).starts_with("published task_update to tasks as seq 2 "));
    assert!(succeeded(tool(&url, &keyed)).starts_with("had been published before:"));
    let refused = tool(&url, &["publish", "task", "task_update", data]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("unknown_subscription") && refused.err.contains("subscriptions: agents, alerts")
    );
}

#[test]
fn the_tools_that_look_at_a_node_find_it_in_order() {
    let place = Place::new();
    let (_node, url) = Running::dev(&place, &[], &[("WS_IDLE_SECONDS", "321")]);
    assert_eq!(succeeded(tool(&url, &["healthcheck"])), "ready\n");
    let status = succeeded(tool(&url, &["status"]));
    assert!(status.contains("health        healthy (100 of 100)"), "{status}");
    assert!(!status.contains("not running"), "{status}");
    let limits = succeeded(tool(&url, &["limits"]));
    let idle = limits.lines().find(|line| line.starts_with("idle_disconnect_seconds")).unwrap();
    assert_eq!(idle.split_whitespace().collect::<Vec<_>>(), ["idle_disconnect_seconds", "321", "s", "env"]);
    let listen = url.strip_prefix("http://").unwrap();
    let doctor = succeeded(Place::new().run(&["doctor", "--listen", listen], &[]));
    assert!(doctor.contains("is held by a HiveOps node"), "{doctor}");
}

#[test]
fn the_tools_bring_a_credential_where_one_is_asked_for() {
    let place = Place::new();
    let token = "a-token-of-the-tests";
    let env = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", token)];
    let (_node, url) = Running::dev(&place, &[], &env);
    let refused = tool(&url, &["status"]);
    assert!(refused.code == Some(1) && refused.err.contains("unauthorized"), "{}", refused.err);
    succeeded(tool(&url, &["healthcheck"]));
    succeeded(tool(&url, &["status", "--token", token]));
    let watching =
        Place::new().run(&["watch", "tasks", "--url", &url], &[("HIVEOPS_TOKEN", "another-one-than-that")]);
    assert_eq!(watching.code, Some(1));
    assert!(watching.err.contains("wants another credential (--token or HIVEOPS_TOKEN)"), "{}", watching.err);
}

#[test]
fn sigterm_tells_the_sessions_and_ends_with_success() {
    let place = Place::new();
    let (mut node, url) = Running::dev(&place, &[], &[]);
    let mut watching = watch(&url, &["tasks"]);
    node.signal(Signal::TERM);
    let notice = frame(&watching, "disconnect_notice");
    assert_eq!(notice["reason"], "draining");
    assert!(notice["retry_after_ms"].is_u64());
    assert_eq!(node.ended().code(), Some(0));
    assert!(TcpStream::connect(url.strip_prefix("http://").unwrap()).is_err(), "nobody listens any more");
    // The client goes on trying until somebody stops it.
    watching.err.wait(|line| line.starts_with("disconnected: "));
    watching.signal(Signal::INT);
    assert_eq!(watching.ended().code(), Some(0));
}

#[test]
fn a_node_that_drains_says_so_and_a_second_signal_ends_it_at_once() {
    let place = Place::new();
    let (mut node, url) = Running::dev(&place, &[], &[]);
    let mut socket = Socket::connect(&url, "dashboard?subscriptions=tasks", None);
    socket.wait_for("dashboard_initialized");
    node.signal(Signal::INT);
    // This client sees the notice and does not leave, so the node lingers.
    socket.wait_for("disconnect_notice");
    // Meanwhile it is alive, but no place to go to.
    let ask = |path: &str| Http::connect(&url).call(&format!("GET {path}"), &[], "").unwrap();
    assert_eq!(ask("/livez").0, 200);
    assert_eq!(ask("/readyz"), (503, json!({"status": "not_ready", "reason": "draining"})));
    assert_eq!(ask("/health").1["status"], "unhealthy");
    assert_eq!(tool(&url, &["healthcheck"]).code, Some(1));
    node.signal(Signal::INT);
    assert_eq!(node.ended().code(), Some(130));
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let place = Place::new();
    let (_node, url) = Running::dev(&place, &[], &[]);
    let listen = url.strip_prefix("http://").unwrap();
    let second = Place::new().run(&["dev", "--listen", listen], &[]);
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert!(second.err.contains(listen) && second.err.contains("(HIVEOPS_LISTEN)"), "{}", second.err);
    assert_eq!(second.out, "", "it does not say that it listens");
}

#[test]
fn a_data_directory_belongs_to_one_node_at_a_time() {
    let place = Place::new();
    let (mut node, url) = Running::dev(&place, &["--data-dir", "data"], &[]);
    let second = place.run(&["dev", "--listen", "127.0.0.1:0", "--data-dir", "data"], &[]);
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert!(second.err.contains("in use") && second.err.contains("(HIVEOPS_DATA_DIR)"), "{}", second.err);
    let mut http = Http::connect(&url);
    let (status, reply) = http.publish("tasks", "task_update", &[], &json!({"id": "t1"})).unwrap();
    assert_eq!(status, 200);
    drop(http);
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(0));
    let (_node, url) = Running::dev(&place, &["--data-dir", "data"], &[]);
    let mut socket = Socket::connect(&url, "dashboard?subscriptions=tasks", None);
    let initialized = socket.wait_for("dashboard_initialized");
    assert_eq!(initialized["positions"]["tasks"], json!({"epoch": reply["epoch"], "seq": 1}));
    assert_eq!(socket.wait_for("snapshot")["items"][0]["key"], "t1");
}
