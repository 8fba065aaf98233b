//! What a replica exports: every name that the page lists and no other, and figures that move.

use std::collections::BTreeSet;
use std::io::{BufReader, Read as _};

use hiveops_testkit::prometheus::check_metrics;
use hiveops_testkit::wait::wait_for;

use super::cluster::{Cluster, call, head, send};
use super::watching::Nodes;

const LIMIT: &str = "idle_disconnect_seconds";

fn scrape(cluster: &Cluster, id: usize, headers: &[(&str, &str)]) -> (u16, String) {
    let mut stream = BufReader::new(send(cluster.addr(id), "GET", "/metrics", headers, "").unwrap());
    let (status, length) = head(&mut stream).unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (status, String::from_utf8(body).unwrap())
}

/// One figure of a replica, by its name and labels.
pub(crate) fn figure(cluster: &Cluster, id: usize, series: &str) -> f64 {
    let (status, text) = scrape(cluster, id, &[]);
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} is missing: {text}")).parse().unwrap()
}

#[test]
fn a_replica_exports_what_the_page_lists_and_no_more() {
    let mut cluster = Cluster::new(3);
    let secret = ("HIVEOPS_CLUSTER_SECRET", "0123456789abcdef");
    (1..=3).for_each(|id| cluster.start_with(id, &[secret]));
    let bearer = [("Authorization", "Bearer 0123456789abcdef")];
    // A leader knows how far the others are.
    let mut text = String::new();
    wait_for("a leader's figures", || {
        let led = (1..=3).map(|id| scrape(&cluster, id, &bearer).1);
        let led = led.into_iter().find(|text| text.contains("hiveops_control_follower_lag_entries{"));
        text = led.unwrap_or_default();
        !text.is_empty()
    })
    .unwrap();
    let (status, refused) = scrape(&cluster, 1, &[]);
    assert_eq!(status, 401, "{refused}");
    check_metrics(&text).unwrap();
    let exported: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let page = include_str!("../../../../docs/metrics.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Control replicas")).unwrap();
    let listed: BTreeSet<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("hiveops_"))
        .collect();
    assert!(exported.len() > 15);
    assert_eq!(exported, listed);
    let ours = |line: &str| line.starts_with("hiveops_control_") || line.starts_with("hiveops_auth_");
    assert!(text.lines().filter(|line| !line.starts_with('#')).all(ours));
}

#[test]
fn the_figures_follow_what_happens() {
    let mut cluster = Cluster::new(3);
    (1..=3).for_each(|id| cluster.start_with(id, &[("HIVEOPS_CONTROL_SNAPSHOT_ENTRIES", "10")]));
    let first = cluster.leader();
    cluster.first_key();
    let leader = if first == 1 { 2 } else { 1 };
    let transfer = format!("{{\"id\": {leader}}}");
    let (status, _) = call(cluster.addr(first), "POST", "/api/control/leader", &[], &transfer).unwrap();
    assert_eq!((status, cluster.leader()), (204, leader));
    let _nodes = Nodes::start(&cluster);
    let is = |series: &str, wanted: f64| figure(&cluster, leader, series) == wanted;
    let sum = |series: &str| (1..=3).map(|id| figure(&cluster, id, series)).sum::<f64>();
    assert_eq!(sum("hiveops_control_is_leader"), 1.0);
    assert!(sum("hiveops_control_quorum") == 3.0 && sum("hiveops_control_watchers") == 3.0);
    assert!(is("hiveops_control_keys{state=\"signing\"}", 1.0));
    wait_for("everybody to know both leaders", || {
        (1..=3).all(|id| figure(&cluster, id, "hiveops_control_leader_changes_total") >= 2.0)
    })
    .unwrap();
    assert!(figure(&cluster, leader, "hiveops_control_elections_total") >= 1.0);

    let done = "hiveops_control_proposals_total{outcome=\"done\"}";
    let (before, bytes) = (figure(&cluster, leader, done), sum("hiveops_control_log_bytes"));
    for value in 601..=630 {
        assert_eq!(cluster.set_limit(leader, LIMIT, value, &format!("r{value}")).unwrap().0, 200);
    }
    assert_eq!(cluster.set_limit(leader, LIMIT, 630, "again").unwrap().0, 200);
    assert_eq!(cluster.set_limit(leader, LIMIT, 0, "bad").unwrap().0, 422);
    // At least: nodes may have asked for something as well.
    let moved = |series: &str, by: f64| figure(&cluster, leader, series) >= by;
    assert!(moved(done, before + 30.0));
    assert!(moved("hiveops_control_proposals_total{outcome=\"unchanged\"}", 1.0));
    assert!(moved("hiveops_control_proposals_total{outcome=\"refused\"}", 1.0));
    assert!(moved("hiveops_control_refused_total{code=\"invalid_data\"}", 1.0));
    assert!(figure(&cluster, leader, "hiveops_control_proposal_seconds_count") >= before + 32.0);
    assert!(sum("hiveops_control_log_bytes") != bytes);
    let snapshots = "hiveops_control_snapshots_total{source=\"built\"}";
    wait_for("a snapshot", || figure(&cluster, leader, snapshots) >= 1.0).unwrap();
    assert!(figure(&cluster, leader, "hiveops_control_snapshot_bytes") > 1_000.0);
    assert!(figure(&cluster, leader, "hiveops_control_last_applied_index") >= 32.0);

    let others: Vec<usize> = (1..=3).filter(|id| *id != leader).collect();
    others.iter().for_each(|id| cluster.kill(*id));
    let lost = "hiveops_control_rpc_failures_total{kind=\"append\"}";
    wait_for("messages to be lost", || figure(&cluster, leader, lost) > 0.0).unwrap();
    assert_eq!(cluster.set_limit(leader, LIMIT, 700, "alone").unwrap().0, 503);
    assert!(figure(&cluster, leader, "hiveops_control_refused_total{code=\"no_quorum\"}") >= 1.0);
    wait_for("the quorum to be missed", || figure(&cluster, leader, "hiveops_control_quorum") == 0.0)
        .unwrap();
    let lag = format!("hiveops_control_follower_lag_entries{{replica=\"{}\"}}", others[0]);
    assert!(figure(&cluster, leader, &lag) >= 1.0, "the write that was not decided is in its own log");
}
