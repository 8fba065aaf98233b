//! A node's own copy of the logs of a bus that lives elsewhere.
//!
//! A link to the bus (NATS, Redis) writes it, in order: what is left of a log when it begins, then every
//! publication. Followers and the checks before publishing read it. It knows no broker.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::{Position, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};

use super::follower::{Joined, LAG_MAX, Logs, Places};
use super::rules::{self, Fingerprint};
use super::{Ack, BusEvent, DUPLICATE_WINDOW, Publish, PublishError, Reset, Signal, Stored};
use crate::catalog::SubId;
use crate::log::{CompactedLog, ValueKey};
use crate::per_sub::PerSub;

/// Repeats that are remembered per subscription at most. The bus itself knows all of the window; these
/// only save the question.
const REPEATS_MAX: usize = 16_384;

/// The copies of all logs of the node.
pub(super) struct Mirror {
    logs: PerSub<Copy>,
    /// `None` once the bus has shut down. Events are sent while the log's own lock is held, so that who
    /// joins misses and repeats nothing.
    live: Mutex<Option<broadcast::Sender<BusEvent>>>,
}

/// One log.
#[derive(Default)]
struct Copy {
    state: Mutex<State>,
    /// The head, for those who wait for a publication to arrive.
    head: watch::Sender<Option<Position>>,
}

#[derive(Default)]
struct State {
    /// None until the link has read it for the first time.
    log: Option<CompactedLog<Arc<Stored>>>,
    repeats: HashMap<Fingerprint, Seen>,
    order: VecDeque<Fingerprint>,
    /// The keys of publications that are on their way to the bus, and the bytes they will have.
    under_way: HashMap<ValueKey, (usize, usize)>,
}

/// A publication that a repeat would be known by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) seq: u64,
    pub(super) data: Fingerprint,
    pub(super) at: Timestamp,
}

/// What the copy says about a publication that is to be stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It repeats an earlier one, which has this place.
    Repeat(Ack),
    /// It may be stored, if `latest` (0: none) is still the last message of its key.
    Store { latest: u64 },
}

/// Takes back what a publication that is on its way has reserved.
pub(super) struct Reserved<'a> {
    copy: &'a Copy,
    key: Option<ValueKey>,
}

impl Mirror {
    pub(super) fn new(logs: usize) -> Self {
        let logs = std::iter::repeat_with(Copy::default).take(logs).collect();
        Self { logs, live: Mutex::new(Some(broadcast::channel(LAG_MAX).0)) }
    }

    /// Makes room for the copy of one more log.
    pub(super) fn open(&self) -> Option<SubId> {
        self.logs.push(Copy::default())
    }

    /// Replaces a log by what is left of it.
    pub(super) fn reset(&self, reset: Reset) {
        let copy = &self.logs[reset.sub];
        let mut state = copy.state.lock();
        let entries = reset.entries.iter().cloned();
        state.log = Some(CompactedLog::restore(reset.epoch.clone(), reset.head, reset.floor, entries));
        state.repeats.clear();
        state.order.clear();
        copy.head.send_replace(Some(Position { epoch: reset.epoch.clone(), seq: reset.head }));
        self.send(BusEvent::Reset(reset));
    }

    /// Adds the next publication; false when it is none of this life of the log, or not beyond the head.
    pub(super) fn append(
        &self,
        stored: Arc<Stored>,
        now: Timestamp,
        repeat: Option<(Fingerprint, Seen)>,
    ) -> bool {
        let copy = &self.logs[stored.sub];
        let mut state = copy.state.lock();
        let Some(log) = state.log.as_mut().filter(|log| *log.epoch() == stored.epoch) else { return false };
        if stored.seq <= log.head() {
            return false;
        }
        log.append(Arc::clone(&stored));
        log.expire(now);
        state.remember(repeat, now);
        copy.head.send_replace(Some(Position { epoch: stored.epoch.clone(), seq: stored.seq }));
        self.send(BusEvent::Stored(stored));
        true
    }

    /// Remembers how a repeat of what a log began with is known.
    pub(super) fn remember(&self, sub: SubId, repeat: (Fingerprint, Seen), now: Timestamp) {
        self.logs[sub].state.lock().remember(Some(repeat), now);
    }

    pub(super) fn probed(&self, nonce: u64) {
        self.send(BusEvent::Probe(nonce));
    }

    pub(super) fn told(&self, signal: Signal) {
        self.send(BusEvent::Told(signal));
    }

    /// Nobody following is no error: the log has it.
    fn send(&self, event: BusEvent) {
        if let Some(live) = &*self.live.lock() {
            let _ = live.send(event);
        }
    }

    /// Ends all followers, once they have read what is on its way.
    pub(super) fn end(&self) {
        self.live.lock().take();
    }

    /// Epoch and head of a log; none before it was read.
    pub(super) fn position(&self, sub: SubId) -> Option<Position> {
        self.logs[sub].head.borrow().clone()
    }

    /// Epoch and head of every log that was read.
    pub(super) fn positions(&self) -> Vec<(SubId, Position)> {
        self.logs.iter().filter_map(|(sub, copy)| Some((sub, copy.head.borrow().clone()?))).collect()
    }

