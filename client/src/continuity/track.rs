//! One subscription: where the client stands in its log, and what it waits for.

use hiveops_proto::frame::{Coalesced, Publication, Snapshot};
use hiveops_proto::{Epoch, Position, SubscriptionName};

use super::snapshot::{Parts, Taken};
use super::state::State;
use super::{Effect, Step};

/// The epoch of no log. Asking to go on there is the contract's way to ask for a snapshot of something
/// that is joined already: no node can continue it. Ours are 16 hexadecimal digits.
pub const NOWHERE: &str = "0";

/// A gap that shows again this often although nothing was delivered in between is not mended by
/// replays: the next question asks for a snapshot.
const FRUITLESS_MAX: u32 = 3;

/// What a subscription waits for.
#[derive(Debug)]
enum Phase {
    /// The node's word on how it begins or goes on.
    Asked,
    /// A snapshot, of which some parts may be here.
    Snapshot(Option<Parts>),
    /// A replay up to the head that the node named.
    Replay { until: u64 },
    /// The next publication.
    Live,
}

/// One subscription of a client.
#[derive(Debug)]
pub(super) struct Track {
    phase: Phase,
    position: Option<Position>,
    state: State,
    fruitless: u32,
}

impl Default for Track {
    fn default() -> Self {
        Self { phase: Phase::Asked, position: None, state: State::default(), fruitless: 0 }
    }
}

