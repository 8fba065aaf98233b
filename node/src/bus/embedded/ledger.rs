//! The decision whether a publication enters a log: repeats, conditions, room. Pure.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::bus::rules;
pub(super) use crate::bus::rules::Fingerprint;
use crate::bus::{Ack, DUPLICATE_WINDOW, Publish, PublishError, Stored};
use crate::catalog::SubId;
use crate::log::CompactedLog;
use hiveops_proto::{Epoch, Timestamp};

/// Repeats that are remembered per subscription at most. At the default inbound rates this is far beyond
/// the window; a flood pushes the oldest out early, which is counted as nothing worse than a new one.
const REPEATS_MAX: usize = 65_536;

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

    /// A ledger over a log in which there is nothing yet.
    pub(super) fn begin(sub: SubId, epoch: Epoch) -> Self {
        Self::new(sub, CompactedLog::new(epoch, 0), Vec::new())
    }

    /// Takes a publication, or says why not. What lies outside the window must have been forgotten before.
    pub(super) fn take(&mut self, publish: Publish, now: Timestamp) -> Result<Taken, PublishError> {
        let name = rules::fingerprints(&publish);
        if let Some((name, data)) = &name
            && let Some(seen) = self.repeats.get(name)
        {
            return match seen.data == *data {
                true => Ok(Taken::Repeat(self.ack(seen.seq, true))),
                false => Err(PublishError::IdempotencyConflict { seq: seen.seq }),
            };
        }
        rules::check_expected(publish.expect, rules::actual(&self.log, publish.key.as_ref()))?;
        rules::check_room(&self.log, &publish, std::iter::empty())?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{update, with_key};

    const WINDOW_MS: u64 = 120_000;

    fn ledger() -> Ledger {
        let sub = SubId::from_index(0).unwrap();
        Ledger::begin(sub, Epoch::from_bits(1))
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
