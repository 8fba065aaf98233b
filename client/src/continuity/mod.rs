//! What to do with each frame of a server, so that nothing is missed silently (CONTRACT sections 4 and
//! 5). Pure: frames in, [`Effect`]s out; the socket, the clock and the caller are [`crate::Client`]'s.
//!
//! Each subscription is a log whose frames name the place before them, so a hole is arithmetic. A hole
//! that nobody announced is a gap: the client asks for what follows its position and delivers nothing of
//! that subscription until the answer tells whether a replay or a snapshot mends it. What arrives in
//! between and belongs after the hole is dropped: the replay or the snapshot has it, and if it should
//! not, the next frame shows a gap again.

mod effect;
mod snapshot;
mod state;
mod track;

use std::collections::BTreeMap;

use hiveops_proto::position::Recovered;
use hiveops_proto::{Positions, ServerFrame, SubscriptionName, SubscriptionSet};

pub use effect::Effect;
pub use state::{Item, KEYS_MAX, State};
pub use track::NOWHERE;

use track::Track;

/// The continuity of all subscriptions of a client, over all of its connections.
#[derive(Debug, Default)]
pub struct Continuity {
    tracks: BTreeMap<SubscriptionName, Track>,
    begun: bool,
    progress: u64,
}

impl Continuity {
    /// Continuity that goes on at `since`, with empty states.
    pub fn new(since: Positions) -> Self {
        let tracks = since.into_iter().map(|(name, position)| (name, Track::at(position))).collect();
        Self { tracks, ..Self::default() }
    }

    /// A new connection is made: nothing counts until its `dashboard_initialized`. Returns the `since` to
    /// connect with. A snapshot of which parts are missing is forgotten; the state before it still holds.
    pub fn begin(&mut self) -> Positions {
        self.begun = false;
        self.tracks.values_mut().for_each(Track::begin);
        self.positions()
    }

    /// Takes in a frame.
    pub fn handle(&mut self, frame: &ServerFrame) -> Vec<Effect> {
        let mut step = Step::default();
        match frame {
            ServerFrame::Publication(frame) => {
                self.with(&frame.subscription, &mut step, |track, step| track.on_publication(frame, step));
            }
            ServerFrame::Coalesced(frame) => {
                self.with(&frame.subscription, &mut step, |track, step| track.on_coalesced(frame, step));
            }
            ServerFrame::Snapshot(frame) => {
                self.with(&frame.subscription, &mut step, |track, step| track.on_snapshot(frame, step));
            }
            ServerFrame::DashboardInitialized(frame) => {
                step.effects.push(Effect::Deliver);
                self.begun = true;
                self.start(&frame.subscriptions, &frame.recovered, &frame.positions, &mut step);
            }
            ServerFrame::SubscriptionUpdated(frame) => {
                step.effects.push(Effect::Deliver);
                self.start(&frame.subscriptions, &frame.recovered, &frame.positions, &mut step);
            }
            ServerFrame::Heartbeat(frame) => self.on_heads(&frame.positions, &mut step),
            ServerFrame::Pong(frame) => self.on_heads(&frame.positions, &mut step),
            ServerFrame::ConnectionEstablished(_)
            | ServerFrame::DataResponse(_)
            | ServerFrame::DataError(_)
            | ServerFrame::ErrorFrame(_)
            | ServerFrame::AuthExpiring(_)
            | ServerFrame::AuthRefreshed(_)
            | ServerFrame::VersionWarning(_)
            | ServerFrame::DisconnectNotice(_) => step.effects.push(Effect::Deliver),
        }
        self.progress += u64::from(step.progress);
        step.into_effects()
    }

    /// Nothing has come for what [`Continuity::is_pending`] waits for in a reasonable time: the question
    /// or the answer is lost (a node may drop a message over the rate). Asks again.
    pub fn overdue(&mut self) -> Vec<Effect> {
        let mut step = Step::default();
        if self.begun {
            let pending = self.tracks.iter_mut().filter(|(_, track)| track.is_pending());
            pending.for_each(|(name, track)| track.ask(name, &mut step));
        }
        self.progress += 1;
        step.into_effects()
    }

    /// Whether a subscription waits for an answer, a snapshot or a replay.
    pub fn is_pending(&self) -> bool {
        self.begun && self.tracks.values().any(Track::is_pending)
    }

    /// Grows whenever something came that a pending subscription waits for.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// Where the client stands in each subscription that has begun.
    pub fn positions(&self) -> Positions {
        let place = |(name, track): (&SubscriptionName, &Track)| Some((name.clone(), track.position()?));
        self.tracks.iter().filter_map(place).collect()
    }

    /// The subscriptions that the node counts to this session, or did when there was one.
    pub fn names(&self) -> impl Iterator<Item = &SubscriptionName> {
        self.tracks.keys()
    }

    /// The latest value of every key of a subscription.
    pub fn state(&self, subscription: &str) -> Option<&State> {
        self.tracks.get(subscription).map(Track::state)
    }

    fn with(&mut self, name: &SubscriptionName, step: &mut Step, handle: impl FnOnce(&mut Track, &mut Step)) {
        match self.tracks.get_mut(name) {
            Some(track) => handle(track, step),
            None => step.effects.push(Effect::Stray { subscription: name.clone() }),
        }
    }

    /// The node has said what is joined, and how what was newly joined begins.
    fn start(&mut self, joined: &SubscriptionSet, recovered: &Recovered, heads: &Positions, step: &mut Step) {
        step.progress = true;
        let left: Vec<SubscriptionName> =
            self.tracks.keys().filter(|name| !joined.contains(name.as_str())).cloned().collect();
        for subscription in left {
            self.tracks.remove(&subscription);
            step.effects.push(Effect::Left { subscription });
        }
        for name in joined.iter() {
            let is_new = !self.tracks.contains_key(name);
            let track = self.tracks.entry(name.clone()).or_default();
            match recovered.get(name) {
                Some(true) => track.continues(name, heads.get(name), step),
                Some(false) => track.restarts(),
                // Joined without a word on how it begins: only asking can tell.
                None if is_new => track.ask(name, step),
                None => {}
            }
        }
    }

    /// Frames of one connection are in order, so a head beyond our position is a tail that got lost.
    fn on_heads(&mut self, heads: &Positions, step: &mut Step) {
        step.effects.push(Effect::Deliver);
        for (name, head) in heads {
            if let Some(track) = self.tracks.get_mut(name) {
                track.on_head(name, head, step);
            }
        }
    }
}

/// What one frame leads to.
#[derive(Default)]
struct Step {
    effects: Vec<Effect>,
    /// All subscriptions that one frame shows to be broken are asked for with one message.
    since: Positions,
    progress: bool,
}

impl Step {
    fn into_effects(mut self) -> Vec<Effect> {
        if !self.since.is_empty() {
            self.effects.push(Effect::Resubscribe { since: self.since });
        }
        self.effects
    }
}
