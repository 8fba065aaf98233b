//! Two of three replicas gone, and a replica that is down while the others go on.

use std::time::Duration;

use serde_json::json;

use super::cluster::{Cluster, timed};
use crate::harness::hiveops;

const LIMIT: &str = "idle_disconnect_seconds";
/// Promised are a second for a refusal and three for the return of a quorum, of which a decision may take
/// 800 ms. On a busy machine a process may not run for that long, so these are only sure not to be a wait
/// without end; how long it took is printed.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
const BACK_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn without_a_quorum_a_write_is_refused_soon_and_works_again_when_one_is_back() {
    let mut cluster = Cluster::started();
    let leader = cluster.leader();
    assert_eq!(cluster.set_limit(leader, LIMIT, 700, "r1").unwrap().0, 200);
    let others: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    for id in &others {
        cluster.caught_up(*id);
    }
    // The leader is left alone, and then a follower is.
    for (left, gone) in [(leader, others.clone()), (others[0], vec![leader, others[1]])] {
        gone.iter().for_each(|id| cluster.kill(*id));
        for attempt in 0..3 {
            let request = format!("r{left}");
            let (answer, took) = timed(|| cluster.set_limit(left, LIMIT, 700 + left as u64, &request));
            let (status, problem) = answer.unwrap();
            assert_eq!((status, &problem["code"]), (503, &json!("no_quorum")), "{problem}");
            assert!(problem["correlation_id"].is_string() && problem["type"] == "/problems/no_quorum");
            println!("attempt {attempt} at {left} was refused after {took:?}");
            assert!(took < REFUSED_WITHIN, "attempt {attempt} at {left} was refused after {took:?}");
        }
        assert!(cluster.limit(left, LIMIT).is_some(), "the view is there without a quorum");
        let ran = hiveops(&["control", "status", "--control", &cluster.url(left)]);
        assert!(ran.code == Some(1) && ran.out.contains("NO: nothing can be changed"), "{}", ran.out);
        gone.iter().for_each(|id| cluster.start(*id));
        let ((), took) = timed(|| {
            let request = format!("back{left}");
            hiveops_testkit::wait::wait_for("a write", || {
                cluster
                    .set_limit(left, LIMIT, 800 + left as u64, &request)
                    .is_ok_and(|(status, _)| status == 200)
            })
            .unwrap();
            (1..=3).for_each(|id| cluster.caught_up(id));
        });
        println!("writes work again {took:?} after the replicas came back");
        assert!(took < BACK_WITHIN, "{took:?}");
        assert!((1..=3).all(|id| cluster.limit(id, LIMIT) == Some(800 + left as u64)));
    }
}

#[test]
fn a_replica_that_was_away_gets_what_it_missed_and_all_survive_a_restart_of_all() {
    let mut cluster = Cluster::started();
    let away = (1..=3).find(|id| *id != cluster.leader()).unwrap();
    cluster.kill(away);
    let leader = cluster.leader();
    for value in 1..=40 {
        assert_eq!(cluster.set_limit(leader, LIMIT, 1_000 + value, &format!("r{value}")).unwrap().0, 200);
    }
    cluster.start(away);
    cluster.caught_up(away);
    assert_eq!(cluster.limit(away, LIMIT), Some(1_040));
    (1..=3).for_each(|id| cluster.kill(id));
    // What was known to be agreed on is shown even before there is a leader.
    cluster.start(leader);
    assert_eq!(cluster.limit(leader, LIMIT), Some(1_040));
    (1..=3).filter(|id| *id != leader).for_each(|id| cluster.start(id));
    cluster.leader();
    (1..=3).for_each(|id| cluster.caught_up(id));
    assert!((1..=3).all(|id| cluster.limit(id, LIMIT) == Some(1_040)));
}

#[test]
fn a_replica_that_was_away_for_long_gets_a_snapshot_and_starts_from_it() {
    let mut cluster = Cluster::new(3);
    let env = [("HIVEOPS_CONTROL_SNAPSHOT_ENTRIES", "20")];
    (1..=3).for_each(|id| cluster.start_with(id, &env));
    let away = (1..=3).find(|id| *id != cluster.leader()).unwrap();
    cluster.caught_up(away);
    cluster.kill(away);
    let leader = cluster.leader();
    for value in 1..=100 {
        assert_eq!(cluster.set_limit(leader, LIMIT, 1_000 + value, &format!("r{value}")).unwrap().0, 200);
    }
    let place = cluster.place.dir.path().to_owned();
    let purged = |id: usize| place.join(format!("d{id}/purged")).exists();
    hiveops_testkit::wait::wait_for("the front of the log to go", || purged(leader)).unwrap();
    assert!(!purged(away));
    cluster.start_with(away, &env);
    cluster.caught_up(away);
    assert_eq!(cluster.limit(away, LIMIT), Some(1_100));
    assert!(purged(away) && place.join(format!("d{away}/snapshot")).exists());
    // What a request was answered is in the snapshot, and so is everything else after a restart of all.
    let (_, first) = cluster.set_limit(leader, LIMIT, 1_050, "r50").unwrap();
    (1..=3).for_each(|id| cluster.kill(id));
    (1..=3).for_each(|id| cluster.start_with(id, &env));
    cluster.leader();
    let (status, again) = cluster.set_limit(away, LIMIT, 1_050, "r50").unwrap();
    assert_eq!((status, &again["decided"]["revision"]), (200, &first["decided"]["revision"]));
    (1..=3).for_each(|id| cluster.caught_up(id));
    assert!((1..=3).all(|id| cluster.limit(id, LIMIT) == Some(1_100)));
}
