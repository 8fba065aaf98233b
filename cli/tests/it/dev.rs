//! `hiveops dev` and the control replica in its process.

use hiveops_testkit::broker::NatsServer;
use hiveops_testkit::wait::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Place, hiveops, nobody};
use crate::running::Running;
use crate::wire::{LIMITS, show};

/// What the banner says to call the replica.
pub(crate) fn control(node: &Running) -> String {
    let line = node.out.wait(|line| line.contains("control status"));
    let named = line.rsplit_once("--control ").map_or("http://127.0.0.1:7100", |(_, url)| url);
    named.to_owned()
}

fn limits(url: &str) -> Value {
    show(url, LIMITS)
}

fn stopped(mut node: Running) {
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(0), "{:#?}", node.err.all());
}

#[test]
fn what_is_set_outlives_a_restart_and_wins_over_what_the_environment_says_then() {
    let place = Place::new();
    let args = ["--data-dir", "data", "--control-listen", "127.0.0.1:0"];
    let (node, url) = Running::dev(&place, &args, &[("WS_RATE_BURST", "70")]);
    let before = limits(&url);
    assert_eq!((&before["control"], &before["stale"]), (&json!("cluster"), &json!(false)));
    let burst = |limits: &Value| {
        let name = "rate_limit_burst_capacity";
        (limits[name].clone(), limits["sources"][name].clone())
    };
    assert_eq!(burst(&before), (json!(70), json!("env")), "the first start takes it from the environment");
    let set = hiveops(&["limits", "set", "rate_limit_burst_capacity=90", "--control", &control(&node)]);
    assert_eq!(set.code, Some(0), "{}", set.err);
    wait_for("the limit", || burst(&limits(&url)) == (json!(90), json!("control"))).unwrap();
    stopped(node);
    let (node, url) = Running::dev(&place, &args, &[("WS_RATE_BURST", "80")]);
    node.out
        .wait(|line| line == "rate_limit_burst_capacity=80 (env) does not count: the control plane says 90.");
    assert_eq!(burst(&limits(&url)), (json!(90), json!("control")));
    let address = control(&node).replace("http://", "member        1 ");
    let status = || hiveops(&["control", "status", "--control", &control(&node)]).out;
    wait_for("the replica's new address", || status().contains(&address)).unwrap();
}

#[test]
fn two_at_once_have_replicas_on_different_ports_and_say_where() {
    let places = [Place::new(), Place::new()];
    let nodes = places.each_ref().map(|place| Running::dev(place, &[], &[]).0);
    let urls = nodes.each_ref().map(control);
    assert_ne!(urls[0], urls[1]);
    for url in urls {
        let status = hiveops(&["control", "status", "--control", &url]);
        assert!(status.code == Some(0) && status.out.contains("1 (leader)"), "{}{}", status.out, status.err);
    }
}

#[test]
fn a_port_that_was_named_for_the_replica_and_is_taken_is_an_error_that_names_the_setting() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    for (args, env) in [
        (&["dev", "--listen", "127.0.0.1:0", "--control-listen", &address][..], &[][..]),
        (&["dev", "--listen", "127.0.0.1:0"], &[("HIVEOPS_CONTROL_LISTEN", address.as_str())]),
    ] {
        let ran = Place::new().run(args, env);
        assert!(ran.code == Some(1) && ran.out.is_empty(), "{}", ran.err);
        assert!(
            ran.err.contains(&format!("cannot listen on {address} (HIVEOPS_CONTROL_LISTEN)")),
            "{}",
            ran.err
        );
    }
}

#[test]
fn nothing_is_left_of_a_run_that_keeps_nothing() {
    let place = Place::new();
    let temporary = Place::new();
    let env = [("TMPDIR", temporary.dir.path().to_str().unwrap())];
    let left = || std::fs::read_dir(temporary.dir.path()).unwrap().count();
    for signal in [Signal::TERM, Signal::INT] {
        let (mut node, _) = Running::dev(&place, &[], &env);
        assert_eq!(left(), 1);
        node.signal(signal);
        assert_eq!(node.ended().code(), Some(0));
        assert_eq!(left(), 0);
    }
    // A session that does not leave keeps the node until a second signal.
    let (mut node, url) = Running::dev(&place, &[], &env);
    let mut socket = crate::wire::Socket::connect(&url, "dashboard?subscriptions=tasks", None);
    socket.wait_for("dashboard_initialized");
    node.signal(Signal::TERM);
    socket.wait_for("disconnect_notice");
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(130));
    assert_eq!(left(), 0);
}

#[test]
fn a_plane_that_is_named_is_followed_and_none_is_started() {
    let places = [Place::new(), Place::new()];
    let (first, _) = Running::dev(&places[0], &[], &[("WS_IDLE_SECONDS", "321")]);
    let args = ["--data-dir", "data", "--control", &control(&first)];
    let (second, url) = Running::dev(&places[1], &args, &[]);
    assert_eq!(limits(&url)["idle_disconnect_seconds"], 321);
    second.out.wait(|line| line == format!("Limits and contract come from {}.", control(&first)));
    assert!(!places[1].dir.path().join("data/control").exists());
    let both = Place::new().run(
        &["dev", "--control-listen", "127.0.0.1:0"],
        &[("HIVEOPS_CONTROL", &control(&first)), ("HIVEOPS_DATA_DIR", "data")],
    );
    assert!(both.code == Some(2) && both.err.contains("HIVEOPS_CONTROL_LISTEN"), "{}", both.err);
}

#[test]
fn on_a_shared_bus_the_data_directory_is_the_replicas() {
    let (bus, place) = (NatsServer::start().unwrap(), Place::new());
    let args = ["--data-dir", "data", "--bus", &bus.url()];
    let (node, url) = Running::dev(&place, &args, &[]);
    let limit = "max_subscriptions_per_connection";
    let set = hiveops(&["limits", "set", &format!("{limit}=7"), "--control", &control(&node)]);
    assert_eq!(set.code, Some(0), "{}", set.err);
    wait_for("the limit", || limits(&url)[limit] == 7).unwrap();
    stopped(node);
    let (_node, url) = Running::dev(&place, &args, &[]);
    assert_eq!(limits(&url)[limit], 7);
}

#[test]
fn a_node_that_waits_for_its_first_control_view_ends_when_it_is_told_to() {
    let place = Place::new();
    let args = ["node", "--listen", "127.0.0.1:0", "--data-dir", "data"];
    let mut node = Running::start(&place, &args, &[("HIVEOPS_CONTROL", &nobody())]);
    node.err.wait(|line| line.contains("control link is down"));
    node.signal(Signal::TERM);
    // Of its own accord it would end with a failure, when it has waited in vain.
    assert_eq!(node.ended().code(), Some(0));
}
