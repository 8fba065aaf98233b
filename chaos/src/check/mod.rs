//! Judges what a run has recorded. Pure, so that its tests can feed it histories in which something is wrong.
//!
//! It takes the client's word for nothing: that the client announces no gap does not make what it delivered
//! complete. Every acknowledged publication is looked for in what every watcher was told.

mod track;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::history::{CHANNELS, History, KeyId, NO_TOKEN, Outcome, Place, Publication, Token};

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Two publications were told that they have the same place.
    PlaceTwice { channel: usize, place: Place, tokens: [Token; 2] },
    /// A publication stands at two places of one life.
    StoredTwice { channel: usize, token: Token, places: [Place; 2] },
    /// A place holds something else than what was acknowledged, or than another watcher got.
    OtherData { channel: usize, place: Place, expected: Token, got: Token },
    /// A node refused what is right.
    Refused { channel: usize, token: Token, status: u16 },
    /// A watcher has never been told of something acknowledged.
    Lost { watcher: usize, channel: usize, place: Place, token: Token },
    /// A watcher was told that an occurrence was left out; only values may be.
    EventOmitted { watcher: usize, channel: usize, place: Place },
    /// A value was left out for a later one that did not come.
    NoLaterValue { watcher: usize, channel: usize, key: KeyId, place: Place },
    /// What follows does not follow what was there before, and nobody said so.
    Hole { watcher: usize, channel: usize, from: u64, to: u64 },
    /// Something came again, or too late.
    Repeated { watcher: usize, channel: usize, place: Place },
    /// Something of another life, or of none yet, without a snapshot before it.
    Unannounced { watcher: usize, channel: usize, place: Place },
    /// A snapshot from before what was known already.
    WentBack { watcher: usize, channel: usize, place: Place },
    /// A snapshot lacks what was acknowledged before its position.
    StaleSnapshot { watcher: usize, channel: usize, place: Place, key: KeyId },
    /// In the end a key has not its last acknowledged value.
    WrongEnd { watcher: usize, channel: usize, key: KeyId, expected: Token, got: Option<Token> },
    /// Two watchers have different values in the end.
    Disagree { watchers: [usize; 2], channel: usize, key: KeyId },
    /// A watcher did not come to the end of what was acknowledged.
    Stuck { watcher: usize, why: String },
}

/// What a history has in it, beside what is wrong with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub acked: u64,
    pub unknown: u64,
    pub delivered: u64,
    pub omitted: u64,
    /// Acknowledged publications that a watcher did not get one by one, because a snapshot came over them.
    pub by_snapshot: u64,
    pub snapshots: u64,
    /// That clients noticed and had mended.
    pub gaps: u64,
    pub epoch_changes: u64,
    /// Frames that clients filtered out.
    pub filtered: u64,
    /// Messages that clients could not read.
    pub unknown_messages: u64,
}

/// What is known of one channel's publications.
struct Index<'a> {
    /// What was acknowledged, by its place.
    acked: BTreeMap<Place, &'a Publication>,
    /// Acknowledged updates of each key, in their order.
    updates: HashMap<KeyId, Vec<(Place, Token)>>,
    /// The key of each update, acknowledged or not.
    keys: HashMap<Token, KeyId>,
    /// The greatest acknowledged token of each key.
    last: BTreeMap<KeyId, Token>,
    /// Tokens of updates whose outcome is unknown.
    unknown: HashMap<KeyId, Vec<Token>>,
}

/// What all watchers together have seen of one channel.
#[derive(Default)]
struct Seen {
    at: HashMap<Place, Token>,
    places: HashMap<(Token, crate::history::Life), Place>,
}

