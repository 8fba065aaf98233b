//! Names of subscriptions and message types, and the sorted set that replies list.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{InvalidId, identifier};

/// True for `a-z`, then up to `max - 1` of `a-z 0-9 _`: what fits a bus subject, a label and a URL.
fn is_name(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

identifier! {
    /// The contract's name of one channel, such as `agents`.
    SubscriptionName, "subscription", "1 to 32 characters of a-z 0-9 _ that begin with a letter",
    |text| is_name(text, 32)
}

identifier! {
    /// The `type` of a frame, such as `agent_update`.
    MessageType, "message_type", "1 to 48 characters of a-z 0-9 _ that begin with a letter",
    |text| is_name(text, 48)
}

/// Subscription names without repetition, in the order of the alphabet: the only form that replies use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubscriptionSet(BTreeSet<SubscriptionName>);

impl SubscriptionSet {
    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &SubscriptionName> {
        self.0.iter()
    }

    /// Whether `name` is in the set.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<SubscriptionName> for SubscriptionSet {
    fn from_iter<I: IntoIterator<Item = SubscriptionName>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl fmt::Display for SubscriptionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            fmt::Display::fmt(name, f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_unique_and_sorted_and_reads_as_a_list() {
        let set: SubscriptionSet =
            ["tasks", "agents", "tasks"].into_iter().map(|n| SubscriptionName::new(n).unwrap()).collect();
        assert_eq!(set.to_string(), "agents, tasks");
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["agents","tasks"]"#);
    }

    #[test]
    fn names_fit_subjects_and_labels() {
        assert!(SubscriptionName::new("project_index").is_ok());
        for bad in ["", "Agents", "1st", "_x", "a-b", "a.b", "a*", &"a".repeat(33)] {
            assert!(SubscriptionName::new(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
