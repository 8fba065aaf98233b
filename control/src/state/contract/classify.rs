//! How far one contract is from another: what a client or a publisher of the old one meets under the new.
//! Used by a push, and by a dry run of one.

use std::collections::BTreeMap;

use hiveops_proto::Contract;
use hiveops_proto::contract::{MessageSpec, SubscriptionSpec};
use serde::{Deserialize, Serialize};

use super::schema;

/// How far, in the words of semantic versions; a later one is farther.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// They say the same.
    Same,
    /// Only the texts for people differ.
    Patch,
    /// What was valid still is, and more is.
    Minor,
    /// Something that worked need not work any more.
    Major,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// How far it alone goes.
    pub level: Level,
    /// Where: `subscription/message type/data/…`, the rest as a JSON pointer into the schema.
    pub path: String,
    /// What, for people.
    pub what: String,
}

/// Everything that differs, and how far that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classification {
    /// The farthest of the changes.
    pub level: Level,
    /// The changes in the order of their paths.
    pub changes: Vec<Change>,
}

/// Compares two contracts; their version numbers do not matter.
pub fn classify(old: &Contract, new: &Contract) -> Classification {
    let mut changes = Changes::default();
    let (before, after) = (by_name(old), by_name(new));
    for (name, subscription) in &before {
        match after.get(name) {
            Some(now) => changes.subscription(subscription, now),
            None => changes.add(Level::Major, name, "the subscription is gone"),
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        changes.add(Level::Minor, name, "a new subscription");
    }
    let mut changes = changes.0;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let level = changes.iter().map(|change| change.level).max().unwrap_or(Level::Same);
    Classification { level, changes }
}

/// Collects what differs.
#[derive(Default)]
pub(super) struct Changes(Vec<Change>);

impl Changes {
    pub(super) fn add(&mut self, level: Level, path: &str, what: impl Into<String>) {
        self.0.push(Change { level, path: path.to_owned(), what: what.into() });
    }

    /// Adds what `compare` finds; what it takes for minor is major when there is a `doubt` about that.
    pub(super) fn nested(&mut self, doubt: Option<&str>, compare: impl FnOnce(&mut Self)) {
        let mut found = Self::default();
        compare(&mut found);
        for mut change in found.0 {
            if let (Some(doubt), Level::Minor) = (doubt, change.level) {
                change.level = Level::Major;
                change.what = format!("{}, and {doubt}", change.what);
            }
            self.0.push(change);
        }
    }

    #[cfg(test)]
    pub(super) fn level(&self) -> Level {
        self.0.iter().map(|change| change.level).max().unwrap_or(Level::Same)
    }

    fn subscription(&mut self, old: &SubscriptionSpec, new: &SubscriptionSpec) {
        let name = old.name.as_str();
        if old.description != new.description {
            self.add(Level::Patch, name, "the description is another one");
        }
        for message in &old.messages {
            let path = format!("{name}/{}", message.message_type);
            match new.message(message.message_type.as_str()) {
                Some(now) => self.message(&path, message, now),
                None => self.add(Level::Major, &path, "the message type is gone from the subscription"),
            }
        }
        for message in &new.messages {
            if old.message(message.message_type.as_str()).is_none() {
                self.add(Level::Minor, &format!("{name}/{}", message.message_type), "a new message type");
            }
        }
    }

    fn message(&mut self, path: &str, old: &MessageSpec, new: &MessageSpec) {
        if old.kind != new.kind {
            self.add(Level::Major, &format!("{path}/kind"), format!("was {}, is {}", old.kind, new.kind));
        }
        if old.key != new.key {
            let show =
                |key: &Option<String>| key.as_ref().map_or("none".to_owned(), |key| format!("`{key}`"));
            let what = format!("was {}, is {}", show(&old.key), show(&new.key));
            self.add(Level::Major, &format!("{path}/key"), what);
        }
        schema::compare(self, &format!("{path}/data"), &old.data, &new.data);
    }
}

fn by_name(contract: &Contract) -> BTreeMap<&str, &SubscriptionSpec> {
    contract.subscriptions.iter().map(|subscription| (subscription.name.as_str(), subscription)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn contract(subscriptions: &Value) -> Contract {
        Contract::parse(&json!({"version": "1.0.0", "subscriptions": subscriptions}).to_string()).unwrap()
    }

    fn base() -> Value {
        json!([{
            "name": "tasks",
            "description": "Tasks.",
            "messages": [
                {"type": "task_update", "kind": "update", "key": "id", "data": {"type": "object"}},
                {"type": "task_event", "kind": "event", "data": {"type": "object"}},
            ],
        }])
    }

    fn level(change: impl FnOnce(&mut Value)) -> (Level, Vec<String>) {
        let mut new = base();
        change(&mut new);
        let found = classify(&contract(&base()), &contract(&new));
        (found.level, found.changes.iter().map(|change| change.path.clone()).collect())
    }

    #[test]
    fn texts_are_a_patch_and_the_order_of_messages_is_nothing() {
        assert_eq!(level(|new| new[0]["description"] = json!("All tasks.")).0, Level::Patch);
        assert_eq!(level(|new| new[0]["messages"].as_array_mut().unwrap().reverse()).0, Level::Same);
        let described = json!({"type": "object", "description": "one task"});
        assert_eq!(level(|new| new[0]["messages"][0]["data"] = described).0, Level::Patch);
    }

    #[test]
    fn what_is_added_is_minor() {
        let builds = json!({"name": "builds", "messages": []});
        let added = level(|new| new.as_array_mut().unwrap().push(builds));
        assert_eq!(added, (Level::Minor, vec!["builds".to_owned()]));
        let note = json!({"type": "task_note_event", "kind": "event", "data": {}});
        let added = level(|new| new[0]["messages"].as_array_mut().unwrap().push(note));
        assert_eq!(added, (Level::Minor, vec!["tasks/task_note_event".to_owned()]));
    }

    #[test]
    fn what_is_removed_renamed_or_moved_is_major() {
        assert_eq!(level(|new| new[0]["name"] = json!("jobs")).0, Level::Major);
        let (removed, paths) = level(|new| {
            new[0]["messages"].as_array_mut().unwrap().remove(1);
        });
        assert_eq!((removed, paths), (Level::Major, vec!["tasks/task_event".to_owned()]));
        let moved = level(|new| {
            let message = new[0]["messages"].as_array_mut().unwrap().remove(1);
            new.as_array_mut().unwrap().push(json!({"name": "events", "messages": [message]}));
        });
        assert_eq!(moved.0, Level::Major);
    }

    #[test]
    fn another_key_is_major() {
        let found = level(|new| new[0]["messages"][0]["key"] = json!("task_id"));
        assert_eq!(found, (Level::Major, vec!["tasks/task_update/key".to_owned()]));
    }
}
