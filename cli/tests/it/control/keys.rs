//! Signing keys: made by the leader, published to every node before they sign, and never seen by anybody.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::cluster::{Cluster, call};
use super::watching::Nodes;
use crate::harness::Ran;

const JWKS: &str = "/.well-known/jwks.json";

fn run(cluster: &Cluster, args: &[&str]) -> Ran {
    let urls = cluster.urls();
    cluster.place.run(&[&["keys"], args, &["--control", &urls]].concat(), &[])
}

/// The keys as the leader lists them.
fn list(cluster: &Cluster) -> Vec<Value> {
    let ran = run(cluster, &["list", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    answer["keys"].as_array().unwrap().clone()
}

fn words<'a>(keys: &'a [Value], member: &str) -> Vec<&'a str> {
    keys.iter().map(|key| key[member].as_str().unwrap()).collect()
}

#[test]
fn a_new_cluster_has_a_key_and_a_rotated_one_is_on_every_node_before_it_signs() {
    let cluster = Cluster::started();
    cluster.first_key();
    let nodes = Nodes::start(&cluster);
    let first = list(&cluster);
    assert_eq!(words(&first, "state"), ["signing"]);
    let begun = nodes.until(JWKS, "the first key", |set| set["keys"].as_array().unwrap().len() == 1);

    let rotated = run(&cluster, &["rotate"]);
    assert_eq!(rotated.code, Some(0), "{}", rotated.err);
    let kid = rotated.out.split(' ').nth(1).unwrap();
    let sets = nodes.until(JWKS, "both keys", |set| set["keys"].as_array().unwrap().len() == 2);
    let keys = list(&cluster);
    assert_eq!(words(&keys, "state"), ["signing", "published"], "every node had it before it signs");
    assert_eq!(words(&keys, "kid")[1], kid);
    for set in &sets {
        assert_eq!(set, &sets[0], "the nodes agree");
        assert_eq!(set["keys"][0], begun[0]["keys"][0], "the old key is as it was");
    }
    for (shown, key) in sets[0]["keys"].as_array().unwrap().iter().zip(&keys) {
        let wanted = json!({
            "kty": "OKP", "crv": "Ed25519", "x": key["x"], "kid": key["kid"], "use": "sig", "alg": "EdDSA",
        });
        assert_eq!(shown, &wanted);
    }
    let table = run(&cluster, &["list"]).out;
    assert!(table.contains(&format!("{kid}  published, signs from ")), "{table}");

    let again = run(&cluster, &["rotate"]);
    assert!(again.code == Some(1) && again.err.contains("a rotation is under way until"), "{}", again.err);
    let urgent = run(&cluster, &["rotate", "--urgent"]);
    assert_eq!(urgent.code, Some(0), "{}", urgent.err);
    let kid = urgent.out.split(' ').nth(1).unwrap();
    let only = |set: &Value| set["keys"].as_array().unwrap().len() == 1 && set["keys"][0]["kid"] == kid;
    nodes.until(JWKS, "only the urgent key", only);
    assert_eq!(words(&list(&cluster), "state"), ["signing"]);
}

#[test]
fn a_repeated_rotation_is_one_rotation_also_under_another_leader() {
    let mut cluster = Cluster::started();
    cluster.first_key();
    let rotate = |cluster: &Cluster, id: usize| {
        let headers = [("Idempotency-Key", "rotate-1")];
        call(cluster.addr(id), "POST", "/api/control/keys/rotate", &headers, "{}").unwrap()
    };
    let leader = cluster.leader();
    let (status, first) = rotate(&cluster, leader);
    assert_eq!(status, 200, "{first}");
    let before = list(&cluster);
    cluster.kill(leader);
    let next = cluster.leader();
    let (status, second) = rotate(&cluster, next);
    assert_eq!(status, 200, "{second}");
    for member in ["kid", "sign_from"] {
        assert_eq!(first[member], second[member]);
    }
    assert_eq!(first["decided"]["revision"], second["decided"]["revision"]);
    assert_ne!(first["decided"]["leader"], second["decided"]["leader"]);
    assert_eq!(list(&cluster), before, "the keys and their times are what they were");
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The private keys in what a replica has stored.
pub(crate) fn private_keys(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(directory) {
        let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        for rest in text.split("\"private").skip(1) {
            let rest = rest.trim_start_matches(['\\', '"', ':']);
            let end = rest.find(['\\', '"']).unwrap();
            found.push(rest[..end].to_owned());
        }
    }
    found
}

#[test]
pub(crate) fn private_keys_are_on_the_replicas_disks_and_nowhere_else() {
    let mut cluster = Cluster::new(3);
    let env = [("HIVEOPS_LOG", "trace"), ("HIVEOPS_CONTROL_SNAPSHOT_ENTRIES", "10")];
    (1..=3).for_each(|id| cluster.start_with(id, &env));
    cluster.leader();
    cluster.first_key();
    let mut seen = run(&cluster, &["rotate"]).out;
    for value in 601..630 {
        let request = format!("r{value}");
        assert_eq!(cluster.set_limit(1, "idle_disconnect_seconds", value, &request).unwrap().0, 200);
    }
    seen.push_str(&run(&cluster, &["rotate", "--urgent"]).out);
    (1..=3).for_each(|id| cluster.caught_up(id));
    for path in ["/api/control/keys", "/api/control/view", "/api/control/status", "/api/control/contract"] {
        seen.push_str(&call(cluster.addr(1), "GET", path, &[], "").unwrap().1.to_string());
    }
    let mut logged = 0;
    for id in 1..=3 {
        let lines = cluster.replica(id).err.all();
        logged += lines.len();
        seen.push_str(&lines.join("\n"));
    }
    assert!(logged > 1_000, "trace logs {logged} lines");
    let mut keys = Vec::new();
    for id in 1..=3 {
        let directory = cluster.place.dir.path().join(format!("d{id}"));
        keys.extend(private_keys(&directory));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("log"))), (0o700, 0o700));
        let files = files(&directory);
        for name in ["vote", "identity", "snapshot"] {
            assert!(files.iter().any(|file| file.ends_with(name)), "there is no {name}");
        }
        files.iter().for_each(|file| assert_eq!(mode(file), 0o600, "{}", file.display()));
    }
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() >= 2 && keys.iter().all(|key| key.len() > 60), "{} keys were found", keys.len());
    for key in keys {
        // A part of it would be enough to be a leak.
        assert!(!seen.contains(&key[40..60]), "a private key was seen");
    }
}
