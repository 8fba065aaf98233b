//! Turns per key: publications of one key by this node follow each other, so that they do not refuse each
//! other on the server.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};

use crate::catalog::SubId;
use crate::log::ValueKey;

type Turn = Arc<TurnMutex<()>>;

/// The keys that somebody publishes to now.
#[derive(Default)]
pub(super) struct KeyLocks {
    /// Held for one lookup or change. An entry is removed by the last one who leaves.
    turns: Mutex<HashMap<(SubId, ValueKey), Turn>>,
}

/// A publication's turn; the next one's begins when it is dropped.
pub(super) struct Guard<'a> {
    locks: &'a KeyLocks,
    place: (SubId, ValueKey),
    /// Only none while it is dropped.
    turn: Option<OwnedMutexGuard<()>>,
}

impl KeyLocks {
    /// Waits for the turn, in the order of asking. Dropping the future leaves the queue.
    pub(super) async fn lock(&self, sub: SubId, key: &ValueKey) -> Guard<'_> {
        let place = (sub, key.clone());
        let turn = Arc::clone(self.turns.lock().entry(place.clone()).or_default());
        // Made first, so that the entry is looked after however this ends.
        let mut guard = Guard { locks: self, place, turn: None };
        guard.turn = Some(turn.lock_owned().await);
        guard
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.turn.take();
        let mut turns = self.locks.turns.lock();
        if turns.get(&self.place).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use hiveops_proto::{Key, MessageType};

    use super::*;

    fn key(text: &str) -> ValueKey {
        ValueKey { message_type: MessageType::new("x_update").unwrap(), key: Key::new(text).unwrap() }
    }

    #[tokio::test]
    async fn a_key_has_one_turn_at_a_time_and_leaves_nothing_behind() {
        let (locks, sub) = (KeyLocks::default(), SubId::from_index(0).unwrap());
        let first = locks.lock(sub, &key("a")).await;
        assert!(locks.lock(sub, &key("b")).now_or_never().is_some(), "other keys do not wait");
        assert!(locks.lock(sub, &key("a")).now_or_never().is_none());
        drop(first);
        drop(locks.lock(sub, &key("a")).now_or_never().expect("the turn is free"));
        assert!(locks.turns.lock().is_empty());
    }
}
