//! What waits for one session, and what it still lacks of the subscriptions that are not live. Pure.
//!
//! A session has one only while its socket takes less than is due to it, or while a subscription that it
//! has joined catches up. A publication is offered to it; what the outbox has no room for, the log keeps,
//! and it is fed in once there is room.

use super::catch_up::{CatchUp, Fed};
use super::frame::Publication;
use super::outbox::{Outbox, Pushed, Room};
use super::view::View;
use crate::catalog::{SubId, SubMask};
use crate::time::Moment;
use crate::trace::Lost;
use crate::ws::Coding;

/// What waits for a socket that does not take all.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) outbox: Outbox,
    /// What joined subscriptions still lack, and those that fell behind.
    catching: Vec<(SubId, CatchUp)>,
    /// Frames that this outbox held when the shard last counted.
    pub(super) counted: usize,
    /// Whether the socket took less than it was given, and will say when it takes more.
    pub(super) blocked: bool,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits.
    Queued,
    /// It waits in the place of an older value.
    Coalesced,
    /// There was no room: a send failure. The log keeps it for later.
    Refused,
    /// The session is not due it yet: it will come with what is fed in.
    Passed,
}

/// What came of feeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Feeding {
    /// Frames were moved into the outbox.
    pub(super) placed: bool,
    /// Something that the session needs has left a log.
    pub(super) lost: bool,
}

impl Pending {
    pub(super) fn new(coding: Coding) -> Self {
        Self { outbox: Outbox::new(coding), ..Self::default() }
    }

    /// Queues a publication of a subscription that is `live`; without room, the subscription falls behind
    /// and is live no more.
    pub(super) fn offer(
        &mut self,
        live: &mut SubMask,
        publication: &Publication,
        room: Room,
        now: Moment,
    ) -> Offered {
        let sub = publication.sub();
        if !live.contains(sub) {
            let behind = self.catch_up(sub).is_some_and(CatchUp::is_behind);
            return if behind { Offered::Refused } else { Offered::Passed };
        }
        match self.outbox.push(publication.live().clone(), room, now) {
            Pushed::Queued => Offered::Queued,
            Pushed::Coalesced => Offered::Coalesced,
            Pushed::Full => {
                live.remove(sub);
                let before = publication.stored().seq.saturating_sub(1);
                let seq = self.outbox.tail(sub).unwrap_or(before);
                self.set_catch_up(sub, CatchUp::After { seq, behind: true });
                Offered::Refused
            }
        }
    }

    /// Moves what is missing into the outbox as far as there is room, and makes live what lacks nothing.
    /// `fed` hears the subscription of each live publication among it.
    pub(super) fn feed(
        &mut self,
        live: &mut SubMask,
        views: &[View],
        (room, now): (Room, Moment),
        mut fed: impl FnMut(SubId),
    ) -> Feeding {
        let Self { outbox, catching, .. } = self;
        let (before, mut waiting, mut lost) = (outbox.frames(), false, false);
        catching.retain_mut(|(sub, catch_up)| {
            match catch_up.feed(&views[sub.index()], outbox, (room, now), &mut fed) {
                Fed::Live => live.insert(*sub),
                Fed::Waiting => waiting = true,
                Fed::Lost => lost = true,
            }
            !live.contains(*sub)
        });
        if waiting && !catching.is_empty() {
            // The next time, another one is first: a busy subscription does not starve the rest.
            catching.rotate_left(1);
        }
        Feeding { placed: outbox.frames() > before, lost }
    }

    /// How far the peer has been sent a subscription whose log ends at `head`; none while it gets a
    /// snapshot or a replay.
    pub(super) fn sent(&self, sub: SubId, head: u64) -> Option<u64> {
        match self.catch_up(sub) {
            Some(CatchUp::Frames { .. }) => None,
            // What is only queued may still be replaced by a later value behind the answer.
            Some(CatchUp::After { .. }) | None => Some(self.outbox.cursor(sub).unwrap_or(head)),
        }
    }

    fn catch_up(&self, sub: SubId) -> Option<&CatchUp> {
        self.catching.iter().find(|(known, _)| *known == sub).map(|(_, catch_up)| catch_up)
    }

    /// Sets what a subscription lacks; it replaces what was known before.
    pub(super) fn set_catch_up(&mut self, sub: SubId, catch_up: CatchUp) {
        self.catching.retain(|(known, _)| *known != sub);
        self.catching.push((sub, catch_up));
    }

    /// Whether a publication is due to the session now, and not only with what is fed in later.
    pub(super) fn is_due(&self, live: SubMask, sub: SubId) -> bool {
        live.contains(sub) || self.catch_up(sub).is_some_and(CatchUp::is_behind)
    }

    /// Nothing of the subscription is due any more, for this reason. Returns how many live publications waited.
    pub(super) fn forget(&mut self, view: &View, why: Lost) -> u64 {
        self.catching.iter().filter(|(sub, _)| *sub == view.sub()).for_each(|(_, it)| it.give_up(view, why));
        self.catching.retain(|(sub, _)| *sub != view.sub());
        self.outbox.remove(view.sub(), |frame| frame.lost(why))
    }

    /// The session ends: nothing more is fed in.
    pub(super) fn forget_all(&mut self, views: &[View], why: Lost) {
        for (sub, catch_up) in self.catching.drain(..) {
            catch_up.give_up(&views[sub.index()], why);
        }
    }

    /// The connection has ended, with whatever waits; what was replaced has been counted.
    pub(super) fn abandon(&mut self, views: &[View]) {
        self.forget_all(views, Lost::Closed);
        self.outbox.frames_left().for_each(|frame| frame.lost(Lost::Closed));
    }

    pub(super) fn is_done(&self) -> bool {
        self.outbox.is_empty() && self.catching.is_empty()
    }
}

#[cfg(test)]
mod tests;
