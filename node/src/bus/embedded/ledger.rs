//! The decision whether a publication enters a log: repeats, conditions, room. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hiveops_proto::Timestamp;
use sha2::{Digest, Sha256};

use crate::bus::{
    Ack, DUPLICATE_WINDOW, Expect, Publish, PublishError, Repeat, STATE_BYTES_MAX, STATE_KEYS_MAX, Stored,
};
use crate::catalog::SubId;
use crate::log::CompactedLog;

/// Repeats that are remembered per subscription at most. At the default inbound rates this is far beyond
/// the window; a flood pushes the oldest out early, which is counted as nothing worse than a new one.
const REPEATS_MAX: usize = 65_536;

/// SHA-256, cut to 16 bytes: names of repeats must not collide by chance, not resist an attacker who may
/// publish anyway.
pub(super) type Fingerprint = [u8; 16];

/// One subscription's log with what is needed to accept into it.
pub(super) struct Ledger {
    pub(super) sub: SubId,
    pub(super) log: CompactedLog<Arc<Stored>>,
    repeats: HashMap<Fingerprint, Seen>,
    /// The names in the order of age, in which they are forgotten.
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
#[derive(Debug)]
pub(super) enum Taken {
    /// It repeats an earlier one, which has this place.
    Repeat(Ack),
    /// It is the new head of the log.
    New(Accepted),
}

/// A publication that has its place, and what its log must remember of it.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stored: Arc<Stored>,
    /// The entry that it replaced.
    pub(super) replaced: Option<u64>,
    /// The name under which a repeat will be known.
    pub(super) repeat: Option<(Fingerprint, Seen)>,
}

impl Ledger {
    /// A ledger over `log`; `repeats` come in the order of their age.
    pub(super) fn new(sub: SubId, log: CompactedLog<Arc<Stored>>, repeats: Vec<(Fingerprint, Seen)>) -> Self {
        let mut ledger = Self { sub, log, repeats: HashMap::new(), order: VecDeque::new() };
        for (name, seen) in repeats {
            ledger.remember(name, seen);
        }
        ledger
    }

    /// Takes a publication, or says why not. What lies outside the window must have been forgotten before.
    pub(super) fn take(&mut self, publish: Publish, now: Timestamp) -> Result<Taken, PublishError> {
        let name = fingerprints(&publish);
        if let Some((name, data)) = &name
            && let Some(seen) = self.repeats.get(name)
        {
            return match seen.data == *data {
                true => Ok(Taken::Repeat(self.ack(seen.seq, true))),
                false => Err(PublishError::IdempotencyConflict { seq: seen.seq }),
            };
        }
        self.check_expected(&publish)?;
        self.check_room(&publish)?;
        let seq = self.log.head() + 1;
        let Publish { sub, key, removes, envelope, .. } = publish;
        let stored = Arc::new(Stored { sub, epoch: self.log.epoch().clone(), seq, key, removes, envelope });
        let replaced = self.log.append(Arc::clone(&stored));
        let repeat = name.map(|(name, data)| (name, Seen { seq, data, at: now }));
        if let Some((name, seen)) = repeat {
            self.remember(name, seen);
        }
        Ok(Taken::New(Accepted { stored, replaced, repeat }))
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
    match &publish.repeat {
        Repeat::Never => None,
        Repeat::Key(key) => Some((fingerprint(&["key\0", key.as_str()]), fingerprint(&content))),
        Repeat::Content => {
            let [kind, zero, text] = content;
            let name = ["content\0", envelope.correlation_id.as_str(), zero, kind, zero, text];
            Some((fingerprint(&name), fingerprint(&content)))
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

#[cfg(test)]
mod tests {
    use hiveops_proto::Epoch;

    use super::*;
    use crate::bus::conformance::{update, with_key};

    const WINDOW_MS: u64 = 120_000;

    fn ledger() -> Ledger {
        let sub = SubId::from_index(0).unwrap();
        Ledger::new(sub, CompactedLog::new(Epoch::from_bits(1), 0), Vec::new())
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000).plus_millis(ms)
    }

    fn take(ledger: &mut Ledger, publish: Publish, now: Timestamp) -> (Vec<Fingerprint>, Option<u64>) {
        let forgotten = ledger.forget_old(now);
        match ledger.take(publish, now).unwrap() {
            Taken::Repeat(ack) => (forgotten, Some(ack.seq)),
            Taken::New(_) => (forgotten, None),
        }
    }

    #[test]
    fn a_repeat_is_known_for_the_window_and_then_forgotten() {
        let mut ledger = ledger();
        let publish = || with_key("k1", update(0, "a", 1));
        assert_eq!(take(&mut ledger, publish(), at(0)), (vec![], None));
        assert_eq!(take(&mut ledger, publish(), at(WINDOW_MS)), (vec![], Some(1)));
        let (forgotten, repeats) = take(&mut ledger, publish(), at(WINDOW_MS + 1));
        assert_eq!((forgotten.len(), repeats), (1, None));
        // The window of the second place begins with it.
        assert_eq!(take(&mut ledger, publish(), at(2 * WINDOW_MS + 1)), (vec![], Some(2)));
    }

    #[test]
    fn a_repeat_does_not_prolong_its_window() {
        let mut ledger = ledger();
        let publish = || with_key("k1", update(0, "a", 1));
        take(&mut ledger, publish(), at(0));
        assert_eq!(take(&mut ledger, publish(), at(WINDOW_MS - 1)).1, Some(1));
        assert_eq!(take(&mut ledger, publish(), at(WINDOW_MS + 1)).1, None);
    }

    #[test]
    fn a_clock_that_goes_back_forgets_nothing_early() {
        let mut ledger = ledger();
        let publish = || with_key("k1", update(0, "a", 1));
        take(&mut ledger, publish(), at(WINDOW_MS));
        assert_eq!(take(&mut ledger, publish(), at(0)), (vec![], Some(1)));
    }

    #[test]
    fn repeats_are_bounded_and_the_oldest_goes_first() {
        let mut ledger = ledger();
        for n in 0..REPEATS_MAX {
            assert_eq!(take(&mut ledger, with_key(&format!("k{n}"), update(0, "a", 1)), at(0)).1, None);
        }
        assert_eq!(ledger.repeats.len(), REPEATS_MAX);
        let (forgotten, _) = take(&mut ledger, with_key("one-more", update(0, "a", 1)), at(0));
        assert_eq!((forgotten.len(), ledger.repeats.len()), (1, REPEATS_MAX));
        assert_eq!(take(&mut ledger, with_key("k0", update(0, "a", 1)), at(0)).1, None);
    }
}
