//! What the registry lets in.

use serde_json::{Value, json};

use super::*;

fn registry() -> Registry {
    let policy = DeprecationPolicy::default();
    Registry::new(hiveops_proto::CONTRACT.to_owned(), policy, "sha256:00".to_owned(), Timestamp::default())
        .unwrap()
}

fn version(text: &str) -> ContractVersion {
    text.parse().unwrap()
}

/// The built-in contract, changed.
fn document(number: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut contract: Value = serde_json::from_str(hiveops_proto::CONTRACT).unwrap();
    contract["version"] = json!(number);
    change(&mut contract["subscriptions"]);
    contract.to_string()
}

fn push(document: String) -> Push {
    Push { document, label: None, migration_note: None, supported: None }
}

fn builds(subscriptions: &mut Value) {
    subscriptions.as_array_mut().unwrap().push(json!({"name": "builds", "messages": []}));
}

fn without_tasks(subscriptions: &mut Value) {
    subscriptions.as_array_mut().unwrap().retain(|subscription| subscription["name"] != "tasks");
}

#[track_caller]
fn refused(registry: &Registry, push: &Push, reason: &str) {
    let refusal = registry.preview(push).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Invalid);
    assert!(refusal.to_string().contains(reason), "{refusal}");
}

#[test]
fn a_minor_version_comes_into_force_and_the_one_before_stays_supported() {
    let mut registry = registry();
    let push = push(document("1.1.0", builds));
    let preview = registry.preview(&push).unwrap();
    let pushed = registry.push(push, Timestamp::default()).unwrap();
    assert_eq!(pushed, preview, "a preview tells what happens");
    assert_eq!((pushed.level, pushed.version), (Level::Minor, version("1.1.0")));
    let view = registry.view();
    assert_eq!(view.supported_versions, [version("1.0.0"), version("1.1.0")]);
    assert!(view.current.subscription("builds").is_some());
    assert_eq!(registry.active().1.digest, pushed.digest);
}

#[test]
fn the_number_must_fit_the_change() {
    let registry = registry();
    for number in ["1.0.0", "1.0.1", "1.2.0", "2.0.0", "0.9.0", "1.1.1"] {
        refused(&registry, &push(document(number, builds)), "a minor change is version 1.1.0");
    }
    let text = |subscriptions: &mut Value| subscriptions[0]["description"] = json!("Agents.");
    refused(&registry, &push(document("1.1.0", text)), "a patch change is version 1.0.1");
    refused(&registry, &push(document("1.0.1", |_| {})), "nothing is different from 1.0.0");
}

#[test]
fn a_major_change_needs_its_label_and_a_note() {
    let mut registry = registry();
    let mut push = push(document("2.0.0", without_tasks));
    refused(&registry, &push, "this is a major change and must be labelled as one");
    push.label = Some(Level::Minor);
    refused(&registry, &push, "it is labelled minor, but it is a major change");
    push.label = Some(Level::Major);
    push.migration_note = Some("  ".to_owned());
    refused(&registry, &push, "a major change needs a migration note");
    push.migration_note = Some("join `work` instead of `tasks`".to_owned());
    let pushed = registry.push(push, Timestamp::default()).unwrap();
    assert_eq!(pushed.level, Level::Major);
    assert_eq!(pushed.changes[0].path, "tasks");
    assert!(registry.active().1.migration_note.is_some());
}

#[test]
fn a_change_of_meaning_can_be_labelled_more_than_it_looks() {
    let text = |subscriptions: &mut Value| subscriptions[0]["description"] = json!("Agents.");
    let mut push = push(document("2.0.0", text));
    push.label = Some(Level::Major);
    push.migration_note = Some("`id` now is the agent's serial number".to_owned());
    assert_eq!(registry().push(push, Timestamp::default()).unwrap().level, Level::Patch);
}

#[test]
fn pushing_what_is_in_force_changes_nothing() {
    let mut registry = registry();
    let before = registry.clone();
    let pushed = registry.push(push(hiveops_proto::CONTRACT.to_owned()), Timestamp::default()).unwrap();
    assert_eq!((pushed.level, pushed.version), (Level::Same, version("1.0.0")));
    assert_eq!(registry, before);
}

