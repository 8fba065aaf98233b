//! The decision whether a publication enters a log: repeats, conditions, room. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hiveops_proto::Timestamp;
use sha2::{Digest, Sha256};

use crate::bus::{
    Ack, DUPLICATE_WINDOW, Expect, Publish, PublishError, Repeat, STATE_BYTES_MAX, STATE_KEYS_MAX, Stored,
};
use crate::log::CompactedLog;

/// Repeats that are remembered per subscription at most. At the default inbound rates this is far beyond
/// the window; a flood pushes the oldest out early, which is counted as nothing worse than a new one.
const REPEATS_MAX: usize = 65_536;

/// SHA-256, cut to 16 bytes: names of repeats must not collide by chance, not resist an attacker who may
/// publish anyway.
pub(super) type Fingerprint = [u8; 16];

/// One subscription's log with what is needed to accept into it.
pub(super) struct Ledger {
    pub(super) log: CompactedLog<Arc<Stored>>,
    repeats: HashMap<Fingerprint, Seen>,
    order: VecDeque<Fingerprint>,
}

/// A publication that a repeat would be known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) seq: u64,
    pub(super) data: Fingerprint,
    pub(super) at: Timestamp,
}

/// What came of a publication.
pub(super) struct Accepted {
    pub(super) stored: Arc<Stored>,
    /// The entry that it replaced.
    pub(super) replaced: Option<u64>,
    /// The name under which a repeat will be known.
    pub(super) repeat: Option<(Fingerprint, Seen)>,
}

impl Ledger {
    pub(super) fn new(log: CompactedLog<Arc<Stored>>, repeats: Vec<(Fingerprint, Seen)>) -> Self {
        let mut ledger = Self { log, repeats: HashMap::new(), order: VecDeque::new() };
        for (name, seen) in repeats {
            ledger.remember(name, seen);
        }
        ledger
    }

    /// The earlier publication that this one repeats, if it does.
    pub(super) fn repeated(&self, publish: &Publish) -> Result<Option<Ack>, PublishError> {
        let Some((name, data)) = fingerprints(publish) else { return Ok(None) };
        match self.repeats.get(&name) {
            None => Ok(None),
            Some(seen) if seen.data == data => Ok(Some(self.ack(seen.seq, true))),
            Some(seen) => Err(PublishError::IdempotencyConflict { seq: seen.seq }),
        }
    }

    /// Stores a publication that repeats nothing, or says why not.
    pub(super) fn accept(&mut self, publish: Publish, now: Timestamp) -> Result<Accepted, PublishError> {
        self.check_expected(&publish)?;
        self.check_room(&publish)?;
        let name = fingerprints(&publish);
        let seq = self.log.head() + 1;
        let Publish { sub, key, removes, envelope, .. } = publish;
        let stored = Arc::new(Stored { sub, epoch: self.log.epoch().clone(), seq, key, removes, envelope });
        let replaced = self.log.append(Arc::clone(&stored));
        let repeat = name.map(|(name, data)| (name, Seen { seq, data, at: now }));
        if let Some((name, seen)) = repeat {
            self.remember(name, seen);
        }
        Ok(Accepted { stored, replaced, repeat })
    }

    pub(super) fn ack(&self, seq: u64, duplicate: bool) -> Ack {
        Ack { epoch: self.log.epoch().clone(), seq, duplicate }
    }

    fn check_expected(&self, publish: &Publish) -> Result<(), PublishError> {
        let current = publish.key.as_ref().and_then(|key| self.log.latest(key));
        let actual = current.filter(|stored| !stored.removes).map_or(0, |stored| stored.seq);
        let fits = match publish.expect {
            Expect::Any => true,
            Expect::Absent => actual == 0,
            Expect::Seq(seq) => actual == seq,
        };
        if fits { Ok(()) } else { Err(PublishError::WrongExpected { actual }) }
    }

    fn check_room(&self, publish: &Publish) -> Result<(), PublishError> {
        let Some(key) = publish.key.as_ref().filter(|_| !publish.removes) else { return Ok(()) };
        let current = self.log.latest(key).filter(|stored| !stored.removes);
        let keys = self.log.live_keys() + usize::from(current.is_none());
        let freed = current.map_or(0, |stored| stored.envelope.data.as_str().len());
        let bytes = self.log.live_bytes() - freed + publish.envelope.data.as_str().len();
        if keys <= STATE_KEYS_MAX && bytes <= STATE_BYTES_MAX {
            return Ok(());
        }
        Err(PublishError::StateFull { keys: self.log.live_keys(), bytes: self.log.live_bytes() })
    }

    fn remember(&mut self, name: Fingerprint, seen: Seen) {
        if self.repeats.insert(name, seen).is_none() {
            self.order.push_back(name);
        }
    }

    /// Forgets what lies outside the window, or beyond the number, and names it.
    pub(super) fn forget_old(&mut self, now: Timestamp) -> Vec<Fingerprint> {
        let window = DUPLICATE_WINDOW.as_millis() as u64;
        let mut gone = Vec::new();
        while let Some(name) = self.order.front() {
            let old = self.repeats.get(name).is_none_or(|seen| now.millis_since(seen.at) > window);
            if !old && self.order.len() < REPEATS_MAX {
                break;
            }
            self.repeats.remove(name);
            gone.extend(self.order.pop_front());
        }
        gone
    }
}

/// The name of a repeat, and what its data must be.
fn fingerprints(publish: &Publish) -> Option<(Fingerprint, Fingerprint)> {
    let envelope = &publish.envelope;
    let content = [envelope.message_type.as_str(), "\0", envelope.data.as_str()];
    let data = fingerprint(&content);
    match &publish.repeat {
        Repeat::Never => None,
        Repeat::Key(key) => Some((fingerprint(&["key\0", key.as_str()]), data)),
        Repeat::Content => {
            let [kind, zero, text] = content;
            let name = ["content\0", envelope.correlation_id.as_str(), zero, kind, zero, text];
            Some((fingerprint(&name), data))
        }
    }
}

fn fingerprint(parts: &[&str]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    let mut short = Fingerprint::default();
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}
