//! The contract version in force, compiled: names interned into small ids, data schemas ready to check.
//!
//! Everything that enters a node (HTTP, later the buses) is checked here once, and from here on is known
//! to be valid.

use std::collections::HashMap;
use std::sync::Arc;

use hiveops_proto::contract::{InvalidContract, SUBSCRIPTIONS_MAX};
use hiveops_proto::payload::InvalidPayload;
use hiveops_proto::{Contract, Key, MessageKind, MessageType, Payload, SubscriptionName};

use crate::log::ValueKey;

/// A subscription of the contract in force. Ids are dense and in the order of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubId(u8);

impl SubId {
    /// The id of the subscription at `index` of the sorted names.
    pub(crate) fn from_index(index: usize) -> Option<Self> {
        u8::try_from(index).ok().filter(|_| index < SUBSCRIPTIONS_MAX).map(Self)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The subscription's bit in a [`SubMask`].
    pub(crate) fn bit(self) -> u64 {
        1 << self.0
    }
}

/// A set of subscriptions, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SubMask(u64);

impl SubMask {
    pub(crate) fn contains(self, sub: SubId) -> bool {
        self.0 & sub.bit() != 0
    }

    pub(crate) fn insert(&mut self, sub: SubId) {
        self.0 |= sub.bit();
    }

    pub(crate) fn remove(&mut self, sub: SubId) {
        self.0 &= !sub.bit();
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = SubId> {
        (0..SUBSCRIPTIONS_MAX).filter_map(SubId::from_index).filter(move |sub| self.contains(*sub))
    }
}

/// The compiled contract.
pub(crate) struct Catalog {
    contract: Contract,
    names: Vec<SubscriptionName>,
    ids: HashMap<SubscriptionName, SubId>,
    messages: HashMap<(SubId, MessageType), Message>,
}

struct Message {
    kind: MessageKind,
    key_member: Option<String>,
    schema: jsonschema::Validator,
}

/// What a publication is to the log, found while checking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) sub: SubId,
    pub(crate) kind: MessageKind,
    /// For updates, the value that this is the whole of.
    pub(crate) key: Option<ValueKey>,
    pub(crate) removes: bool,
}

/// Why a contract cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error(transparent)]
    Contract(#[from] InvalidContract),
    #[error("the data schema of message type `{message_type}` is not a valid JSON Schema: {detail}")]
    Schema { message_type: MessageType, detail: String },
}

/// Why a publication is refused before it reaches the bus.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("unknown subscription `{0}`")]
    Subscription(String),
    #[error("subscription `{subscription}` carries no message type `{message_type}`")]
    MessageType { subscription: SubscriptionName, message_type: String },
    #[error("data does not fit the contract: {0}")]
    Schema(String),
    #[error(transparent)]
    Payload(#[from] InvalidPayload),
}

impl Catalog {
    pub(crate) fn compile(contract: Contract) -> Result<Arc<Self>, CompileError> {
        let names = contract.names();
        let mut ids = HashMap::new();
        let mut messages = HashMap::new();
        for (index, subscription) in contract.subscriptions.iter().enumerate() {
            let id = SubId::from_index(index).ok_or(InvalidContract::Count(names.len()))?;
            ids.insert(subscription.name.clone(), id);
            for spec in &subscription.messages {
                let schema =
                    jsonschema::draft202012::new(&spec.data).map_err(|error| CompileError::Schema {
                        message_type: spec.message_type.clone(),
                        detail: error.to_string(),
                    })?;
                let message = Message { kind: spec.kind, key_member: spec.key.clone(), schema };
                messages.insert((id, spec.message_type.clone()), message);
            }
        }
        Ok(Arc::new(Self { contract, names, ids, messages }))
    }

    #[cfg(test)]
    pub(crate) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The names of all subscriptions, sorted; a [`SubId`] is an index into them.
    pub(crate) fn names(&self) -> &[SubscriptionName] {
        &self.names
    }

    pub(crate) fn name(&self, sub: SubId) -> &SubscriptionName {
        &self.names[sub.index()]
    }

