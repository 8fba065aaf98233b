//! Members that come and go, the lead that is handed over, limits from the command line, the watch stream.

use std::io::{BufRead as _, BufReader};

use serde_json::Value;

use super::cluster::{Cluster, head, send};
use crate::harness::{Place, hiveops, nobody};

const LIMIT: &str = "rate_limit_tokens_per_second";

fn run(cluster: &Cluster, args: &[&str]) -> String {
    let ran = hiveops(&[args, &["--control", &cluster.urls()]].concat());
    assert_eq!(ran.code, Some(0), "{args:?}: {}{}", ran.out, ran.err);
    ran.out
}

#[test]
fn limits_are_changed_and_previewed_and_nonsense_is_refused_with_every_reason() {
    let cluster = Cluster::started();
    let out = run(&cluster, &["limits", "set", "rate_limit_tokens_per_second=30", "--dry-run"]);
    assert!(
        out.contains("rate_limit_tokens_per_second  20 (default) -> 30") && out.contains("1 would change")
    );
    assert_eq!(cluster.limit(1, LIMIT), Some(20));
    let out = run(&cluster, &["limits", "set", "rate_limit_tokens_per_second=30"]);
    assert!(out.contains("1 changed"), "{out}");
    (1..=3).for_each(|id| cluster.caught_up(id));
    assert!((1..=3).all(|id| cluster.limit(id, LIMIT) == Some(30)));
    assert!(
        run(&cluster, &["limits", "set", "rate_limit_tokens_per_second=30"]).contains("nothing to change")
    );
    for (wrong, reasons) in [
        (
            &["rate_limit_tokens_per_second=0", "nonsense=1"][..],
            &["must be between 1", "unknown limit `nonsense`"][..],
        ),
        (&["rate_limit_burst_capacity=10"], &["rate_limit_burst_capacity (10) must not be below"]),
    ] {
        for dry_run in [true, false] {
            let mut args = [&["limits", "set"][..], wrong].concat();
            if dry_run {
                args.push("--dry-run");
            }
            let urls = cluster.urls();
            args.extend(["--control", &urls]);
            let ran = hiveops(&args);
            assert_eq!(ran.code, Some(1), "{}", ran.out);
            assert!(reasons.iter().all(|reason| ran.err.contains(reason)), "{}", ran.err);
        }
    }
    let ran = hiveops(&["limits", "set", "rate_limit_tokens_per_second=-1"]);
    assert!(ran.code == Some(2) && ran.err.contains("write it like name=5"), "{}", ran.err);
}

#[test]
fn a_replica_joins_the_lead_is_handed_over_and_a_replica_leaves() {
    let mut cluster = Cluster::new(4);
    let first_three: Vec<_> = (1..=3).map(|id| cluster.addr(id)).collect();
    (1..=3).for_each(|id| cluster.set_peers(id, super::cluster::list(&first_three)));
    (1..=3).for_each(|id| cluster.start(id));
    cluster.leader();
    // It finds the cluster by its list, follows, and gets a vote.
    cluster.start(4);
    let voter = |cluster: &Cluster, id: u64| {
        let leader = cluster.leader();
        let status = cluster.status(leader).unwrap();
        let members = status["members"].as_array().unwrap();
        members.iter().find(|member| member["id"] == id).map(|member| member["voter"] == true)
    };
    hiveops_testkit::wait::wait_for("replica 4 to vote", || voter(&cluster, 4) == Some(true)).unwrap();
    // Adding it again changes nothing.
    let address = format!("4={}", cluster.addr(4));
    assert!(run(&cluster, &["control", "add", &address]).contains("replica 4 has a vote"));
    assert!(run(&cluster, &["control", "transfer", "4"]).contains("replica 4 leads"));
    assert_eq!(cluster.leader(), 4);
    let status = run(&cluster, &["control", "status"]);
    for part in ["leader        4, term ", "quorum        yes", "member        4 ", "leads, lag 0"] {
        assert!(status.contains(part), "{status}");
    }
    // A member's lag may change between the two.
    hiveops_testkit::wait::wait_for("both to show the same", || {
        run(&cluster, &["status"]) == run(&cluster, &["control", "status"])
    })
    .unwrap();
    // Even the leader can leave, and then ends by itself.
    assert!(run(&cluster, &["control", "remove", "4"]).contains("is not a member any more"));
    assert!(cluster.replica(4).ended().success());
    let line = cluster.replica(4).err.wait(|line| line.contains("removed from the cluster"));
    assert!(line.contains("d4"), "{line}");
    assert_eq!(voter(&cluster, 4), None);
    run(&cluster, &["limits", "set", "rate_limit_tokens_per_second=31"]);
}

