//! The latest value of every key of one subscription, as a client knows it from snapshots and updates.
//! Pure; [`super::Continuity`] owns one per subscription and decides what reaches it.

use std::collections::BTreeMap;

use hiveops_proto::frame::{Publication, SnapshotItem};
use hiveops_proto::{Key, MessageKind, MessageType, Payload};

/// The member of `data` that is the key of an update (CONTRACT section 5, contract 1.0).
const KEY_MEMBER: &str = "id";

/// A node refuses publications beyond this many keys of a subscription; one that does not is not
/// followed further than this.
pub const KEYS_MAX: usize = 10_000;

/// One key's latest value.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The value.
    pub data: Payload,
    /// The publication that set it.
    pub seq: u64,
}

/// The latest value of every key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    items: BTreeMap<(MessageType, Key), Item>,
    truncated: bool,
}

impl State {
    /// Every value with its type and key, in the order of types and keys.
    pub fn iter(&self) -> impl Iterator<Item = (&MessageType, &Key, &Item)> {
        self.items.iter().map(|((message_type, key), item)| (message_type, key, item))
    }

    /// The value of one key.
    pub fn get(&self, message_type: &str, key: &str) -> Option<&Item> {
        let name = (MessageType::new(message_type).ok()?, Key::new(key).ok()?);
        self.items.get(&name)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether keys were left out because there are more than [`KEYS_MAX`].
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The state that a complete snapshot describes.
    pub(super) fn of_snapshot(items: &[SnapshotItem]) -> Self {
        let mut state = Self::default();
        for item in items {
            let name = (item.message_type.clone(), item.key.clone());
            state.put(name, Item { data: item.data.clone(), seq: item.seq });
        }
        state
    }

    /// Takes over an update or a removal; an occurrence is no part of the state.
    pub(super) fn apply(&mut self, frame: &Publication) {
        let name = frame.message_type.as_str();
        if MessageKind::of_type(name) != Some(MessageKind::Update) {
            return;
        }
        // A node accepts no update whose key cannot be read, so there is nothing to keep in that case.
        let Ok(found) = frame.data.key(KEY_MEMBER) else { return };
        let Some(key) = found.key.or_else(|| Key::new(name).ok()) else { return };
        let name = (frame.message_type.clone(), key);
        if found.deleted {
            self.items.remove(&name);
        } else {
            self.put(name, Item { data: frame.data.clone(), seq: frame.seq });
        }
    }

    fn put(&mut self, name: (MessageType, Key), item: Item) {
        if self.items.len() >= KEYS_MAX && !self.items.contains_key(&name) {
            self.truncated = true;
            return;
        }
        self.items.insert(name, item);
    }
}
