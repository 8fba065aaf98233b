//! In which order and when a shard sends its sessions off, and when it tells each to come back. Pure: the
//! shard says what time it is and what a session's key is, and does what the plan says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::time::Moment;

/// A shard's place among those that have sessions. They take turns, so that the ends of all sessions of the
/// node are as evenly spread as those of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    place: u64,
    of: u64,
}

impl Turn {
    /// Of a shard that has the window for itself.
    pub(crate) const ALONE: Self = Self { place: 0, of: 1 };

    /// The turn of each shard, from how many sessions each has. One without any has no part in it, so that
    /// a lone session never waits for shards that have nothing to do.
    pub(crate) fn deal(sessions: &[usize]) -> Vec<Self> {
        let of = sessions.iter().filter(|sessions| **sessions > 0).count() as u64;
        let mut places = 0..;
        let turn = |sessions: &usize| match *sessions {
            0 => Self::ALONE,
            _ => places.next().map_or(Self::ALONE, |place| Self { place, of }),
        };
        sessions.iter().map(turn).collect()
    }
}

/// The sessions that are still to be sent off, each in a slot of its own. Who leaves by itself leaves its
/// slot empty.
#[derive(Debug)]
pub(super) struct Plan<K> {
    waiting: VecDeque<K>,
    /// How many there were at the beginning.
    count: u64,
    begun: Moment,
    window_ms: u64,
    turn: Turn,
}

impl<K> Plan<K> {
    pub(super) fn new(
        sessions: impl Iterator<Item = K>,
        begun: Moment,
        window: Duration,
        turn: Turn,
    ) -> Self {
        let waiting: VecDeque<K> = sessions.collect();
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Self { count: waiting.len() as u64, waiting, begun, window_ms, turn }
    }

    /// The next one whose slot has come.
    pub(super) fn take_due(&mut self, now: Moment) -> Option<K> {
        if self.next_due()? > now { None } else { self.waiting.pop_front() }
    }

    /// When the next slot comes; none when all are gone.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let index = self.count - self.waiting.len() as u64;
        (index < self.count).then(|| self.slot(index))
    }

    /// The last slot; the beginning when there is none.
    pub(super) fn last(&self) -> Moment {
        self.count.checked_sub(1).map_or(self.begun, |index| self.slot(index))
    }

    /// The first slot is at the beginning, and the window ends one step after the last one.
    fn slot(&self, index: u64) -> Moment {
        let (step, steps) = (index * self.turn.of + self.turn.place, self.count * self.turn.of);
        let after = u128::from(self.window_ms) * u128::from(step) / u128::from(steps);
        self.begun.plus_millis(u64::try_from(after).unwrap_or(u64::MAX))
    }
}

/// Numbers the sessions of the node as they are sent off, so that no two get the same hint.
#[derive(Debug, Default)]
pub(crate) struct Hints(AtomicU64);

impl Hints {
    /// How long the next session of a drain over `window` is told to stay away, in milliseconds.
    pub(super) fn next(&self, window: Duration) -> u64 {
        let spread = if window.is_zero() { &AT_ONCE } else { &PACED };
        spread.hint(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// The least time after which a client comes back. Sooner, it would find its own name and its share of the
/// caps still taken by the session that is being closed.
const RETRY_BASE_MS: u64 = 250;

/// The times over which hints are spread. With a prime number of them and steps of about the golden section
/// of that, the hints of any number of sessions lie far apart, and none repeats before all have been used.
struct Spread {
    hints: u64,
    step: u64,
}

/// The slots spread the clients already. Nobody is away for more than a second.
const PACED: Spread = Spread { hints: 743, step: 459 };

/// Everybody leaves at the same moment, so the hints alone must spread them.
const AT_ONCE: Spread = Spread { hints: 4_999, step: 3_089 };

impl Spread {
    fn hint(&self, index: u64) -> u64 {
        RETRY_BASE_MS + (index % self.hints) * self.step % self.hints
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const BEGUN: Moment = Moment::from_millis(5_000);

    fn plan(count: u64, window_ms: u64, turn: Turn) -> Plan<u64> {
        Plan::new(0..count, BEGUN, Duration::from_millis(window_ms), turn)
    }

    /// Who is due at which time after the beginning, until nobody is left.
    fn slots(mut plan: Plan<u64>) -> Vec<u64> {
        let mut slots = Vec::new();
        while let Some(due) = plan.next_due() {
            let just_before = Moment::from_millis(due.as_millis().saturating_sub(1));
            if due > BEGUN && slots.last() != Some(&due.millis_since(BEGUN)) {
                assert_eq!(plan.take_due(just_before), None);
            }
            assert_eq!(plan.take_due(due), Some(slots.len() as u64), "first to last");
            slots.push(due.millis_since(BEGUN));
        }
        slots
    }

    #[test]
    fn sessions_leave_one_after_the_other_over_the_window() {
        assert_eq!(slots(plan(4, 10_000, Turn::ALONE)), [0, 2_500, 5_000, 7_500]);
        assert_eq!(plan(4, 10_000, Turn::ALONE).last(), BEGUN.plus_millis(7_500));
        assert_eq!(slots(plan(1, 10_000, Turn::ALONE)), [0], "one session has nobody to wait for");
    }

    #[test]
    fn without_a_window_all_leave_at_once_and_without_sessions_nothing_is_due() {
        assert_eq!(slots(plan(3, 0, Turn::ALONE)), [0, 0, 0]);
        let none = plan(0, 10_000, Turn::ALONE);
        assert_eq!((none.next_due(), none.last()), (None, BEGUN));
    }

    #[test]
    fn shards_take_turns_and_those_without_sessions_have_none() {
        let turns = Turn::deal(&[3, 0, 3]);
        assert_eq!(turns, [Turn { place: 0, of: 2 }, Turn::ALONE, Turn { place: 1, of: 2 }]);
        let all: BTreeSet<u64> =
            [turns[0], turns[2]].into_iter().flat_map(|turn| slots(plan(3, 6_000, turn))).collect();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [0, 1_000, 2_000, 3_000, 4_000, 5_000]);
        assert_eq!(Turn::deal(&[0, 1]), [Turn::ALONE, Turn::ALONE]);
    }

    #[test]
    fn no_two_sessions_get_the_same_hint_and_nobody_is_away_for_long() {
        for (spread, most) in [(&PACED, 1_000), (&AT_ONCE, 5_250)] {
            let hints: BTreeSet<u64> = (0..spread.hints).map(|index| spread.hint(index)).collect();
            assert_eq!(hints.len() as u64, spread.hints, "each is used once before one repeats");
            assert!(hints.first() == Some(&RETRY_BASE_MS) && hints.last().is_some_and(|last| *last < most));
        }
        let hints = Hints::default();
        let window = Duration::from_secs(10);
        assert_eq!([hints.next(window), hints.next(window), hints.next(window)], [250, 709, 425]);
    }

    proptest! {
        #[test]
        fn every_session_leaves_in_its_order_within_the_window(
            count in 1..500_u64, window_ms in 0..3_600_000_u64, place in 0..8_u64,
        ) {
            let slots = slots(plan(count, window_ms, Turn { place, of: 8 }));
            prop_assert_eq!(slots.len() as u64, count);
            prop_assert!(slots.is_sorted() && slots.last().is_none_or(|last| *last <= window_ms));
            let step = window_ms / count;
            prop_assert!(slots.windows(2).all(|pair| pair[1] - pair[0] <= step + 1), "no hole and no rush");
        }
    }
}