#[test]
fn a_watcher_gets_the_view_each_change_and_a_sign_of_life() {
    let cluster = Cluster::started();
    cluster.first_key();
    let follower = (1..=3).find(|id| *id != cluster.leader()).unwrap();
    cluster.caught_up(follower);
    let stream = send(cluster.addr(follower), "GET", "/api/control/watch", &[], "").unwrap();
    let mut stream = BufReader::new(stream);
    assert_eq!(head(&mut stream).unwrap().0, 200);
    // Lines of JSON between the lengths of chunks.
    let mut next = || loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream ended");
        if line.starts_with('{') {
            return serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    let first = next();
    assert_eq!((&first["kind"], &first["view"]["limits"][LIMIT]), (&"view".into(), &20.into()));
    let alive = next();
    assert_eq!((&alive["kind"], &alive["stale"]), (&"alive".into(), &false.into()));
    assert_eq!(alive["revision"], first["view"]["revision"]);
    assert_eq!(cluster.set_limit(1, LIMIT, 33, "r1").unwrap().0, 200);
    let changed = loop {
        let line = next();
        if line["kind"] == "view" {
            break line;
        }
    };
    assert_eq!(changed["view"]["limits"][LIMIT], 33);
    assert_eq!(changed["view"]["sources"][LIMIT], "control");
}

#[test]
fn what_a_cluster_starts_from_comes_from_the_environment_and_then_stays() {
    let mut cluster = Cluster::new(1);
    cluster.start_with(1, &[("WS_RATE_TOKENS_PER_SEC", "25"), ("HIVEOPS_LOG", "info")]);
    cluster.leader();
    assert_eq!(cluster.limit(1, LIMIT), Some(25));
    cluster.kill(1);
    cluster.start_with(1, &[("WS_RATE_TOKENS_PER_SEC", "35")]);
    cluster.leader();
    assert_eq!(cluster.limit(1, LIMIT), Some(25));
}

#[test]
fn a_secret_keeps_everybody_out_who_does_not_know_it() {
    const SECRET: &str = "0123456789abcdef";
    let mut cluster = Cluster::new(3);
    std::fs::write(cluster.place.dir.path().join("secret"), format!("{SECRET}\n")).unwrap();
    (1..=3).for_each(|id| cluster.start_with(id, &[("HIVEOPS_CLUSTER_SECRET_FILE", "secret")]));
    let run = |secret: Option<&str>| {
        let urls = cluster.urls();
        let args = ["control", "status", "--control", &urls];
        let env: Vec<(&str, &str)> =
            secret.map(|secret| ("HIVEOPS_CLUSTER_SECRET", secret)).into_iter().collect();
        cluster.place.run(&args, &env)
    };
    hiveops_testkit::wait::wait_for("a quorum", || run(Some(SECRET)).code == Some(0)).unwrap();
    for wrong in [None, Some("another-secret-of-16")] {
        let ran = run(wrong);
        assert!(ran.code == Some(1) && ran.err.contains("401 unauthorized"), "{}", ran.err);
    }
    let call = |method, path| super::cluster::call(cluster.addr(1), method, path, &[], "{}").unwrap().0;
    assert_eq!(call("POST", "/api/control/replica/vote"), 401);
    assert_eq!(call("GET", "/api/control/replica/hello"), 401);
    assert_eq!(call("GET", "/livez"), 200);
}

#[test]
fn without_a_replica_the_commands_say_so() {
    let url = nobody();
    for args in [&["control", "status"][..], &["status"], &["limits", "set", "a=1"]] {
        let ran = hiveops(&[args, &["--control", &url]].concat());
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains("cannot reach a control replica at") && ran.err.contains("hiveops control"));
    }
    let ran = Place::new().run(&["control", "status", "--control", "localhost:1"], &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}