/// Everything that is wrong with a history.
pub fn check(history: &History) -> (Figures, Vec<Violation>) {
    let mut found = Vec::new();
    let mut figures = Figures::default();
    for publication in &history.publications {
        match publication.outcome {
            Outcome::Acked(_) => figures.acked += 1,
            Outcome::Unknown => figures.unknown += 1,
            Outcome::Refused(status) => {
                let Publication { channel, token, .. } = *publication;
                found.push(Violation::Refused { channel, token, status });
            }
        }
    }
    for watcher in &history.watchers {
        figures.filtered += watcher.filtered;
        figures.unknown_messages += watcher.unknown;
        if let Some(why) = &watcher.failure {
            found.push(Violation::Stuck { watcher: watcher.number, why: why.clone() });
        }
    }
    for channel in 0..CHANNELS.len() {
        let index = Index::new(history, channel, &mut found);
        let mut seen = Seen::default();
        for (place, publication) in &index.acked {
            seen.note(channel, *place, publication.token, &mut found);
        }
        for watcher in &history.watchers {
            let Some(track) = watcher.tracks.get(channel) else { continue };
            track::check(watcher.number, channel, &track.heard, &index, &mut seen, &mut figures, &mut found);
            check_end(watcher.number, channel, &track.end, &index, &mut found);
        }
        check_agreement(history, channel, &mut found);
        for race in history.races.iter().filter(|race| race.channel == channel) {
            track::check_visit(
                race.number,
                channel,
                &race.heard,
                &index,
                &mut seen,
                &mut figures,
                &mut found,
            );
        }
    }
    (figures, found)
}

impl<'a> Index<'a> {
    fn new(history: &'a History, channel: usize, found: &mut Vec<Violation>) -> Self {
        let mut index = Self {
            acked: BTreeMap::new(),
            updates: HashMap::new(),
            keys: HashMap::new(),
            last: BTreeMap::new(),
            unknown: HashMap::new(),
        };
        for publication in history.publications.iter().filter(|one| one.channel == channel) {
            let token = publication.token;
            index.keys.extend(publication.key.map(|key| (token, key)));
            let place = match (publication.outcome, publication.key) {
                (Outcome::Acked(place), _) => place,
                (Outcome::Unknown, Some(key)) => {
                    index.unknown.entry(key).or_default().push(token);
                    continue;
                }
                (Outcome::Unknown, None) | (Outcome::Refused(_), _) => continue,
            };
            if let Some(key) = publication.key {
                index.updates.entry(key).or_default().push((place, token));
                let last = index.last.entry(key).or_default();
                *last = token.max(*last);
            }
            if let Some(other) = index.acked.insert(place, publication)
                && other.token != token
            {
                found.push(Violation::PlaceTwice { channel, place, tokens: [other.token, token] });
            }
        }
        index.updates.values_mut().for_each(|updates| updates.sort_unstable());
        index
    }

    /// The last acknowledged update of each key up to a place, in that life.
    fn values_at(&self, place: Place) -> impl Iterator<Item = (KeyId, u64)> {
        self.updates.iter().filter_map(move |(key, updates)| {
            let until = updates.partition_point(|(at, _)| *at <= place);
            let (at, _) = updates.get(until.checked_sub(1)?)?;
            (at.life == place.life).then_some((*key, at.seq))
        })
    }
}

impl Seen {
    /// What stands at a place, from an acknowledgement or a watcher.
    fn note(&mut self, channel: usize, place: Place, token: Token, found: &mut Vec<Violation>) {
        let expected = *self.at.entry(place).or_insert(token);
        if expected != token {
            return found.push(Violation::OtherData { channel, place, expected, got: token });
        }
        if token == NO_TOKEN {
            return;
        }
        let first = *self.places.entry((token, place.life)).or_insert(place);
        if first != place {
            found.push(Violation::StoredTwice { channel, token, places: [first, place] });
        }
    }
}