#[test]
fn a_version_is_one_document_for_ever() {
    let mut registry = registry();
    // The same meaning in other bytes would have another digest than the one that every node shows.
    refused(
        &registry,
        &push(document("1.0.0", |_| {})),
        "there is a version 1.0.0 already, and it is another",
    );
    registry.push(push(document("1.1.0", builds)), Timestamp::default()).unwrap();
    let old = push(document("1.0.0", builds));
    refused(&registry, &old, "there is a version 1.0.0 already, and it is another document (sha256:");
    refused(&registry, &push(hiveops_proto::CONTRACT.to_owned()), "is version 2.0.0, not 1.0.0");
}

#[test]
fn a_refusal_names_the_changes_that_led_to_it() {
    let registry = registry();
    refused(&registry, &push(document("2.0.0", without_tasks)), "(tasks: the subscription is gone)");
    let all = |subscriptions: &mut Value| {
        let builds = json!([{"name": "builds", "messages": []}]);
        *subscriptions = builds;
    };
    let refusal = registry.preview(&push(document("2.0.0", all))).unwrap_err().to_string();
    assert_eq!(refusal.matches("the subscription is gone").count(), 6, "{refusal}");
}

#[test]
fn what_no_node_could_use_is_refused() {
    let registry = registry();
    let many = |subscriptions: &mut Value| {
        for number in 0..59 {
            let name = format!("more_{number}");
            subscriptions.as_array_mut().unwrap().push(json!({"name": name, "messages": []}));
        }
    };
    refused(&registry, &push(document("1.1.0", many)), "1 to 64 subscriptions, not 65");
    let broken =
        |subscriptions: &mut Value| subscriptions[0]["messages"][0]["data"] = json!({"type": "thing"});
    refused(&registry, &push(document("1.1.0", broken)), "the data schema of message type `agent_update`");
    let away = |subscriptions: &mut Value| {
        subscriptions[0]["messages"][0]["data"] = json!({"$ref": "http://127.0.0.1:1/x.json"});
    };
    refused(&registry, &push(document("1.1.0", away)), "the data schema of message type `agent_update`");
    refused(&registry, &push("{".to_owned()), "EOF while parsing");
    refused(&registry, &push(" ".repeat(CONTRACT_BYTES_MAX + 1)), "at most 524288 bytes");
}

#[test]
fn the_supported_set_holds_the_version_in_force_and_only_versions_that_exist() {
    let mut registry = registry();
    let mut push = push(document("1.1.0", builds));
    push.supported = Some(BTreeSet::from([version("1.0.0")]));
    refused(&registry, &push, "1.1.0 is in force and must be supported");
    push.supported = Some(BTreeSet::from([version("1.1.0"), version("0.1.0")]));
    refused(&registry, &push, "there is no version 0.1.0");
    push.supported = Some(BTreeSet::from([version("1.1.0")]));
    registry.push(push, Timestamp::default()).unwrap();
    assert_eq!(registry.view().supported_versions, [version("1.1.0")]);
    let both = BTreeSet::from([version("1.0.0"), version("1.1.0")]);
    assert!(registry.support(Some(both.clone()), None).unwrap());
    assert!(!registry.support(Some(both), None).unwrap(), "it was like that already");
    assert!(registry.support(Some(BTreeSet::from([version("1.0.0")])), None).is_err());
    let policy = DeprecationPolicy { policy: "x".repeat(65), notice: "x".repeat(1_025) };
    let refusal = registry.support(None, Some(policy)).unwrap_err();
    assert_eq!(refusal.reasons.len(), 2, "{refusal}");
}

#[test]
fn old_versions_make_room_unless_they_are_supported() {
    let mut registry = registry();
    registry.support(Some(BTreeSet::from([version("1.0.0")])), None).unwrap();
    for patch in 1..=40_u32 {
        let text = format!("text {patch}");
        let mut push = push(document(&format!("1.0.{patch}"), |all| all[0]["description"] = json!(text)));
        push.supported = Some(BTreeSet::from([version("1.0.0"), version(&format!("1.0.{patch}"))]));
        registry.push(push, Timestamp::default()).unwrap();
    }
    assert_eq!(registry.versions().len(), VERSIONS_MAX);
    assert!(registry.versions().contains_key(&version("1.0.0")));
}
