//! Walks through what one watcher was told of one subscription.

use std::collections::HashMap;
use std::ops::Bound::{Excluded, Included};

use super::{Figures, Index, Seen, Violation};
use crate::history::{Heard, KeyId, Place, Token};

/// Where the walk stands.
struct Walk<'a> {
    watcher: usize,
    channel: usize,
    index: &'a Index<'a>,
    at: Option<Place>,
    /// The place of the latest value of each key that the watcher got.
    held: HashMap<KeyId, Place>,
    /// Values that were left out; a later one must have come by the end.
    owed: Vec<(KeyId, Place)>,
    found: &'a mut Vec<Violation>,
}

/// Of somebody who stayed to the end.
pub(super) fn check(
    watcher: usize,
    channel: usize,
    heard: &[Heard],
    index: &Index<'_>,
    seen: &mut Seen,
    figures: &mut Figures,
    found: &mut Vec<Violation>,
) {
    let mut walk = Walk::new(watcher, channel, index, found);
    walk.go(heard, seen, figures);
    walk.end();
}

/// Of somebody who left: what came after that does not matter.
pub(super) fn check_visit(
    visit: usize,
    channel: usize,
    heard: &[Heard],
    index: &Index<'_>,
    seen: &mut Seen,
    figures: &mut Figures,
    found: &mut Vec<Violation>,
) {
    let mut walk = Walk::new(visit, channel, index, found);
    walk.go(heard, seen, figures);
    walk.settle();
}

impl<'a> Walk<'a> {
    fn new(watcher: usize, channel: usize, index: &'a Index<'a>, found: &'a mut Vec<Violation>) -> Self {
        Self { watcher, channel, index, at: None, held: HashMap::new(), owed: Vec::new(), found }
    }

    fn go(&mut self, heard: &[Heard], seen: &mut Seen, figures: &mut Figures) {
        for heard in heard {
            match heard {
                Heard::Since { place } => self.at = Some(*place),
                Heard::Delivered { place, prev_seq, token } => {
                    figures.delivered += 1;
                    self.delivered(*place, *prev_seq, *token);
                    seen.note(self.channel, *place, *token, self.found);
                }
                Heard::Omitted { from, to } => {
                    figures.omitted += to.saturating_sub(*from) + 1;
                    self.omitted(*from, *to);
                }
                // Whether it was mended shows in what comes after it.
                Heard::Gap { .. } => figures.gaps += 1,
                Heard::Snapshot { place, values } => {
                    figures.snapshots += 1;
                    figures.by_snapshot += self.snapshot(*place, values);
                }
                Heard::EpochChanged => figures.epoch_changes += 1,
            }
        }
    }

    fn delivered(&mut self, place: Place, prev_seq: u64, token: Token) {
        let (watcher, channel) = (self.watcher, self.channel);
        match self.at {
            Some(at) if at.life == place.life => {
                if place.seq <= at.seq {
                    return self.found.push(Violation::Repeated { watcher, channel, place });
                }
                if prev_seq > at.seq {
                    self.found.push(Violation::Hole { watcher, channel, from: at.seq + 1, to: prev_seq });
                }
                self.lost_between(at, place.seq - 1);
            }
            _ => self.found.push(Violation::Unannounced { watcher, channel, place }),
        }
        self.at = Some(place);
        if let Some(key) = self.index.keys.get(&token) {
            self.held.insert(*key, place);
        }
    }

    fn omitted(&mut self, from: u64, to: u64) {
        let (watcher, channel) = (self.watcher, self.channel);
        let Some(at) = self.at else { return };
        if from > at.seq + 1 {
            self.found.push(Violation::Hole { watcher, channel, from: at.seq + 1, to: from - 1 });
            self.lost_between(at, from - 1);
        }
        let range = self.between(at, to);
        for (place, publication) in self.index.acked.range(range) {
            match publication.key {
                Some(key) => self.owed.push((key, *place)),
                None => self.found.push(Violation::EventOmitted { watcher, channel, place: *place }),
            }
        }
        self.at = Some(Place { life: at.life, seq: to.max(at.seq) });
    }

    /// Returns how many acknowledged publications it came over.
    fn snapshot(&mut self, place: Place, values: &[(KeyId, u64, Token)]) -> u64 {
        let (watcher, channel) = (self.watcher, self.channel);
        let before = self.at.replace(place).filter(|at| at.life == place.life);
        if before.is_some_and(|at| place.seq < at.seq) {
            self.found.push(Violation::WentBack { watcher, channel, place });
        }
        let values: HashMap<KeyId, u64> = values.iter().map(|(key, seq, _)| (*key, *seq)).collect();
        for (key, seq) in self.index.values_at(place) {
            if values.get(&key).is_none_or(|got| *got < seq) {
                self.found.push(Violation::StaleSnapshot { watcher, channel, place, key });
            }
        }
        let life = place.life;
        self.held = values.into_iter().map(|(key, seq)| (key, Place { life, seq })).collect();
        let over = before.map_or(0, |at| self.index.acked.range(self.between(at, place.seq)).count());
        over as u64
    }

    /// What was acknowledged after the last thing that came is lost.
    fn end(&mut self) {
        if let Some(at) = self.at {
            self.lost_between(at, u64::MAX);
        }
        self.settle();
    }

    /// A value without a later one is lost.
    fn settle(&mut self) {
        let (watcher, channel) = (self.watcher, self.channel);
        for (key, place) in std::mem::take(&mut self.owed) {
            let later = self.held.get(&key).is_some_and(|held| held.life != place.life || *held > place);
            if !later {
                self.found.push(Violation::NoLaterValue { watcher, channel, key, place });
            }
        }
    }

    fn lost_between(&mut self, at: Place, to: u64) {
        let (watcher, channel) = (self.watcher, self.channel);
        for (place, publication) in self.index.acked.range(self.between(at, to)) {
            let token = publication.token;
            self.found.push(Violation::Lost { watcher, channel, place: *place, token });
        }
    }

    fn between(&self, at: Place, to: u64) -> (std::ops::Bound<Place>, std::ops::Bound<Place>) {
        (Excluded(at), Included(Place { life: at.life, seq: to.max(at.seq) }))
    }
}
