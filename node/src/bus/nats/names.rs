//! Names on the NATS server: streams, subjects, and the token that a key becomes. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::{Key, MessageType, SubscriptionName};

use crate::log::ValueKey;

/// What stands in place of a key for an occurrence. No encoded key begins with it.
const OCCURRENCE: char = '~';

/// Names of one deployment.
#[derive(Debug, Clone)]
pub(super) struct Names {
    namespace: String,
}

/// What a subject of a log says about its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) message_type: MessageType,
    /// None for an occurrence.
    pub(super) key: Option<Key>,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// The stream that is the subscription's log.
    pub(super) fn log_stream(&self, name: &SubscriptionName) -> String {
        format!("hiveops_{}_{name}", self.namespace)
    }

    /// The stream that probes go through. No subscription has that name: they begin with a letter.
    pub(super) fn probe_stream(&self) -> String {
        format!("hiveops_{}__probe", self.namespace)
    }

    /// The stream of what outside publishers hand in.
    pub(super) fn in_stream(&self) -> String {
        format!("hiveops_{}__in", self.namespace)
    }

    /// Everything of one log.
    pub(super) fn log_subjects(&self, name: &SubscriptionName) -> String {
        format!("hiveops.{}.u.{name}.>", self.namespace)
    }

    /// Where the server repeats what it has stored in the log.
    pub(super) fn live_subjects(&self, name: &SubscriptionName) -> String {
        format!("hiveops.{}.l.{name}.>", self.namespace)
    }

    /// Everything that the server repeats, probes included.
    pub(super) fn all_live(&self) -> String {
        format!("hiveops.{}.l.>", self.namespace)
    }

    /// Everything of one message type.
    pub(super) fn type_subjects(&self, name: &SubscriptionName, message_type: &MessageType) -> String {
        format!("hiveops.{}.u.{name}.{message_type}.>", self.namespace)
    }

    pub(super) fn value(&self, name: &SubscriptionName, key: &ValueKey) -> String {
        let token = URL_SAFE_NO_PAD.encode(key.key.as_str());
        format!("hiveops.{}.u.{name}.{}.{token}", self.namespace, key.message_type)
    }

    /// `unique` makes each occurrence a subject of its own, so that the bound per subject is none for it.
    pub(super) fn occurrence(
        &self,
        name: &SubscriptionName,
        message_type: &MessageType,
        unique: &str,
    ) -> String {
        format!("hiveops.{}.u.{name}.{message_type}.{OCCURRENCE}{unique}", self.namespace)
    }

    pub(super) fn probe(&self, token: &str) -> String {
        format!("hiveops.{}.p.{token}", self.namespace)
    }

    pub(super) fn probe_subjects(&self) -> String {
        format!("hiveops.{}.p.*", self.namespace)
    }

    /// Where the server repeats a probe.
    pub(super) fn probe_live(&self, token: &str) -> String {
        format!("hiveops.{}.l._probe.{token}", self.namespace)
    }

    /// What nodes say to each other.
    pub(super) fn signals(&self) -> String {
        format!("hiveops.{}.n", self.namespace)
    }

    pub(super) fn in_subjects(&self) -> String {
        format!("hiveops.{}.in.*", self.namespace)
    }

    /// The subscription that a subject of the `in` stream names, whatever it is.
    pub(super) fn incoming<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&format!("hiveops.{}.in.", self.namespace))
    }

    /// Reads a subject of the log of `name`.
    pub(super) fn place(&self, name: &SubscriptionName, subject: &str) -> Option<Place> {
        let rest = subject.strip_prefix(&format!("hiveops.{}.u.{name}.", self.namespace))?;
        let (message_type, token) = rest.split_once('.')?;
        let message_type = MessageType::new(message_type).ok()?;
        if token.starts_with(OCCURRENCE) {
            return Some(Place { message_type, key: None });
        }
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        Some(Place { message_type, key: Some(Key::new(&text).ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_gives_back_what_it_was_made_from() {
        let names = Names::new("default");
        let name = SubscriptionName::new("tasks").unwrap();
        let message_type = MessageType::new("task_update").unwrap();
        for text in ["t1", "a.b > *", "~x", "ä", &"k".repeat(256)] {
            let key = ValueKey { message_type: message_type.clone(), key: Key::new(text).unwrap() };
            let subject = names.value(&name, &key);
            assert_eq!(subject.matches('.').count(), 5, "one token each: {subject}");
            let place = names.place(&name, &subject).unwrap();
            assert_eq!((place.message_type, place.key), (key.message_type, Some(key.key)));
        }
        let subject = names.occurrence(&name, &message_type, "x1");
        assert_eq!(names.place(&name, &subject), Some(Place { message_type, key: None }));
    }

    #[test]
    fn a_subject_that_no_node_made_is_none() {
        let names = Names::new("default");
        let name = SubscriptionName::new("tasks").unwrap();
        for bad in [
            "hiveops.default.u.tasks",
            "hiveops.default.u.tasks.task_update",
            "hiveops.default.u.tasks.Task.dDE",
            "hiveops.default.u.tasks.task_update.%%",
            "hiveops.default.u.tasks.task_update.",
            "hiveops.other.u.tasks.task_update.dDE",
        ] {
            assert_eq!(names.place(&name, bad), None, "{bad}");
        }
    }
}
