//! The contract version in force, compiled: names interned into small ids, data schemas ready to check.
//!
//! Everything that enters a node (HTTP, the buses) is checked here once, and from here on is known to be
//! valid. A later version keeps the ids of the names that it shares with the ones before.

use std::collections::HashMap;
use std::sync::Arc;

use hiveops_proto::contract::{MessageSpec, SUBSCRIPTIONS_MAX};
use hiveops_proto::payload::InvalidPayload;
use hiveops_proto::{Contract, Key, MessageKind, MessageType, Payload, SubscriptionName};

use crate::log::ValueKey;
use crate::per_sub::PerSub;

/// A subscription that a contract of this node's life has declared. Ids are dense, in the order in which
/// the names came.
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

    /// What is in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = SubId> {
        (0..SUBSCRIPTIONS_MAX).filter_map(SubId::from_index).filter(move |sub| self.contains(*sub))
    }
}

/// The names of all subscriptions that the node has met, by id; shared by all versions.
pub(crate) type Interned = Arc<PerSub<SubscriptionName>>;

/// The compiled contract.
pub(crate) struct Catalog {
    contract: Contract,
    /// Those in force, sorted.
    names: Vec<SubscriptionName>,
    interned: Interned,
    /// Those in force.
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
    #[error("the data schema of message type `{message_type}` is not a valid JSON Schema: {detail}")]
    Schema { message_type: MessageType, detail: String },
    #[error(
        "the contract declares new subscriptions, and with those of earlier versions there would be more than \
         {SUBSCRIPTIONS_MAX}: a node that is started anew can take it"
    )]
    Full,
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
    /// The first contract of a node.
    pub(crate) fn compile(contract: Contract) -> Result<Arc<Self>, CompileError> {
        Self::compile_into(contract, Arc::new(PerSub::new()))
    }

    /// A later one. Names that it adds are interned with it, and stay.
    pub(crate) fn next(&self, contract: Contract) -> Result<Arc<Self>, CompileError> {
        Self::compile_into(contract, Arc::clone(&self.interned))
    }

    /// Nothing is interned unless all of it can be used.
    fn compile_into(contract: Contract, interned: Interned) -> Result<Arc<Self>, CompileError> {
        let mut compiled = Vec::new();
        for subscription in &contract.subscriptions {
            for spec in &subscription.messages {
                compiled.push((&subscription.name, spec.message_type.clone(), Message::compile(spec)?));
            }
        }
        let names = contract.names();
        let known: HashMap<&SubscriptionName, SubId> =
            interned.iter().map(|(sub, name)| (name, sub)).collect();
        let added = names.iter().filter(|name| !known.contains_key(name)).count();
        if interned.len() + added > SUBSCRIPTIONS_MAX {
            return Err(CompileError::Full);
        }
        let mut ids = HashMap::new();
        for name in &names {
            let sub = known.get(name).copied().or_else(|| interned.push(name.clone()));
            ids.insert(name.clone(), sub.ok_or(CompileError::Full)?);
        }
        let mut messages = HashMap::new();
        for (name, message_type, message) in compiled {
            messages.insert((ids[name], message_type), message);
        }
        drop(known);
        Ok(Arc::new(Self { contract, names, interned, ids, messages }))
    }

    pub(crate) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The names of the subscriptions in force, sorted.
    pub(crate) fn names(&self) -> &[SubscriptionName] {
        &self.names
    }

    /// The names of all subscriptions that the node has met, those of earlier and of coming versions
    /// included.
    pub(crate) fn interned(&self) -> &Interned {
        &self.interned
    }

    pub(crate) fn name(&self, sub: SubId) -> &SubscriptionName {
        &self.interned[sub]
    }

    /// Whether the contract in force declares it.
    pub(crate) fn declares(&self, sub: SubId) -> bool {
        self.id(self.name(sub).as_str()) == Some(sub)
    }

    pub(crate) fn id(&self, name: &str) -> Option<SubId> {
        self.ids.get(name).copied()
    }

    /// The subscriptions in force.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SubId> {
        self.names.iter().filter_map(|name| self.id(name.as_str()))
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

impl Message {
    fn compile(spec: &MessageSpec) -> Result<Self, CompileError> {
        let schema = jsonschema::draft202012::new(&spec.data).map_err(|error| CompileError::Schema {
            message_type: spec.message_type.clone(),
            detail: error.to_string(),
        })?;
        Ok(Self { kind: spec.kind, key_member: spec.key.clone(), schema })
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

    /// A contract with these subscriptions, each with one type of updates.
    fn contract(names: &[&str]) -> Contract {
        let one = |name: &&str| {
            format!(
                r#"{{"name":"{name}","messages":[{{"type":"{name}_update","kind":"update","key":"id","data":{{}}}}]}}"#
            )
        };
        let all: Vec<String> = names.iter().map(one).collect();
        Contract::parse(&format!(r#"{{"version":"1.0.0","subscriptions":[{}]}}"#, all.join(","))).unwrap()
    }

    #[test]
    fn a_later_version_keeps_the_ids_of_names_and_adds_to_them() {
        let first = Catalog::compile(contract(&["b", "d"])).unwrap();
        let later = first.next(contract(&["a", "b", "c"])).unwrap();
        assert_eq!(later.id("b"), first.id("b"));
        assert_eq!(later.names().len(), 3);
        assert_eq!(later.ids().map(SubId::index).collect::<Vec<_>>(), [2, 0, 3]);
        let dropped = first.id("d").unwrap();
        assert!(later.id("d").is_none() && !later.declares(dropped) && first.declares(dropped));
        assert_eq!(later.name(dropped).as_str(), "d");
        // What comes back is what it was.
        assert_eq!(later.next(contract(&["d"])).unwrap().id("d"), Some(dropped));
    }

    #[test]
    fn a_version_that_cannot_be_used_leaves_nothing_behind() {
        let first = Catalog::compile(contract(&["a"])).unwrap();
        let mut broken = contract(&["a", "b"]);
        broken.subscriptions[1].messages[0].data = serde_json::json!({"type": 7});
        assert!(matches!(first.next(broken), Err(CompileError::Schema { .. })));
        let many: Vec<String> = (0..SUBSCRIPTIONS_MAX).map(|index| format!("s{index}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(matches!(first.next(contract(&many)), Err(CompileError::Full)));
        assert_eq!(first.interned().len(), 1);
        assert!(first.next(contract(&many[1..])).is_ok());
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
