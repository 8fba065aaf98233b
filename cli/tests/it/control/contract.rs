//! Contract versions: a push comes into force everywhere, and what must not is refused with every reason.

use std::fs;

use serde_json::{Value, json};

use super::cluster::{Cluster, call};
use super::watching::Nodes;
use crate::harness::{Place, Ran, hiveops};

const CONTRACT: &str = "/api/dashboard/websocket/contract";

/// The built-in contract, changed, as a file of the place.
fn write(place: &Place, name: &str, version: &str, change: impl FnOnce(&mut Vec<Value>)) -> String {
    let mut contract: Value = serde_json::from_str(hiveops_proto::CONTRACT).unwrap();
    contract["version"] = json!(version);
    change(contract["subscriptions"].as_array_mut().unwrap());
    let text = serde_json::to_string_pretty(&contract).unwrap();
    fs::write(place.dir.path().join(name), &text).unwrap();
    text
}

fn builds(subscriptions: &mut Vec<Value>) {
    let message = json!({"type": "build_update", "kind": "update", "key": "id", "data": {"type": "object"}});
    subscriptions.push(json!({"name": "builds", "messages": [message]}));
}

fn without_tasks(subscriptions: &mut Vec<Value>) {
    subscriptions.retain(|subscription| subscription["name"] != "tasks");
}

fn run(cluster: &Cluster, args: &[&str]) -> Ran {
    let urls = cluster.urls();
    cluster.place.run(&[&["contract"], args, &["--control", &urls]].concat(), &[])
}

#[track_caller]
fn says(ran: &Ran, code: i32, parts: &[&str]) {
    let said = format!("{}{}", ran.out, ran.err);
    assert_eq!(ran.code, Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "`{part}` is missing: {said}");
    }
}

#[test]
fn a_pushed_minor_version_is_the_same_on_every_node_and_a_dry_run_changes_nothing() {
    let cluster = Cluster::started();
    cluster.first_key();
    let nodes = Nodes::start(&cluster);
    let text = write(&cluster.place, "next.json", "1.1.0", builds);
    let digest = hiveops_proto::digest(&text);
    let told = ["1.0.0 -> 1.1.0, a comparison finds: minor", "  minor  builds: a new subscription", &digest];
    let dry = run(&cluster, &["push", "next.json", "--dry-run"]);
    says(&dry, 0, &told);
    says(&dry, 0, &["1.1.0 would be put in force"]);
    says(&run(&cluster, &["show"]), 0, &["version    1.0.0", "supported  1.0.0\n"]);

    let pushed = run(&cluster, &["push", "next.json"]);
    says(&pushed, 0, &told);
    let revision = pushed.out.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(pushed.out.contains(&format!("1.1.0 is in force, revision {revision}")), "{}", pushed.out);
    let shown = nodes.until(CONTRACT, "1.1.0 on every node", |shown| shown["current_version"] == "1.1.0");
    for shown in &shown {
        assert_eq!(shown["contract_digest"], digest.as_str());
        let (term, index) = (&shown["revision"]["term"], &shown["revision"]["index"]);
        assert_eq!(format!("{term}.{index}"), revision);
        assert_eq!(shown["supported_versions"], json!(["1.0.0", "1.1.0"]));
        assert!(shown["subscriptions"].to_string().contains("build_update"));
    }
    let lines = ["version    1.1.0", &format!("digest     {digest}"), &format!("revision   {revision}")];
    says(&hiveops(&["contract", "show", "--url", &nodes.urls[0]]), 0, &lines);
    (1..=3).for_each(|id| cluster.caught_up(id));
    let shown = run(&cluster, &["show"]);
    says(&shown, 0, &lines);
    says(&shown, 0, &["  1.0.0 of ", ", first", "  1.1.0 of ", ", minor"]);
    assert_eq!(run(&cluster, &["show", "--document"]).out, text, "to the byte");
    says(&run(&cluster, &["push", "next.json"]), 0, &["nothing to change: 1.1.0 is in force already"]);
}

