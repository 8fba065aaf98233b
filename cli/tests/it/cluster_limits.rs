//! Limits of the whole cluster, over real control replicas and real nodes: exact while parts of both are
//! killed, frozen and cut off. The count is the clients' own.

mod crowd;
mod users;

use std::time::Duration;

use hiveops_testkit::proxy::{Direction, Fault};
use hiveops_testkit::wait::{PATIENCE, wait_for, wait_for_some};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::control::cluster::timed;
use crate::whole::Whole;
use crate::wire::{Http, Socket, show};
use crowd::Crowd;

/// The lease of a cluster.
const LEASE: Duration = Duration::from_secs(10);

/// 1.5 leases, an election in which every lease begins anew, and what a busy machine needs.
const LENT_AGAIN_WITHIN: Duration = Duration::from_secs(25);

const TOTAL: &str = "max_connections_total";

/// A session of a node that reads nothing but its own subscription.
fn session(url: &str) -> Socket {
    let mut socket = Socket::with_a_place(url, "dashboard?subscriptions=tasks");
    socket.wait_for("snapshot");
    socket
}

/// The frame that came last before the close.
fn notice(socket: &mut Socket) -> Value {
    socket.next().expect("a notice before the close")
}

#[track_caller]
fn assert_ended(socket: &mut Socket, reason: &str) {
    let notice = notice(socket);
    assert_eq!(
        (&notice["type"], &notice["reason"], &notice["code"]),
        (&json!("disconnect_notice"), &json!(reason), &json!(1013)),
        "{notice}"
    );
    assert_eq!(socket.next(), None);
}

/// The figure of a metric.
fn metric(url: &str, name: &str) -> f64 {
    let text = Http::connect(url).text("GET /metrics").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing")).parse().unwrap()
}

#[test]
fn three_hundred_clients_get_exactly_a_hundred_places_while_the_leader_and_a_node_are_killed() {
    let mut fleet = Whole::start(3);
    fleet.set(TOTAL, 100);
    let crowd = Crowd::new(&fleet.urls(), 300);
    crowd.await_live(100, PATIENCE);
    crowd.await_denied(200, PATIENCE);
    println!("{} attempts until 100 were in and 200 were told", crowd.attempts());
    let health = show(fleet.url(0), "/api/dashboard/websocket/health");
    assert!(health["control"]["lease"]["held"].as_u64() <= Some(100), "{health}");

    let leader = fleet.control.leader();
    fleet.control.kill(leader);
    fleet.kill_node(2);
    crowd.lost_node(2);
    wait_for("the dead node's clients to notice", || crowd.live() < 100).unwrap();
    println!("{} live after the leader and a node were killed", crowd.live());
    let ((), took) = timed(|| crowd.await_live(100, LENT_AGAIN_WITHIN));
    println!("100 again {took:?} after the leader and a node were killed");

    // One goes away in order, and its budget is there at once, as `control/leases.rs` looks at; the clients
    // need their time to come for it. It is back, and changes nothing.
    fleet.start_node(2);
    fleet.node(1).signal(Signal::TERM);
    crowd.lost_node(1);
    assert_eq!(fleet.node(1).ended().code(), Some(0));
    let ((), took) = timed(|| crowd.await_live(100, LENT_AGAIN_WITHIN));
    println!("100 again {took:?} after a node had ended in order");
    crowd.stop();
    assert_eq!(crowd.most(), 100, "never more at once");
    let reasons = crowd.reasons();
    println!("closes: {reasons:?}");
    let known = ["1013 connection_limit", "1012 draining", "broken"];
    assert!(reasons.keys().all(|reason| known.contains(&reason.as_str())), "{reasons:?}");
}

