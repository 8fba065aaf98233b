//! How a session gets from where it stands to the head of a log while publications go on. Pure.
//!
//! A subscription that a session has just joined, or has fallen behind on, takes no live frames: the log
//! has them. The frames that it lacks are fed into the outbox as there is room, and once nothing is
//! missing the subscription is live.

use std::sync::Arc;

use super::frame::SealedFrame;
use super::outbox::{Outbox, Pushed, Room};
use super::view::View;
use crate::catalog::SubId;
use crate::time::Moment;
use crate::trace::{Lost, Tally};

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

    /// Nothing more is fed in, so what was published since the session stood here does not reach it.
    pub(super) fn give_up(&self, view: &View, why: Lost) {
        let (Self::Frames { then: seq, .. } | Self::After { seq, .. }) = self;
        view.between(*seq, u64::MAX).for_each(|tally| tally.lost(why));
    }

    /// Moves what is missing into the outbox as far as there is room. `fed` hears of each live publication
    /// among it.
    pub(super) fn feed(
        &mut self,
        view: &View,
        outbox: &mut Outbox,
        (room, now): (Room, Moment),
        fed: &mut impl FnMut(SubId),
    ) -> Fed {
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
                        // What the log has no more of has given way to a later value.
                        view.between(*seq, at).for_each(Tally::coalesced);
                        fed(view.sub());
                        *seq = at;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hiveops_proto::{CorrelationId, Timestamp};

    use super::*;
    use crate::hub::outbox::Item;
    use crate::hub::testing::Source;

    const ROOM: Room = Room { frames: 100, bytes: 1_000_000 };
    const NOW: Moment = Moment::from_millis(0);

    fn after(seq: u64) -> CatchUp {
        CatchUp::After { seq, behind: false }
    }

    /// Takes everything out of the outbox, and names what had a place.
    fn drain(outbox: &mut Outbox) -> Vec<u64> {
        let mut seqs = Vec::new();
        while !outbox.is_empty() {
            outbox.prepare(|omission| panic!("{omission:?}"));
            let due = outbox.slices().iter().map(|slice| slice.len()).sum();
            outbox.advance(due, |item, _| {
                if let Item::Frame(frame) = item {
                    seqs.extend(frame.place().map(|place| place.seq));
                }
            });
        }
        seqs
    }

    #[test]
    fn what_follows_is_fed_in_bounded_rounds_until_nothing_is_missing() {
        let source = Source::new("tasks");
        let (mut view, mut outbox) = (source.view(), Outbox::default());
        (1..=200).for_each(|seq| view.append(&source.event(seq, 0)));
        let mut catch_up = after(50);
        let mut seen = Vec::new();
        while catch_up.feed(&view, &mut outbox, (ROOM, NOW), &mut |_| ()) == Fed::Waiting {
            assert!(outbox.frames() <= 2 * FEED_FRAMES_MAX);
            seen.extend(drain(&mut outbox));
        }
        seen.extend(drain(&mut outbox));
        assert_eq!(seen, (51..=200).collect::<Vec<_>>());
        assert_eq!(outbox.cursor(source.sub), Some(200));
    }

    #[test]
    fn large_frames_are_fed_by_their_bytes() {
        let source = Source::new("tasks");
        let (mut view, mut outbox) = (source.view(), Outbox::default());
        (1..=20).for_each(|seq| view.append(&source.event(seq, 60_000)));
        assert_eq!(
            after(0).feed(&view, &mut outbox, (Room { frames: 100, bytes: 200_000 }, NOW), &mut |_| ()),
            Fed::Waiting
        );
        assert_eq!(outbox.frames(), 3);
    }

    #[test]
    fn after_a_snapshot_comes_what_was_published_meanwhile() {
        let source = Source::new("tasks");
        let (mut view, mut outbox) = (source.view(), Outbox::default());
        view.append(&source.update(1, "a", 0));
        let frames = view.snapshot(Timestamp::from_millis(0), || CorrelationId::new("s").unwrap());
        let mut catch_up = CatchUp::Frames { frames, next: 0, then: 1 };
        view.append(&source.update(2, "a", 0));
        view.append(&source.event(3, 0));
        assert_eq!(catch_up.feed(&view, &mut outbox, (ROOM, NOW), &mut |_| ()), Fed::Live);
        assert_eq!((outbox.frames(), drain(&mut outbox)), (3, vec![2, 3]));
        assert_eq!(outbox.tail(source.sub), Some(3));
    }

    #[test]
    fn what_has_left_the_log_is_lost() {
        let source = Source::new("tasks");
        let (mut view, mut outbox) = (source.view(), Outbox::default());
        (1..=3).for_each(|seq| view.append(&source.event(seq, 0)));
        view.expire(Timestamp::from_millis(i64::MAX));
        assert_eq!(after(2).feed(&view, &mut outbox, (ROOM, NOW), &mut |_| ()), Fed::Lost);
        assert_eq!(after(3).feed(&view, &mut outbox, (ROOM, NOW), &mut |_| ()), Fed::Live);
    }

    #[test]
    fn a_frame_larger_than_the_room_is_fed_when_nothing_waits() {
        let source = Source::new("tasks");
        let (mut view, mut outbox) = (source.view(), Outbox::default());
        view.append(&source.event(1, 5_000));
        view.append(&source.event(2, 5_000));
        let (mut catch_up, room) = (after(0), Room { frames: 8, bytes: 1_000 });
        assert_eq!(catch_up.feed(&view, &mut outbox, (room, NOW), &mut |_| ()), Fed::Waiting);
        assert_eq!(drain(&mut outbox), [1]);
        assert_eq!(catch_up.feed(&view, &mut outbox, (room, NOW), &mut |_| ()), Fed::Live);
        assert_eq!(drain(&mut outbox), [2]);
    }
}