#[test]
fn a_major_version_needs_its_label_and_a_note_and_clients_are_told_what_is_supported() {
    let cluster = Cluster::started();
    write(&cluster.place, "next.json", "2.0.0", without_tasks);
    let gone = "tasks: the subscription is gone";
    let unlabelled = ["must be labelled as one", gone, "a major change needs a migration note"];
    says(&run(&cluster, &["push", "next.json"]), 1, &unlabelled);
    says(&run(&cluster, &["push", "next.json", "--dry-run"]), 1, &unlabelled);
    let wrong = run(&cluster, &["push", "next.json", "--level", "minor", "--migration-note", "x"]);
    says(&wrong, 1, &["it is labelled minor, but it is a major change", gone]);
    let major = ["push", "next.json", "--level", "major"];
    says(&run(&cluster, &major), 1, &["a major change needs a migration note"]);
    let note = "join `work`: https://example.org/2";
    let noted = [&major[..], &["--migration-note", note]].concat();
    says(&run(&cluster, &noted), 0, &["1.0.0 -> 2.0.0, a comparison finds: major", gone, "is in force"]);
    (1..=3).for_each(|id| cluster.caught_up(id));
    says(&run(&cluster, &["show"]), 0, &["supported  1.0.0, 2.0.0", &format!(", major: {note}")]);

    says(&run(&cluster, &["support", "--versions", "1.0.0"]), 1, &["2.0.0 is in force and must be"]);
    says(&run(&cluster, &["support", "--versions", "1"]), 2, &["1"]);
    says(&run(&cluster, &["support", "--versions", "2.0.0"]), 0, &["changed, revision "]);
    says(&run(&cluster, &["support", "--versions", "2.0.0"]), 0, &["nothing to change"]);
    let policy = ["support", "--policy", "sunset", "--notice", "1.x ends in May."];
    says(&run(&cluster, &policy), 0, &["changed, revision "]);
    (1..=3).for_each(|id| cluster.caught_up(id));
    says(&run(&cluster, &["show"]), 0, &["supported  2.0.0\n", "policy     sunset"]);
}

#[test]
fn a_file_that_is_no_contract_is_a_wrong_input_and_a_version_that_does_not_fit_is_refused() {
    let cluster = Cluster::started();
    let put = |name: &str, text: &str| fs::write(cluster.place.dir.path().join(name), text).unwrap();
    put("text.json", "version: 1.1.0");
    put("other.json", r#"{"name": "x"}"#);
    put("empty.json", r#"{"version": "1.1.0", "subscriptions": []}"#);
    put("large.json", &" ".repeat(524_289));
    for (file, problem) in [
        ("nowhere.json", "`nowhere.json` cannot be read: No such file"),
        ("text.json", "`text.json` is not JSON: expected value at line 1 column 1"),
        ("other.json", "`other.json` is not a contract: missing field `version`"),
        ("empty.json", "`empty.json` is not a contract: a contract declares 1 to 64 subscriptions, not 0"),
        ("large.json", "`large.json` has more than 524288 bytes"),
    ] {
        says(&run(&cluster, &["push", file]), 2, &[problem]);
    }
    says(&run(&cluster, &["push", "text.json", "--level", "huge"]), 2, &["huge"]);
    write(&cluster.place, "older.json", "0.9.0", builds);
    says(&run(&cluster, &["push", "older.json"]), 1, &["a minor change is version 1.1.0, not 0.9.0"]);
    write(&cluster.place, "same.json", "1.0.0", builds);
    let same = run(&cluster, &["push", "same.json"]);
    says(&same, 1, &["there is a version 1.0.0 already, and it is another document (sha256:"]);
    says(&same, 1, &["a minor change is version 1.1.0, not 1.0.0"]);
    write(&cluster.place, "schema.json", "1.1.0", |all| all[0]["messages"][0]["data"] = json!({"type": "x"}));
    says(&run(&cluster, &["push", "schema.json"]), 1, &["the data schema of message type `agent_update`"]);

    // The same over HTTP, with every reason at once.
    let push =
        |body: Value| call(cluster.addr(1), "POST", "/api/control/contract", &[], &body.to_string()).unwrap();
    let text = write(&cluster.place, "next.json", "3.0.0", without_tasks);
    let (status, problem) = push(json!({"document": text, "dry_run": true}));
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_data")));
    let detail = problem["detail"].as_str().unwrap();
    for reason in ["must be labelled", "needs a migration note", "is version 2.0.0, not 3.0.0"] {
        assert!(detail.contains(reason), "{detail}");
    }
    assert_eq!(push(json!({"document": " ".repeat(524_289)})).0, 422);
    assert_eq!(push(json!({"document": " ".repeat(4 * 1_048_576)})).0, 413);
    assert_eq!(push(json!({"dry_run": true})).0, 422);
    assert_eq!(push(json!({"document": text, "labl": "major"})).0, 422);
    says(&run(&cluster, &["show"]), 0, &["version    1.0.0"]);
}
