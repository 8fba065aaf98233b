//! A subscription's log in memory, compacted by key. The embedded bus keeps its truth in one, and every
//! shard follows with one of its own, so history, snapshot and gaps cannot disagree.
//!
//! What stays: the latest entry of every key, the latest removals, and the latest occurrences. Whatever a
//! reader at position `floor` or later has not seen is therefore still here; for a reader before it,
//! something that it needed is gone and only a snapshot helps.

use std::collections::{BTreeMap, HashMap, VecDeque};

use hiveops_proto::{Epoch, Key, MessageType, Position, Timestamp};

/// Occurrences and removals that are kept at most, each (CONTRACT section 5).
pub(crate) const KEPT_MAX: usize = 1_024;

/// How long occurrences and removals are kept at most, in milliseconds (CONTRACT section 5: 15 min).
pub(crate) const KEPT_MS: u64 = 15 * 60 * 1_000;

/// Names one value of a subscription: two message types may use the same key for different things.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ValueKey {
    pub(crate) message_type: MessageType,
    pub(crate) key: Key,
}

/// What a log needs to know of its entries.
pub(crate) trait Entry {
    fn seq(&self) -> u64;
    /// The value that this is the whole of; none for an occurrence.
    fn key(&self) -> Option<&ValueKey>;
    /// Whether this removes its key.
    fn removes(&self) -> bool;
    fn published_at(&self) -> Timestamp;
    /// Bytes that the entry counts against the state's size.
    fn size(&self) -> usize;
}

/// One subscription's log.
#[derive(Debug)]
pub(crate) struct CompactedLog<E> {
    epoch: Epoch,
    head: u64,
    floor: u64,
    entries: BTreeMap<u64, E>,
    keys: HashMap<ValueKey, u64>,
    live_keys: usize,
    live_bytes: usize,
    occurrences: VecDeque<u64>,
    removals: VecDeque<u64>,
}

impl<E: Entry> CompactedLog<E> {
    /// An empty log that begins after `head`; nothing before it can be replayed.
    pub(crate) fn new(epoch: Epoch, head: u64) -> Self {
        Self {
            epoch,
            head,
            floor: head,
            entries: BTreeMap::new(),
            keys: HashMap::new(),
            live_keys: 0,
            live_bytes: 0,
            occurrences: VecDeque::new(),
            removals: VecDeque::new(),
        }
    }

    /// A log as it was stored: what is left of it, where it ends and from where it is whole.
    pub(crate) fn restore(epoch: Epoch, head: u64, floor: u64, entries: impl IntoIterator<Item = E>) -> Self {
        let mut log = Self::new(epoch, 0);
        for entry in entries {
            log.append(entry);
        }
        log.head = log.head.max(head);
        log.floor = floor;
        log
    }

    /// Adds the next entry and names the one that it replaces. `entry.seq()` is beyond the head.
    pub(crate) fn append(&mut self, entry: E) -> Option<u64> {
        let seq = entry.seq();
        debug_assert!(seq > self.head, "entries come in the order of their seq");
        self.head = seq;
        let replaced = match entry.key() {
            None => {
                self.occurrences.push_back(seq);
                None
            }
            Some(key) => {
                let replaced = self.keys.insert(key.clone(), seq);
                if let Some(old) = replaced.and_then(|old| self.entries.remove(&old)) {
                    self.forget_live(&old);
                }
                if entry.removes() {
                    self.removals.push_back(seq);
                } else {
                    self.live_keys += 1;
                    self.live_bytes += entry.size();
                }
                replaced
            }
        };
        self.entries.insert(seq, entry);
        replaced
    }

    fn forget_live(&mut self, old: &E) {
        if !old.removes() {
            self.live_keys -= 1;
            self.live_bytes -= old.size();
        }
    }

    /// Drops the occurrences and removals beyond their number or time, and names what went.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<u64> {
        let mut gone = Vec::new();
        for removals in [false, true] {
            loop {
                let queue = if removals { &mut self.removals } else { &mut self.occurrences };
                let Some(&seq) = queue.front() else { break };
                let over = queue.len() > KEPT_MAX;
                match self.entries.get(&seq) {
                    Some(entry) if !over && now.millis_since(entry.published_at()) <= KEPT_MS => break,
                    found => {
                        queue.pop_front();
                        // A removal whose key has come back is no entry any more: nobody misses it.
                        if found.is_some() {
                            self.drop_kept(seq);
                            gone.push(seq);
                        }
                    }
                }
            }
        }
        gone
    }

    fn drop_kept(&mut self, seq: u64) {
        if let Some(key) = self.entries.remove(&seq).and_then(|entry| entry.key().cloned()) {
            self.keys.remove(&key);
        }
        self.floor = self.floor.max(seq);
    }

    pub(crate) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The least position from which everything that matters is still here.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch.clone(), seq: self.head }
    }

    /// The entry that holds the key's value, or its removal.
    pub(crate) fn latest(&self, key: &ValueKey) -> Option<&E> {
        self.entries.get(self.keys.get(key)?)
    }

    /// The latest value of every key that is not removed, in the order of `seq`.
    pub(crate) fn values(&self) -> impl Iterator<Item = &E> {
        self.entries.values().filter(|entry| entry.key().is_some() && !entry.removes())
    }

    /// Everything that is left, in the order of `seq`.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &E> {
        self.entries.values()
    }

    /// What follows `seq`, in order; `None` when something is gone that a reader there would need, or
    /// when `seq` lies beyond the head.
    pub(crate) fn after(&self, seq: u64) -> Option<impl Iterator<Item = &E>> {
        (self.floor..=self.head)
            .contains(&seq)
            .then(|| self.entries.range(seq.saturating_add(1)..).map(|(_, entry)| entry))
    }

    /// Like [`CompactedLog::after`], for a position that names the epoch it was taken in.
    pub(crate) fn since(&self, position: &Position) -> Option<impl Iterator<Item = &E>> {
        if position.epoch == self.epoch { self.after(position.seq) } else { None }
    }

    /// Keys that are not removed.
    pub(crate) fn live_keys(&self) -> usize {
        self.live_keys
    }

    /// Bytes of the values of those keys.
    pub(crate) fn live_bytes(&self) -> usize {
        self.live_bytes
    }
}

#[cfg(test)]
mod tests;