    /// Waits until the copy has come as far as `seq`; false when it has not within `patience`.
    pub(super) async fn reached(&self, sub: SubId, seq: u64, patience: Duration) -> bool {
        self.wait(sub, patience, |at| at.seq >= seq).await
    }

    /// The same for a place of one life of the log.
    pub(super) async fn reached_place(&self, sub: SubId, place: &Position, patience: Duration) -> bool {
        self.wait(sub, patience, |at| at.epoch == place.epoch && at.seq >= place.seq).await
    }

    async fn wait(&self, sub: SubId, patience: Duration, there: impl Fn(&Position) -> bool) -> bool {
        let mut head = self.logs[sub].head.subscribe();
        let arrived = head.wait_for(|head| head.as_ref().is_some_and(&there));
        // The sender is in `self`.
        matches!(tokio::time::timeout(patience, arrived).await, Ok(Ok(_)))
    }

    /// Decides by the copy as it is now. What is stored takes its room until `Reserved` is dropped.
    pub(super) fn decide(&self, publish: &Publish) -> Result<(Decision, Reserved<'_>), PublishError> {
        let copy = &self.logs[publish.sub];
        let mut state = copy.state.lock();
        let nothing = Reserved { copy, key: None };
        if let Some(found) = state.repeated(publish) {
            return found.map(|ack| (Decision::Repeat(ack), nothing));
        }
        let State { log: Some(log), under_way, .. } = &mut *state else {
            return Err(PublishError::Unavailable(super::Unavailable {
                reason: "the logs have not been read yet".to_owned(),
            }));
        };
        rules::check_expected(publish.expect, rules::actual(log, publish.key.as_ref()))?;
        rules::check_room(log, publish, under_way.iter().map(|(key, (bytes, _))| (key, *bytes)))?;
        let latest = publish.key.as_ref().and_then(|key| log.latest(key)).map_or(0, |stored| stored.seq);
        let key = publish.key.clone().filter(|_| !publish.removes);
        if let Some(key) = &key {
            let bytes = publish.envelope.data.as_str().len();
            let (most, count) = under_way.entry(key.clone()).or_default();
            *most = bytes.max(*most);
            *count += 1;
        }
        Ok((Decision::Store { latest }, Reserved { copy, key }))
    }

    /// Whether an earlier publication is known that this one repeats.
    pub(super) fn repeated(&self, publish: &Publish) -> Option<Result<Ack, PublishError>> {
        self.logs[publish.sub].state.lock().repeated(publish)
    }

    /// What is left of the logs beyond these places; `None` when the bus has ended.
    pub(super) fn joined(&self, known: &Places) -> Option<Joined> {
        // All locks at once, in order: what is missed and what comes are cut at one moment.
        let states: Vec<_> = self.logs.iter().map(|(sub, copy)| (sub, copy.state.lock())).collect();
        let live = self.live.lock().as_ref()?.subscribe();
        let mut missed = Vec::new();
        for (sub, state) in &states {
            let Some(log) = &state.log else { continue };
            let rest = known.get(sub).filter(|(epoch, _)| epoch == log.epoch());
            match rest.and_then(|(_, seq)| log.after(*seq)) {
                Some(rest) => missed.extend(rest.map(|stored| BusEvent::Stored(Arc::clone(stored)))),
                None => missed.push(BusEvent::Reset(Reset {
                    sub: *sub,
                    epoch: log.epoch().clone(),
                    head: log.head(),
                    floor: log.floor(),
                    entries: log.entries().cloned().collect(),
                })),
            }
        }
        Some(Joined { missed, live })
    }
}

impl State {
    fn remember(&mut self, repeat: Option<(Fingerprint, Seen)>, now: Timestamp) {
        if let Some((name, seen)) = repeat
            && self.repeats.insert(name, seen).is_none()
        {
            self.order.push_back(name);
        }
        let window = DUPLICATE_WINDOW.as_millis() as u64;
        while let Some(name) = self.order.front() {
            let old = self.repeats.get(name).is_none_or(|seen| now.millis_since(seen.at) > window);
            if !old && self.order.len() <= REPEATS_MAX {
                break;
            }
            self.repeats.remove(name);
            self.order.pop_front();
        }
    }

    fn repeated(&self, publish: &Publish) -> Option<Result<Ack, PublishError>> {
        let (name, data) = rules::fingerprints(publish)?;
        let seen = self.repeats.get(&name)?;
        let window = DUPLICATE_WINDOW.as_millis() as u64;
        if publish.envelope.timestamp.millis_since(seen.at) > window {
            return None;
        }
        let epoch = self.log.as_ref()?.epoch().clone();
        Some(match seen.data == data {
            true => Ok(Ack { epoch, seq: seen.seq, duplicate: true }),
            false => Err(PublishError::IdempotencyConflict { seq: seen.seq }),
        })
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let under_way = &mut self.copy.state.lock().under_way;
        if let Some((_, count)) = under_way.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&key);
            }
        }
    }
}

impl Logs for Arc<Mirror> {
    fn join(&self, known: Places) -> super::Call<'_, Option<Joined>> {
        Box::pin(async move { self.joined(&known) })
    }
}
