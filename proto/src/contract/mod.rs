//! The contract version in force: which subscriptions there are and which messages each carries.
//!
//! The set is data (`schemas/contract.json`, later pushed through control), not a Rust enum: a minor
//! version can add a subscription without a new binary. Code that works per subscription interns the
//! names into small ids.

mod version;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use version::{ContractVersion, InvalidVersion};

use crate::code::words;
use crate::subscription::{MessageType, SubscriptionName};

/// A subscription is a bit of a 64-bit mask in every session.
pub const SUBSCRIPTIONS_MAX: usize = 64;

words! {
    /// What a message type is to the log.
    MessageKind {
        /// The whole value of one key: the latest one wins, and a snapshot holds it.
        Update = "update",
        /// An occurrence: kept for a time, never coalesced, no part of a value.
        Event = "event",
    }
}

/// One contract version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// Its number.
    pub version: ContractVersion,
    /// The subscriptions in the order of their names.
    pub subscriptions: Vec<SubscriptionSpec>,
}

/// One subscription of a contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionSpec {
    /// The name that clients join.
    pub name: SubscriptionName,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The messages it carries.
    pub messages: Vec<MessageSpec>,
}

/// One message type of a subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageSpec {
    /// The `type` of its frames.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// What it is to the log.
    pub kind: MessageKind,
    /// For updates, the member of `data` that is the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// JSON Schema (2020-12) of `data`.
    pub data: serde_json::Value,
}

/// Why a contract document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidContract {
    /// It is not the JSON of a contract.
    #[error("the contract is not valid JSON of its kind")]
    Syntax(#[source] serde_json::Error),
    /// It declares none, or more than a session's mask can hold.
    #[error("a contract declares 1 to {SUBSCRIPTIONS_MAX} subscriptions, not {0}")]
    Count(usize),
    /// A name stands twice.
    #[error("`{0}` is declared twice")]
    Duplicate(String),
    /// The name of a type does not tell its kind.
    #[error("message type `{0}`: updates end in `_update`, events in `_event` or are `critical_alert`")]
    TypeName(MessageType),
    /// An event has no key, an update always does.
    #[error("message type `{0}`: an update names the member of data that is its key, an event does not")]
    KeyMember(MessageType),
}

impl Contract {
    /// Reads and checks a contract document.
    pub fn parse(json: &str) -> Result<Self, InvalidContract> {
        let mut contract: Self = serde_json::from_str(json).map_err(InvalidContract::Syntax)?;
        contract.subscriptions.sort_by(|a, b| a.name.cmp(&b.name));
        contract.check()?;
        Ok(contract)
    }

    fn check(&self) -> Result<(), InvalidContract> {
        let count = self.subscriptions.len();
        if !(1..=SUBSCRIPTIONS_MAX).contains(&count) {
            return Err(InvalidContract::Count(count));
        }
        let mut names = BTreeSet::new();
        for subscription in &self.subscriptions {
            if !names.insert(subscription.name.as_str()) {
                return Err(InvalidContract::Duplicate(subscription.name.to_string()));
            }
            for message in &subscription.messages {
                message.check()?;
                if !names.insert(message.message_type.as_str()) {
                    return Err(InvalidContract::Duplicate(message.message_type.to_string()));
                }
            }
        }
        Ok(())
    }

    /// The subscription called `name`.
    pub fn subscription(&self, name: &str) -> Option<&SubscriptionSpec> {
        self.subscriptions.iter().find(|subscription| subscription.name.as_str() == name)
    }

    /// The names of all subscriptions, sorted.
    pub fn names(&self) -> Vec<SubscriptionName> {
        self.subscriptions.iter().map(|subscription| subscription.name.clone()).collect()
    }
}

impl SubscriptionSpec {
    /// The message type called `name`.
    pub fn message(&self, name: &str) -> Option<&MessageSpec> {
        self.messages.iter().find(|message| message.message_type.as_str() == name)
    }
}

impl MessageSpec {
    fn check(&self) -> Result<(), InvalidContract> {
        let name = self.message_type.as_str();
        let kind = MessageKind::of_type(name);
        if kind != Some(self.kind) {
            return Err(InvalidContract::TypeName(self.message_type.clone()));
        }
        if self.key.is_some() != (self.kind == MessageKind::Update) {
            return Err(InvalidContract::KeyMember(self.message_type.clone()));
        }
        Ok(())
    }
}

impl MessageKind {
    /// The kind that the name of a message type tells, so that a client needs no table.
    pub fn of_type(name: &str) -> Option<Self> {
        if name.ends_with("_update") {
            Some(Self::Update)
        } else if name.ends_with("_event") || name == "critical_alert" {
            Some(Self::Event)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_contract_is_valid_and_has_the_six_subscriptions() {
        let contract = Contract::parse(crate::CONTRACT).unwrap();
        let names: Vec<String> = contract.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["agents", "alerts", "coordination", "project_index", "system", "tasks"]);
        assert_eq!(contract.version.to_string(), "1.0.0");
    }

    #[test]
    fn faults_of_a_contract_are_named() {
        let with = |subscriptions: &str| {
            Contract::parse(&format!(r#"{{"version":"1.1.0","subscriptions":[{subscriptions}]}}"#))
                .unwrap_err()
                .to_string()
        };
        assert!(with("").contains("1 to 64 subscriptions"));
        let a = r#"{"name":"a","messages":[]}"#;
        assert!(with(&format!("{a},{a}")).contains("`a` is declared twice"));
        let message = |m: &str| with(&format!(r#"{{"name":"a","messages":[{m}]}}"#));
        assert!(message(r#"{"type":"a_thing","kind":"event","data":{}}"#).contains("updates end in"));
        assert!(message(r#"{"type":"a_event","kind":"update","data":{}}"#).contains("updates end in"));
        assert!(message(r#"{"type":"a_update","kind":"update","data":{}}"#).contains("names the member"));
        assert!(message(r#"{"type":"A","kind":"update","data":{}}"#).contains("not valid JSON of its kind"));
    }
}