    pub(crate) fn id(&self, name: &str) -> Option<SubId> {
        self.ids.get(name).copied()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = SubId> + use<> {
        (0..self.names.len()).filter_map(SubId::from_index)
    }

    /// The message types of one subscription, sorted.
    pub(crate) fn message_types(&self, sub: SubId) -> Vec<MessageType> {
        let spec = self.contract.subscription(self.name(sub).as_str());
        let mut types: Vec<MessageType> = spec
            .map(|spec| spec.messages.iter().map(|message| message.message_type.clone()).collect())
            .unwrap_or_default();
        types.sort();
        types
    }

    /// Checks what somebody wants to publish, and finds its key.
    pub(crate) fn check(
        &self,
        subscription: &str,
        message_type: &str,
        data: &Payload,
    ) -> Result<(Checked, MessageType), Invalid> {
        let sub = self.id(subscription).ok_or_else(|| Invalid::Subscription(subscription.to_owned()))?;
        let unknown = || Invalid::MessageType {
            subscription: self.name(sub).clone(),
            message_type: message_type.to_owned(),
        };
        let name = MessageType::new(message_type).map_err(|_| unknown())?;
        let message = self.messages.get(&(sub, name.clone())).ok_or_else(unknown)?;
        let value: serde_json::Value = data.read().map_err(InvalidPayload::Syntax)?;
        if let Some(error) = message.schema.iter_errors(&value).next() {
            // The path and the rule; never the value, which belongs to the publisher.
            let detail = format!("`data{}` breaks `{}`", error.instance_path(), error.schema_path());
            return Err(Invalid::Schema(detail));
        }
        let mut checked = Checked { sub, kind: message.kind, key: None, removes: false };
        if let Some(member) = &message.key_member {
            let found = data.key(member)?;
            checked.removes = found.deleted;
            let key = match found.key {
                Some(key) => key,
                // CONTRACT section 5: without the member, the key is the message type.
                None => Key::new(message_type).map_err(|_| unknown())?,
            };
            checked.key = Some(ValueKey { message_type: name.clone(), key });
        }
        Ok((checked, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Arc<Catalog> {
        Catalog::compile(Contract::parse(hiveops_proto::CONTRACT).unwrap()).unwrap()
    }

    fn check(subscription: &str, message_type: &str, data: &str) -> Result<Checked, String> {
        let data = Payload::parse(data).unwrap();
        catalog().check(subscription, message_type, &data).map(|(c, _)| c).map_err(|e| e.to_string())
    }

    #[test]
    fn an_update_has_the_key_that_the_contract_names_or_its_type() {
        let checked = check("tasks", "task_update", r#"{"id":"t1","deleted":true}"#).unwrap();
        assert_eq!((checked.key.unwrap().key.as_str(), checked.removes), ("t1", true));
        let keyless = check("system", "system_update", "{}").unwrap();
        assert_eq!((keyless.key.unwrap().key.as_str(), keyless.removes), ("system_update", false));
        assert_eq!(check("tasks", "task_event", r#"{"id":"t1"}"#).unwrap().key, None);
    }

    #[test]
    fn what_the_contract_does_not_declare_is_named() {
        assert!(check("nope", "x", "{}").unwrap_err().contains("unknown subscription `nope`"));
        assert!(check("tasks", "agent_update", "{}").unwrap_err().contains("no message type `agent_update`"));
        assert!(check("tasks", "Ä", "{}").unwrap_err().contains("no message type `Ä`"));
    }

    #[test]
    fn data_that_breaks_its_schema_is_refused_without_repeating_it() {
        let error = check("alerts", "critical_alert", r#"{"alerts":"s3cret","timestamp":"x"}"#).unwrap_err();
        assert!(error.contains("data/alerts") && !error.contains("s3cret"), "{error}");
        assert!(check("alerts", "critical_alert", r#"{"alerts":[],"timestamp":"x"}"#).is_ok());
    }

    #[test]
    fn masks_hold_each_id_once() {
        let catalog = catalog();
        let mut mask = SubMask::default();
        for id in catalog.ids() {
            mask.insert(id);
        }
        assert_eq!(mask.iter().map(|id| catalog.name(id).as_str()).collect::<Vec<_>>().len(), mask.len());
        mask.remove(catalog.id("tasks").unwrap());
        assert!(!mask.contains(catalog.id("tasks").unwrap()));
    }
}
