//! Control partly and wholly gone: nodes go on serving, say how old their view is, and come back to it.

use std::time::{Duration, Instant};

use hiveops_testkit::wait::wait_for;
use serde_json::{Value, json};

use crate::control::cluster::timed;
use crate::whole::Whole;
use crate::wire::{Http, Socket};

const LIMIT: &str = "idle_disconnect_seconds";
/// The refusal of a write, the nodes' return to a fresh view, a start from the cache. Promised are 1, 3 and
/// 1 s; these leave room for a machine that does other things as well, and what it took is printed.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
const CONVERGED_WITHIN: Duration = Duration::from_secs(15);
const READY_WITHIN: Duration = Duration::from_secs(10);

fn age(limits: &Value) -> u64 {
    limits["age_seconds"].as_u64().unwrap()
}

/// Publishes at one node and sees it at a session of each.
fn flows(whole: &Whole, sockets: &mut [Socket], name: &str) {
    let data = json!({"id": name});
    let (status, published) =
        Http::connect(whole.url(0)).publish("tasks", "task_update", &[], &data).unwrap();
    assert_eq!(status, 200, "{published}");
    for socket in sockets {
        while socket.wait_for("task_update")["data"]["id"] != name {}
    }
}

fn join(whole: &Whole) -> Vec<Socket> {
    let join = |node| {
        let mut socket = Socket::connect(whole.url(node), "dashboard?subscriptions=tasks", None);
        socket.wait_for("dashboard_initialized");
        socket
    };
    (0..3).map(join).collect()
}

#[test]
fn with_two_of_three_replicas_down_nodes_serve_on_and_converge_when_they_are_back() {
    let mut whole = Whole::start(3);
    let mut sockets = join(&whole);
    let leader = whole.control.leader();
    let gone: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    gone.iter().for_each(|id| whole.control.kill(*id));
    let (answer, took) = timed(|| whole.control.set_limit(leader, LIMIT, 700, "r1"));
    let (status, problem) = answer.unwrap();
    assert_eq!((status, &problem["code"]), (503, &json!("no_quorum")), "{problem}");
    println!("a write without a quorum was refused after {took:?}");
    assert!(took < REFUSED_WITHIN, "refused after {took:?}");
    whole.all("views that say they are stale", |limits| limits["stale"] == true);
    let before: Vec<u64> = whole.limits().iter().map(age).collect();
    whole.all("ages that grow", |limits| age(limits) > *before.iter().max().unwrap());
    flows(&whole, &mut sockets, "old-sockets");
    let mut fresh = join(&whole);
    flows(&whole, &mut fresh, "new-sockets");
    flows(&whole, &mut sockets, "still-there");

    gone.iter().for_each(|id| whole.control.start(*id));
    let begun = Instant::now();
    let mut written = None;
    wait_for("a write", || {
        let answer = whole.control.set_limit(leader, LIMIT, 701, "r2");
        written = written.or(answer.is_ok_and(|(status, _)| status == 200).then(|| begun.elapsed()));
        written.is_some()
    })
    .unwrap();
    whole.all("the new limit", |limits| limits[LIMIT] == 701 && limits["stale"] == false);
    let took = begun.elapsed();
    println!("a write was acknowledged {written:?} after both were back, every node had it after {took:?}");
    assert!(took < CONVERGED_WITHIN, "{took:?}");
    flows(&whole, &mut sockets, "afterwards");
}

#[test]
fn with_all_of_control_down_a_node_starts_from_its_cache_and_a_damaged_one_stops_it() {
    let mut whole = Whole::start(3);
    let mut sockets = join(&whole);
    let leader = whole.control.leader();
    assert_eq!(whole.control.set_limit(leader, LIMIT, 777, "r1").unwrap().0, 200);
    whole.all("the limit", |limits| limits[LIMIT] == 777);
    (1..=3).for_each(|id| whole.control.kill(id));
    whole.kill_node(2);
    let ((), took) = timed(|| whole.start_node(2));
    println!("a node was ready {took:?} after it was started without control");
    assert!(took < READY_WITHIN, "{took:?}");
    let restarted = whole.get(2, "/api/dashboard/websocket/limits");
    assert_eq!((&restarted[LIMIT], &restarted["stale"]), (&777.into(), &true.into()));
    sockets.pop();
    flows(&whole, &mut sockets, "others");
    flows(&whole, &mut join(&whole), "all");

    whole.kill_node(2);
    let cache = whole.control.place.dir.path().join("n2/control-view");
    let mut bytes = std::fs::read(&cache).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&cache, bytes).unwrap();
    let (code, said) = whole.node_that_stops(2);
    assert_eq!(code, Some(1));
    assert!(said.iter().any(|line| line.contains("n2/control-view")), "{said:?}");
}
