//! What nodes ask of a replica about their leases, and what many asks do to those who watch.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::cluster::{Cluster, call, timed};
use crate::harness::Place;
use crate::running::Running;
use crate::wire::Socket;

const LIMIT: &str = "max_connections_total";
/// Promised is a second, of which the decision may take 800 ms; a busy machine may need more for the rest.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

fn renew(cluster: &Cluster, at: usize, node: &str, seq: u64, wanted: (u64, u64)) -> io::Result<(u16, Value)> {
    let total = json!({"keep": wanted.0, "want": wanted.1});
    let ask = json!({"node": node, "incarnation": 7, "seq": seq, "total": total});
    call(cluster.addr(at), "POST", "/api/control/lease", &[], &ask.to_string())
}

fn end(cluster: &Cluster, at: usize, node: &str, incarnation: u64) -> u16 {
    let path = format!("/api/control/lease/{node}?incarnation={incarnation}");
    call(cluster.addr(at), "DELETE", &path, &[], "").unwrap().0
}

#[test]
fn any_replica_lends_and_takes_back_and_refuses_what_comes_late_or_without_a_quorum() {
    let mut cluster = Cluster::started();
    let leader = cluster.leader();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    assert_eq!(cluster.set_limit(leader, LIMIT, 10, "r1").unwrap().0, 200);
    let (status, first) = renew(&cluster, follower, "a", 1, (0, 7)).unwrap();
    assert_eq!(
        (status, &first["grant"]["total"], &first["grant"]["lease_ms"]),
        (200, &json!(7), &json!(10_000))
    );
    assert_eq!(first["grant"]["scarce"], false);
    let second = renew(&cluster, leader, "b", 1, (0, 7)).unwrap().1;
    assert_eq!((&second["grant"]["total"], &second["grant"]["scarce"]), (&json!(3), &json!(true)));
    assert!(second["revision"]["index"].as_u64() > first["revision"]["index"].as_u64());
    let late = renew(&cluster, leader, "a", 1, (0, 7)).unwrap();
    assert_eq!((late.0, &late.1["code"]), (409, &json!("version_conflict")), "{}", late.1);
    let nonsense = call(cluster.addr(leader), "POST", "/api/control/lease", &[], r#"{"node":"a"}"#).unwrap();
    assert_eq!((nonsense.0, &nonsense.1["code"]), (422, &json!("invalid_data")), "{}", nonsense.1);
    assert_eq!(end(&cluster, follower, "a", 6), 204, "another life, which holds nothing");
    assert_eq!(renew(&cluster, leader, "b", 2, (3, 7)).unwrap().1["grant"]["total"], 3);
    assert_eq!((end(&cluster, follower, "a", 7), end(&cluster, follower, "a", 7)), (204, 204));
    assert_eq!(renew(&cluster, leader, "b", 3, (3, 7)).unwrap().1["grant"]["total"], 7);
    (1..=3).filter(|id| *id != follower).for_each(|id| cluster.kill(id));
    let (refused, took) = timed(|| renew(&cluster, follower, "b", 4, (7, 7)).unwrap());
    assert_eq!((refused.0, &refused.1["code"]), (503, &json!("no_quorum")), "{}", refused.1);
    assert!(took < REFUSED_WITHIN, "{took:?}");
}

#[test]
fn many_renewals_change_no_view_and_are_known_after_a_restart() {
    let mut cluster = Cluster::new(3);
    (1..=3).for_each(|id| cluster.start_with(id, &[("HIVEOPS_CONTROL_SNAPSHOT_ENTRIES", "100")]));
    cluster.first_key();
    let leader = cluster.leader();
    assert_eq!(cluster.set_limit(leader, LIMIT, 10, "mine").unwrap().0, 200);
    let before = cluster.status(leader).unwrap();
    let (requests, took) = timed(|| {
        (1..=400)
            .map(|seq| renew(&cluster, leader, "a", seq, (1, 1)).unwrap().0)
            .filter(|code| *code == 200)
            .count()
    });
    println!("400 renewals one after the other took {took:?}");
    assert_eq!(requests, 400);
    let after = cluster.status(leader).unwrap();
    assert_eq!(before["revision"], after["revision"], "the view is the same");
    assert!(after["last_log_index"].as_u64() >= before["last_log_index"].as_u64().map(|index| index + 400));
    // A snapshot has taken the place of most of them.
    (1..=3).for_each(|id| cluster.kill(id));
    (1..=3).for_each(|id| cluster.start(id));
    let leader = cluster.leader();
    assert_eq!(renew(&cluster, leader, "a", 400, (1, 1)).unwrap().0, 409, "it is known what was asked last");
    assert_eq!(renew(&cluster, leader, "a", 401, (1, 10)).unwrap().1["grant"]["total"], 10);
}

#[test]
fn with_a_secret_nobody_else_borrows() {
    let mut cluster = Cluster::new(1);
    cluster.start_with(1, &[("HIVEOPS_CLUSTER_SECRET", "0123456789abcdef0123456789abcdef")]);
    assert_eq!(renew(&cluster, 1, "a", 1, (0, 1)).unwrap().0, 401);
    assert_eq!(end(&cluster, 1, "a", 7), 401);
}

#[test]
fn a_node_that_ends_in_order_gives_everything_back_at_once() {
    let cluster = Cluster::started();
    let leader = cluster.leader();
    assert_eq!(cluster.set_limit(leader, LIMIT, 4, "r1").unwrap().0, 200);
    let place = Place::new();
    let env =
        [("HIVEOPS_CONTROL", &*cluster.urls()), ("HIVEOPS_DRAIN_SECONDS", "0"), ("HIVEOPS_NODE_ID", "n")];
    let (mut node, url) = Running::node(&place, &["--data-dir", "node"], &env);
    let sessions: Vec<Socket> = (0..3).map(|_| Socket::with_a_place(&url, "dashboard")).collect();
    assert_eq!(renew(&cluster, leader, "other", 1, (0, 4)).unwrap().1["grant"]["total"], 1);
    node.signal(Signal::TERM);
    for mut socket in sessions {
        assert_eq!(socket.wait_for("disconnect_notice")["reason"], "draining");
    }
    assert_eq!(node.ended().code(), Some(0));
    assert_eq!(renew(&cluster, leader, "other", 2, (1, 4)).unwrap().1["grant"]["total"], 4);
}
