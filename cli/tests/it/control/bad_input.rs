//! What people get wrong, and what disks do: a clear message, and no damage.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use hiveops_testkit::process::Process;
use hiveops_testkit::wait::{PATIENCE, wait_for_some};

use super::cluster::{Cluster, list};
use crate::harness::{Place, Ran};

const LIMIT: &str = "idle_disconnect_seconds";

/// Runs a replica that is expected to end by itself.
fn replica(place: &Place, args: &[String], env: &[(&str, &str)]) -> Ran {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    place.run(&args, env)
}

/// With other values for some flags.
fn with(mut args: Vec<String>, changes: &[(&str, &str)]) -> Vec<String> {
    for (flag, value) in changes {
        let at = args.iter().position(|arg| arg == flag).unwrap();
        args[at + 1] = (*value).to_owned();
    }
    args
}

fn segment(cluster: &Cluster, id: usize) -> PathBuf {
    let directory = cluster.place.dir.path().join(format!("d{id}/log"));
    fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn every_mistake_of_the_configuration_is_named_at_once() {
    let place = Place::new();
    fs::write(place.dir.path().join("c.toml"), "id = 1\nlistn = \"x\"\n[limits]\nnonsense = 1\n").unwrap();
    let args = ["control", "--config", "c.toml", "--peers", "1=a"].map(str::to_owned);
    let env = [("HIVEOPS_CONTROL_PEER", "x"), ("WS_RATE_BURST", "0"), ("HIVEOPS_LISTN", "y")];
    let ran = replica(&place, &args, &env);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    for part in [
        "there are 7 mistakes",
        "listn (c.toml, key listn): there is no such setting",
        "HIVEOPS_CONTROL_PEER",
        "HIVEOPS_LISTN",
        "did you mean HIVEOPS_LISTEN?",
        "nonsense",
        "rate_limit_burst_capacity",
        "which is not id=host:port",
        "data_dir: is required",
    ] {
        assert!(ran.err.contains(part), "{part} is missing: {}", ran.err);
    }
    assert_eq!(place.run(&["control", "--idd", "1"], &[]).code, Some(2));
}

#[test]
fn a_second_replica_of_the_same_id_does_not_start() {
    let cluster = Cluster::started();
    let changes = [("--listen", "127.0.0.1:0"), ("--data-dir", "other")];
    let ran = replica(&cluster.place, &with(cluster.args(2), &changes), &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("two replicas have id 2: this one, and the one at"), "{}", ran.err);
    // Nor does one that says it is elsewhere.
    let elsewhere = hiveops_testkit::port::Port::claim().unwrap().addr();
    let peers = list(&[cluster.addr(1), elsewhere, cluster.addr(3)]);
    let changes = [("--listen", &*elsewhere.to_string()), ("--data-dir", "other"), ("--peers", &peers)];
    let ran = replica(&cluster.place, &with(cluster.args(2), &changes), &[]);
    assert!(
        ran.err.contains("replica 2 is a member of cluster") && ran.err.contains("is empty"),
        "{}",
        ran.err
    );
    // Nor one in the same directory.
    let ran = replica(&cluster.place, &with(cluster.args(2), &[("--listen", "127.0.0.1:0")]), &[]);
    assert!(ran.err.contains("d2 is in use by another process"), "{}", ran.err);
    assert_eq!(cluster.set_limit(1, LIMIT, 601, "r").unwrap().0, 200);
}

#[test]
fn lists_of_peers_that_disagree_make_no_cluster() {
    let mut cluster = Cluster::new(3);
    cluster.set_peers(3, list(&[cluster.addr(2), cluster.addr(1), cluster.addr(3)]));
    cluster.start(1);
    let ran = replica(&cluster.place, &cluster.args(3), &[]);
    assert!(ran.code == Some(1) && ran.err.contains("has id 1, but this one's list"), "{}", ran.err);
    let first_two = list(&[cluster.addr(1), cluster.addr(2)]);
    cluster.set_peers(2, first_two.clone());
    cluster.start(2);
    // Whoever sees it first says it and ends; the other one waits for it.
    let said = wait_for_some("one of them to say it", PATIENCE, || {
        let mut lines = [1, 2].into_iter().flat_map(|id| cluster.replica(id).err.all());
        Ok(lines.find(|line| line.contains("the lists of peers disagree, so no cluster is made")))
    });
    let said = said.unwrap();
    assert!(said.contains(&format!("`{first_two}`")), "{said}");
    assert!(
        !cluster.place.dir.path().join("d1/vote").exists()
            && !cluster.place.dir.path().join("d2/vote").exists()
    );
}

#[test]
fn the_directory_of_another_cluster_or_another_replica_is_not_used() {
    let (mut ours, mut theirs) = (Cluster::started(), Cluster::started());
    assert_eq!(theirs.set_limit(1, LIMIT, 601, "r").unwrap().0, 200);
    (1..=3).for_each(|id| theirs.caught_up(id));
    theirs.kill(2);
    ours.kill(2);
    let other = theirs.place.dir.path().join("d2");
    let ran = replica(&ours.place, &with(ours.args(2), &[("--data-dir", other.to_str().unwrap())]), &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("belongs to cluster") && ran.err.contains("is part of cluster"), "{}", ran.err);
    assert!(ran.err.contains(other.to_str().unwrap()), "{}", ran.err);
    let other = theirs.place.dir.path().join("d2");
    let ran = replica(&ours.place, &with(ours.args(1), &[("--data-dir", other.to_str().unwrap())]), &[]);
    assert!(ran.err.contains("belongs to replica 2, not to replica 1"), "{}", ran.err);
    // Neither is any the worse for it.
    for cluster in [&mut ours, &mut theirs] {
        cluster.start(2);
        cluster.caught_up(2);
    }
    assert_eq!((ours.limit(2, LIMIT), theirs.limit(2, LIMIT)), (Some(600), Some(601)));
}

#[test]
fn a_torn_tail_is_cut_off_and_damage_before_it_stops_the_replica() {
    let mut cluster = Cluster::new(1);
    cluster.start(1);
    cluster.leader();
    for n in 1..=5 {
        assert_eq!(cluster.set_limit(1, LIMIT, 600 + n, &format!("r{n}")).unwrap().0, 200);
    }
    cluster.kill(1);
    let path = segment(&cluster, 1);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    cluster.start(1);
    let line = cluster.replica(1).err.wait(|line| line.contains("unfinished end of the log cut off"));
    assert!(
        line.contains(path.file_name().unwrap().to_str().unwrap()) && line.contains("\"offset\":"),
        "{line}"
    );
    cluster.leader();
    cluster.kill(1);
    let mut damaged = fs::read(&path).unwrap();
    damaged[100] ^= 4;
    fs::write(&path, &damaged).unwrap();
    let ran = replica(&cluster.place, &cluster.args(1), &[]);
    assert_eq!(ran.code, Some(1));
    let place =
        format!("{} is corrupt at offset ", path.strip_prefix(cluster.place.dir.path()).unwrap().display());
    assert!(ran.err.contains(&place), "{}", ran.err);
    assert_eq!(fs::read(&path).unwrap(), damaged, "the evidence is left as it is");
}

#[test]
fn a_full_disk_stops_the_replica_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new(1);
    // Files of 64 KiB at most: the same as a disk without room, for a process that ignores the signal.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_hiveops")]);
    command.args(cluster.args(1)).current_dir(cluster.place.dir.path());
    let log = cluster.place.dir.path().join("output");
    let mut process = Process::start("replica", &command, &log).unwrap();
    let mut acked = 600;
    let status = wait_for_some("the disk to be full", PATIENCE, || {
        let request = format!("r{acked}");
        if let Ok((200, _)) = cluster.set_limit(1, LIMIT, acked + 1, &request) {
            acked += 1;
        }
        process.ended()
    });
    assert_eq!(status.unwrap().code(), Some(1), "{}", process.output());
    assert!(acked > 610, "{acked}");
    let output = process.output();
    let last = output.lines().last().unwrap();
    assert!(last.starts_with("hiveops: replica 1 stops: cannot write ") && last.contains(".log: "), "{last}");
    cluster.start(1);
    cluster.leader();
    let found = cluster.limit(1, LIMIT).unwrap();
    println!("{} writes acknowledged before the disk was full, {} found again", acked - 600, found - 600);
    assert!(found == acked || found == acked + 1, "{acked} was acknowledged, {found} is there");
    assert_eq!(cluster.set_limit(1, LIMIT, 900, "after").unwrap().0, 200);
}
