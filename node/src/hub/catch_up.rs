//! How a session gets from where it stands to the head of a log while publications go on. Pure.
//!
//! A subscription that a session has just joined, or has fallen behind on, takes no live frames: the log
//! has them. The frames that it lacks are fed into the outbox as there is room, and once nothing is
//! missing the subscription is live.

use std::sync::Arc;

use super::frame::SealedFrame;
use super::outbox::{Outbox, Pushed, Room};
use super::view::View;
use crate::time::Moment;

/// The outbox takes more of what was missed while no more than this waits: enough to keep the socket
/// busy, little enough to leave the rest of the outbox to live frames.
const FEED_FRAMES_MAX: usize = 32;

/// The same in bytes.
const FEED_BYTES_MAX: usize = 256 * 1024;

/// What one subscription of a session still lacks.
#[derive(Debug)]
pub(super) enum CatchUp {
    /// Frames that were decided on when the session joined, from `next` on; after them it stands at
    /// `then`.
    Frames { frames: Arc<[SealedFrame]>, next: usize, then: u64 },
    /// Whatever follows this `seq`; a session that fell behind is `behind`, and each further publication
    /// is a send failure.
    After { seq: u64, behind: bool },
}

/// What came of feeding.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// Nothing is missing any more: live frames may follow.
    Live,
    /// The outbox has no room just now.
    Waiting,
    /// Something that the session needs has left the log: only a new join can help.
    Lost,
}

impl CatchUp {
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::After { behind: true, .. })
    }

    /// Moves what is missing into the outbox as far as there is room.
    pub(super) fn feed(&mut self, view: &View, outbox: &mut Outbox, room: Room, now: Moment) -> Fed {
        loop {
            if outbox.frames() > FEED_FRAMES_MAX || outbox.bytes() > FEED_BYTES_MAX {
                return Fed::Waiting;
            }
            match self {
                Self::Frames { frames, next, then } => match frames.get(*next) {
                    Some(frame) => {
                        // The room was checked above: a part that is large is let in whole.
                        outbox.push_forced(frame.clone(), now);
                        *next += 1;
                    }
                    None => {
                        outbox.set_cursor(view.sub(), *then);
                        *self = Self::After { seq: *then, behind: false };
                    }
                },
                Self::After { seq, .. } => {
                    let Some(frames) = view.live_after(*seq, FEED_FRAMES_MAX) else { return Fed::Lost };
                    if frames.is_empty() {
                        return Fed::Live;
                    }
                    for frame in frames {
                        let at = frame.place().map_or(*seq, |place| place.seq);
                        if outbox.push(frame, room, now) == Pushed::Full {
                            return Fed::Waiting;
                        }
                        *seq = at;
                    }
                }
            }
        }
    }
}