impl Track {
    pub(super) fn at(position: Position) -> Self {
        Self { position: Some(position), ..Self::default() }
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.position.clone()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn is_pending(&self) -> bool {
        match self.phase {
            Phase::Asked | Phase::Snapshot(_) | Phase::Replay { .. } => true,
            Phase::Live => false,
        }
    }

    /// A new connection: the node will say how it goes on.
    pub(super) fn begin(&mut self) {
        self.phase = Phase::Asked;
        self.fruitless = 0;
    }

    /// The node goes on where we stand; up to `head` it is a replay.
    pub(super) fn continues(&mut self, name: &SubscriptionName, head: Option<&Position>, step: &mut Step) {
        match (&self.position, head) {
            (Some(position), Some(head)) if position.epoch == head.epoch => {
                self.phase = Phase::Replay { until: head.seq };
                self.settle();
            }
            // It cannot go on where we never were. Only a snapshot is sure to be right.
            _ => self.ask_anew(name, step),
        }
    }

    /// A snapshot follows.
    pub(super) fn restarts(&mut self) {
        self.phase = Phase::Snapshot(None);
    }

    pub(super) fn on_publication(&mut self, frame: &Publication, step: &mut Step) {
        let name = &frame.subscription;
        let Some(position) = self.following() else { return withhold(name, step) };
        if position.epoch != frame.epoch {
            return self.ask(name, step);
        }
        let at = position.seq;
        if frame.seq <= at {
            return step.effects.push(Effect::Duplicate { subscription: name.clone() });
        }
        if frame.prev_seq > at {
            // A replay leaves out what was overwritten meanwhile: the later value is in it.
            if !frame.replayed {
                return self.gap(name, at + 1, frame.prev_seq, step);
            }
            step.effects.push(omitted(name, at + 1, frame.prev_seq));
        }
        self.state.apply(frame);
        self.advance(frame.seq, step);
        step.effects.push(Effect::Deliver);
    }

    pub(super) fn on_coalesced(&mut self, frame: &Coalesced, step: &mut Step) {
        let name = &frame.subscription;
        let in_replay = matches!(self.phase, Phase::Replay { .. });
        let Some(position) = self.following() else { return withhold(name, step) };
        if position.epoch != frame.epoch {
            return self.ask(name, step);
        }
        let at = position.seq;
        if frame.to_seq <= at {
            return step.effects.push(Effect::Duplicate { subscription: name.clone() });
        }
        if frame.from_seq > at + 1 && !in_replay {
            return self.gap(name, at + 1, frame.from_seq - 1, step);
        }
        step.effects.push(omitted(name, at + 1, frame.to_seq));
        self.advance(frame.to_seq, step);
    }

    pub(super) fn on_snapshot(&mut self, frame: &Snapshot, step: &mut Step) {
        let name = &frame.subscription;
        let parts = match &mut self.phase {
            Phase::Asked => return withhold(name, step),
            Phase::Snapshot(parts) => parts.take(),
            // Nobody asked: a node may renew what it knows to be broken, but never turn back the clock.
            Phase::Replay { .. } | Phase::Live => match &self.position {
                Some(at) if at.epoch == frame.epoch && frame.seq < at.seq => {
                    return step.effects.push(Effect::Duplicate { subscription: name.clone() });
                }
                _ => None,
            },
        };
        match Parts::take(parts, frame) {
            Taken::More(parts) => {
                self.phase = Phase::Snapshot(Some(parts));
                step.progress = true;
                let (part, parts) = (frame.part, frame.parts);
                step.effects.push(Effect::SnapshotPart { subscription: name.clone(), part, parts });
            }
            Taken::Complete(items) => {
                self.state = State::of_snapshot(&items);
                let (epoch, seq) = (frame.epoch.clone(), frame.seq);
                let before = self.position.replace(Position { epoch: epoch.clone(), seq });
                if let Some(before) = before.filter(|before| before.epoch != epoch) {
                    let (from, to) = (before.epoch, epoch.clone());
                    step.effects.push(Effect::EpochChanged { subscription: name.clone(), from, to });
                }
                self.phase = Phase::Live;
                self.fruitless = 0;
                step.progress = true;
                step.effects.push(Effect::Snapshot { subscription: name.clone(), epoch, seq, items });
            }
            Taken::Broken => self.ask_anew(name, step),
        }
    }

    /// The node named the head of the log. While a snapshot or a replay is still on its way, that says
    /// nothing: it may stand before what we wait for.
    pub(super) fn on_head(&mut self, name: &SubscriptionName, head: &Position, step: &mut Step) {
        let (Phase::Live, Some(position)) = (&self.phase, &self.position) else { return };
        if position.epoch != head.epoch {
            self.ask(name, step);
        } else if head.seq > position.seq {
            self.gap(name, position.seq + 1, head.seq, step);
        }
    }

    /// Asks the node to go on where we stand, or for a snapshot when that cannot help.
    pub(super) fn ask(&mut self, name: &SubscriptionName, step: &mut Step) {
        if self.fruitless >= FRUITLESS_MAX {
            return self.ask_anew(name, step);
        }
        match self.position.clone() {
            Some(position) => self.ask_at(name, position, step),
            None => self.ask_anew(name, step),
        }
    }

    fn ask_anew(&mut self, name: &SubscriptionName, step: &mut Step) {
        let epoch = Epoch::new(NOWHERE).expect("a digit is an epoch");
        self.ask_at(name, Position { epoch, seq: 0 }, step);
    }

    fn ask_at(&mut self, name: &SubscriptionName, position: Position, step: &mut Step) {
        self.phase = Phase::Asked;
        self.fruitless += 1;
        step.progress = true;
        step.since.insert(name.clone(), position);
    }

    fn gap(&mut self, name: &SubscriptionName, from: u64, to: u64, step: &mut Step) {
        step.effects.push(Effect::Gap { subscription: name.clone(), from, to });
        self.ask(name, step);
    }

    /// The position, when publications count.
    fn following(&self) -> Option<&Position> {
        match self.phase {
            Phase::Asked | Phase::Snapshot(_) => None,
            Phase::Replay { .. } | Phase::Live => self.position.as_ref(),
        }
    }

    fn advance(&mut self, seq: u64, step: &mut Step) {
        step.progress |= self.is_pending();
        self.fruitless = 0;
        if let Some(position) = &mut self.position {
            position.seq = seq;
        }
        self.settle();
    }

    /// A replay that has reached its end is over.
    fn settle(&mut self) {
        if let (Phase::Replay { until }, Some(position)) = (&self.phase, &self.position)
            && position.seq >= *until
        {
            self.phase = Phase::Live;
        }
    }
}

fn withhold(name: &SubscriptionName, step: &mut Step) {
    step.effects.push(Effect::Withheld { subscription: name.clone() });
}

fn omitted(name: &SubscriptionName, from: u64, to: u64) -> Effect {
    Effect::Omitted { subscription: name.clone(), from, to }
}
