//! `hiveops dev --nodes 3 --controls 3`: processes that are killed one after the other, behind one address.

use std::collections::BTreeMap;
use std::path::Path;

use hiveops_testkit::program::NATS_SERVER;
use hiveops_testkit::wait::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::harness::{Place, hiveops};
use crate::running::Running;
use crate::wire::{Http, LIMITS, Socket, show};

/// Pids by the names of the parts.
type Parts = BTreeMap<String, i32>;

fn start(place: &Place, args: &[&str]) -> (Running, String, Parts) {
    let nats = NATS_SERVER.find().unwrap();
    let (cluster, url) = Running::dev(place, args, &[("NATS_SERVER", nats.to_str().unwrap())]);
    // The last line of what it says when it is up.
    cluster.out.wait(|line| line.starts_with("Stop with"));
    let lines = cluster.out.all();
    let rows = lines.iter().filter(|line| line.contains("  127.0.0.1:"));
    let parts = rows.map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        (words[0].to_owned(), words[1].parse().unwrap())
    });
    (cluster, url, parts.collect())
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// A process that has ended and that nobody has waited for yet runs no more.
fn runs(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
}

fn publish(url: &str, id: &str) -> u16 {
    Http::connect(url).publish("tasks", "task_update", &[], &json!({"id": id})).unwrap().0
}

/// The options that name the replicas, from the advice.
fn control(cluster: &Running) -> String {
    let line = cluster.out.wait(|line| line.contains(" status --control "));
    line.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn the_one_address_serves_while_parts_die_and_come_back_and_all_end_together() {
    let place = Place::new();
    let (mut cluster, url, parts) =
        start(&place, &["--nodes", "3", "--controls", "3", "--restart-seconds", "1"]);
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(names, ["control-1", "control-2", "control-3", "nats", "node-1", "node-2", "node-3"]);
    let mut socket = Socket::connect(&url, "dashboard?subscriptions=tasks", None);
    let here = socket.wait_for("connection_established")["node_id"].as_str().unwrap().to_owned();
    socket.wait_for("dashboard_initialized");
    assert_eq!(publish(&url, "t1"), 200);
    assert_eq!(socket.wait_for("task_update")["data"]["id"], "t1");
    // Each publication goes to the node whose turn it is, so that the dead one's would fail.
    let other = names.iter().copied().find(|name| name.starts_with("node-") && *name != here).unwrap();
    kill(parts[other]);
    cluster.out.wait(|line| line.starts_with(&format!("{other} has ended (signal: 9")));
    for number in 0..6 {
        assert_eq!(publish(&url, &format!("u{number}")), 200);
    }
    assert_eq!(socket.wait_for("task_update")["data"]["id"], "u0", "the other nodes' sessions stay");
    let line = cluster.out.wait(|line| line.starts_with(&format!("{other} starts again, pid ")));
    let again: i32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    let status = hiveops(&["status", "--control", &control(&cluster)]);
    assert!(
        status.code == Some(0) && status.out.contains("quorum        yes"),
        "{}{}",
        status.out,
        status.err
    );
    cluster.signal(Signal::TERM);
    assert_eq!(
        socket.wait_for("disconnect_notice")["reason"],
        "draining",
        "the address stays until the nodes end"
    );
    drop(socket);
    assert_eq!(cluster.ended().code(), Some(0), "{:#?}", cluster.err.all());
    for pid in parts.values().chain([&again]) {
        assert!(!runs(*pid), "{pid} of {parts:?} is left");
    }
}

#[test]
fn no_part_outlives_a_cluster_that_is_killed() {
    let place = Place::new();
    let (mut cluster, _, parts) = start(&place, &["--nodes", "2"]);
    assert_eq!(parts.len(), 4, "one replica when nobody says how many: {parts:?}");
    cluster.kill();
    wait_for("the end of every part", || parts.values().all(|pid| !runs(*pid))).unwrap();
}

#[test]
fn a_cluster_with_a_data_directory_goes_on_where_it_was() {
    let place = Place::new();
    let args = ["--controls", "3", "--data-dir", "data"];
    let (mut cluster, url, _) = start(&place, &args);
    let set = hiveops(&["limits", "set", "idle_disconnect_seconds=321", "--control", &control(&cluster)]);
    assert_eq!(set.code, Some(0), "{}", set.err);
    assert_eq!(publish(&url, "t1"), 200);
    cluster.signal(Signal::INT);
    assert_eq!(cluster.ended().code(), Some(0), "{:#?}", cluster.err.all());
    let (cluster, url, _) = start(&place, &args);
    let mut socket = Socket::connect(&url, "dashboard?subscriptions=tasks", None);
    assert_eq!(socket.wait_for("snapshot")["items"][0]["key"], "t1");
    assert_eq!(show(&url, LIMITS)["idle_disconnect_seconds"], 321);
    // The replicas find each other where they were.
    let quorum = || hiveops(&["status", "--control", &control(&cluster)]).code == Some(0);
    wait_for("a quorum", quorum).unwrap();
}

#[test]
fn without_nats_server_the_error_says_how_to_install_it() {
    let place = Place::new();
    // Away from the checkout, where it would be found.
    let binary = place.dir.path().join("hiveops");
    let built = Path::new(env!("CARGO_BIN_EXE_hiveops"));
    std::fs::hard_link(built, &binary).or_else(|_| std::fs::copy(built, &binary).map(|_| ())).unwrap();
    let mut command = std::process::Command::new(&binary);
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--nodes", "3"])
        .env_clear()
        .current_dir(place.dir.path());
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("nats-server is missing") && err.contains("scripts/install nats-server"), "{err}");
}

#[test]
fn what_a_cluster_cannot_be_told_is_a_mistake_of_the_command_line() {
    for (args, said) in [
        (&["--nodes", "0"][..], "1..=9"),
        (&["--controls", "10"], "1..=9"),
        (&["--nodes", "2", "--node-id", "n1"], "node_id (flag --node-id)"),
        (&["--nodes", "2", "--control", "http://127.0.0.1:1", "--data-dir", "d"], "control (flag --control)"),
        (&["--nodes", "2", "--control-listen", "127.0.0.1:0"], "HIVEOPS_CONTROL_LISTEN"),
    ] {
        let ran = hiveops(&[&["dev", "--listen", "127.0.0.1:0"], args].concat());
        assert!(ran.code == Some(2) && ran.err.contains(said), "{args:?}: {}", ran.err);
    }
}