#[test]
fn without_control_a_node_admits_what_it_holds_and_loses_all_after_a_lease_but_nothing_without_a_limit() {
    let (mut open, mut capped) = (Whole::without_bus(1), Whole::without_bus(1));
    capped.set(TOTAL, 3);
    let mut free = session(open.url(0));
    let mut counted: Vec<Socket> = (0..3).map(|_| session(capped.url(0))).collect();
    (1..=3).for_each(|id| open.control.kill(id));
    (1..=3).for_each(|id| capped.control.kill(id));
    // What is held is there without control.
    drop(counted.pop());
    wait_for("the place of the one who left", || metric(capped.url(0), "hiveops_ws_lease_used") == 2.0)
        .unwrap();
    counted.push(session(capped.url(0)));
    assert_eq!(Socket::refused(capped.url(0), "dashboard"), (1013, "connection_limit".to_owned()));
    let ((), took) = timed(|| counted.iter_mut().for_each(|socket| assert_ended(socket, "lease_lost")));
    println!("lost {took:?} after control was gone");
    // What a node needs besides is far less than a second; the rest is for a busy machine.
    assert!(took < LEASE + Duration::from_secs(8), "{took:?}");
    assert_eq!(Socket::refused(capped.url(0), "dashboard"), (1013, "connection_limit".to_owned()));
    let lost = metric(capped.url(0), "hiveops_ws_disconnections_total{reason=\"lease_lost\"}");
    assert_eq!((lost, metric(capped.url(0), "hiveops_ws_lease_held")), (3.0, 0.0));
    assert!(metric(capped.url(0), "hiveops_ws_lease_asks_total{outcome=\"unreachable\"}") > 0.0);
    wait_for("more than a lease without control", || {
        metric(open.url(0), "hiveops_ws_lease_age_seconds") > LEASE.as_secs_f64() + 1.0
    })
    .unwrap();
    free.send(r#"{"type":"ping"}"#);
    free.wait_for("pong");
    session(open.url(0));
    // Control is back: everybody can come again.
    (1..=3).for_each(|id| capped.control.start(id));
    let back = wait_for_some("a place again", LENT_AGAIN_WITHIN, || {
        Ok(Socket::try_connect(capped.url(0), "dashboard").ok())
    });
    back.unwrap();
}

#[test]
fn a_node_that_stood_still_serves_nobody_on_the_lease_that_it_has_lost() {
    let mut fleet = Whole::start(2);
    fleet.set(TOTAL, 5);
    let mut frozen: Vec<Socket> = (0..5).map(|_| session(fleet.url(0))).collect();
    fleet.node(0).signal(Signal::STOP);
    let crowd = Crowd::new(&fleet.urls()[1..], 8);
    let ((), took) = timed(|| crowd.await_live(5, LENT_AGAIN_WITHIN));
    println!("its places were lent again {took:?} after the node was frozen");
    assert!(took > LEASE / 2, "not before its lease has run out: {took:?}");
    let data = json!({"id": "t1", "status": "done"});
    let published = Http::connect(fleet.url(1)).publish("tasks", "task_update", &[], &data).unwrap();
    assert_eq!(published.0, 200);
    fleet.node(0).signal(Signal::CONT);
    frozen.iter_mut().for_each(|socket| assert_ended(socket, "lease_lost"));
    assert_eq!(Socket::refused(fleet.url(0), "dashboard"), (1013, "connection_limit".to_owned()));
    crowd.stop();
    assert_eq!(crowd.most(), 5);
}

#[test]
fn a_node_that_hears_nothing_from_control_has_lost_its_sessions_before_others_get_its_places() {
    // Silence, and then a link that loses only the answers: control hears the asks, and goes on lending.
    for (what, direction) in [("silence", Direction::Both), ("lost answers", Direction::ToClient)] {
        let fleet = Whole::with_a_weak_link(2);
        fleet.set(TOTAL, 20);
        let mut weak: Vec<Socket> = (0..5).map(|_| session(fleet.url(0))).collect();
        let crowd = Crowd::new(&fleet.urls()[1..], 40);
        crowd.await_live(15, PATIENCE);
        fleet.fail(direction, Fault::Blackhole);
        let (most, lost) = timed(|| {
            weak.iter_mut().for_each(|socket| assert_ended(socket, "lease_lost"));
            crowd.most()
        });
        let ((), took) = timed(|| crowd.await_live(20, LENT_AGAIN_WITHIN));
        println!("{what}: lost after {lost:?}, the other node had all places {took:?} later");
        // What was under way arrives now, and changes nothing.
        fleet.fail(Direction::Both, Fault::Pass);
        if direction == Direction::Both {
            assert_eq!(most, 15, "nobody came before everybody had been told");
        }
        drop(weak);
        wait_for("the node to be lent to again", || {
            metric(fleet.url(0), "hiveops_ws_lease_age_seconds") >= 0.0
        })
        .unwrap();
        assert_eq!(Socket::refused(fleet.url(0), "dashboard"), (1013, "connection_limit".to_owned()));
        crowd.stop();
        assert_eq!(crowd.most(), 20, "never more at once");
    }
}

#[test]
fn a_limit_that_is_switched_on_or_lowered_ends_the_youngest_and_one_that_is_taken_back_lets_all_in() {
    let fleet = Whole::without_bus(2);
    let mut sessions: Vec<Vec<Socket>> =
        (0..2).map(|node| (0..10).map(|_| session(fleet.url(node))).collect()).collect();
    for limit in [12, 5] {
        fleet.set(TOTAL, limit);
        let used = |node: usize| metric(fleet.url(node), "hiveops_ws_lease_used");
        wait_for("the surplus to go", || used(0) + used(1) == limit as f64).unwrap();
        let held = |node: usize| metric(fleet.url(node), "hiveops_ws_lease_held");
        wait_for("the grants", || held(0) + held(1) == limit as f64).unwrap();
        for (node, sessions) in sessions.iter_mut().enumerate() {
            // The first ones stay.
            let left = used(node) as usize;
            sessions.drain(left..).for_each(|mut socket| assert_ended(&mut socket, "connection_limit"));
            for socket in sessions {
                socket.send(r#"{"type":"ping"}"#);
                socket.wait_for("pong");
            }
        }
        assert_eq!(Socket::refused(fleet.url(0), "dashboard"), (1013, "connection_limit".to_owned()));
    }
    fleet.set(TOTAL, 0);
    sessions[0].extend((0..10).map(|_| session(fleet.url(0))));
}