fn check_end(
    watcher: usize,
    channel: usize,
    end: &[(KeyId, Token)],
    index: &Index<'_>,
    found: &mut Vec<Violation>,
) {
    let end: HashMap<KeyId, Token> = end.iter().copied().collect();
    for (key, expected) in &index.last {
        let got = end.get(key).copied();
        let may_be_newer = |got: Token| {
            got > *expected && index.unknown.get(key).is_some_and(|tokens| tokens.contains(&got))
        };
        if got != Some(*expected) && !got.is_some_and(may_be_newer) {
            found.push(Violation::WrongEnd { watcher, channel, key: *key, expected: *expected, got });
        }
    }
}

fn check_agreement(history: &History, channel: usize, found: &mut Vec<Violation>) {
    let ends = history.watchers.iter().filter(|watcher| watcher.failure.is_none());
    let mut ends = ends.filter_map(|watcher| {
        let end: BTreeMap<KeyId, Token> = watcher.tracks.get(channel)?.end.iter().copied().collect();
        Some((watcher.number, end))
    });
    let Some((first, expected)) = ends.next() else { return };
    for (other, end) in ends {
        let differing = expected.iter().find(|(key, token)| end.get(key) != Some(token));
        let differing = differing.or_else(|| end.iter().find(|(key, _)| !expected.contains_key(key)));
        if let Some((key, _)) = differing {
            found.push(Violation::Disagree { watchers: [first, other], channel, key: *key });
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |channel: &usize| CHANNELS.get(*channel).map_or("?", |channel| channel.subscription);
        match self {
            Self::PlaceTwice { channel, place, tokens: [a, b] } => {
                write!(f, "{} {place}: acknowledged to both {a:x} and {b:x}", name(channel))
            }
            Self::StoredTwice { channel, token, places: [a, b] } => {
                write!(f, "{}: {token:x} stands at {a} and at {b}", name(channel))
            }
            Self::OtherData { channel, place, expected, got } => {
                write!(f, "{} {place}: holds {got:x} instead of {expected:x}", name(channel))
            }
            Self::Refused { channel, token, status } => {
                write!(f, "{}: {token:x} was refused with {status}", name(channel))
            }
            Self::Lost { watcher, channel, place, token } => {
                write!(
                    f,
                    "watcher {watcher}: {} {place} ({token:x}) was acknowledged and lost",
                    name(channel)
                )
            }
            Self::EventOmitted { watcher, channel, place } => {
                write!(f, "watcher {watcher}: {} {place} is an event and was left out", name(channel))
            }
            Self::NoLaterValue { watcher, channel, key, place } => {
                write!(
                    f,
                    "watcher {watcher}: {} {place} was left out and key {key:x} got none later",
                    name(channel)
                )
            }
            Self::Hole { watcher, channel, from, to } => {
                write!(
                    f,
                    "watcher {watcher}: {} {from} to {to} are missing and nobody said so",
                    name(channel)
                )
            }
            Self::Repeated { watcher, channel, place } => {
                write!(f, "watcher {watcher}: {} {place} came again or too late", name(channel))
            }
            Self::Unannounced { watcher, channel, place } => {
                write!(f, "watcher {watcher}: {} {place} came without a snapshot of its life", name(channel))
            }
            Self::WentBack { watcher, channel, place } => {
                write!(f, "watcher {watcher}: a snapshot of {} at {place} is from the past", name(channel))
            }
            Self::StaleSnapshot { watcher, channel, place, key } => {
                write!(
                    f,
                    "watcher {watcher}: a snapshot of {} at {place} has an old value of {key:x}",
                    name(channel)
                )
            }
            Self::WrongEnd { watcher, channel, key, expected, got } => {
                write!(
                    f,
                    "watcher {watcher}: {} key {key:x} ends as {got:x?} instead of {expected:x}",
                    name(channel)
                )
            }
            Self::Disagree { watchers: [a, b], channel, key } => {
                write!(f, "watchers {a} and {b} differ in {} key {key:x}", name(channel))
            }
            Self::Stuck { watcher, why } => write!(f, "watcher {watcher} did not come to the end: {why}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.life.0, self.seq)
    }
}
