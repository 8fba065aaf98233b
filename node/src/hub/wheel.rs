//! A timer wheel for the deadlines of many sessions, at most one entry each. Pure.
//!
//! An entry is lazy: when it comes up, the owner looks whether the deadline still stands and sets it
//! anew if not. Moving a deadline back, which every message does, therefore costs nothing.

use crate::time::Moment;

/// What one slot spans. Deadlines are seconds; being late by this much is nothing.
const SLOT_MS: u64 = 64;

/// Slots of the wheel: a turn takes a little over a minute. What is due later comes up after a turn and
/// is set again.
const SLOTS: usize = 1_024;

/// Deadlines of things that are known by a `T`.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    slots: Vec<Vec<T>>,
    /// The next slot to come up, counted from the node's start.
    next: u64,
    entries: usize,
}

impl<T> Wheel<T> {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(),
            next: now.as_millis() / SLOT_MS,
            entries: 0,
        }
    }

    /// Lets `entry` come up at `at`, or earlier when that is more than a turn away.
    pub(crate) fn insert(&mut self, entry: T, at: Moment) {
        // Rounded up, so that what comes up is really due.
        let due = at.as_millis().div_ceil(SLOT_MS).clamp(self.next, self.next + SLOTS as u64 - 1);
        self.slots[(due % SLOTS as u64) as usize].push(entry);
        self.entries += 1;
    }

    /// Moves everything that is due into `due`.
    pub(crate) fn advance(&mut self, now: Moment, due: &mut Vec<T>) {
        let current = now.as_millis() / SLOT_MS;
        // After a standstill of more than a turn, each slot still comes up once.
        let mut turns = (current + 1).saturating_sub(self.next).min(SLOTS as u64);
        while turns > 0 {
            let slot = &mut self.slots[(self.next % SLOTS as u64) as usize];
            self.entries -= slot.len();
            due.append(slot);
            // A slot that once was crowded does not keep the memory.
            if slot.capacity() > 64 {
                slot.shrink_to(16);
            }
            self.next += 1;
            turns -= 1;
        }
        self.next = self.next.max(current + 1);
    }

    /// When something may come up next; none when the wheel is empty.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        if self.entries == 0 {
            return None;
        }
        let slot = (self.next..self.next + SLOTS as u64)
            .find(|slot| !self.slots[(slot % SLOTS as u64) as usize].is_empty())?;
        Some(Moment::from_millis(slot * SLOT_MS))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn nothing_comes_up_before_its_time_or_twice() {
        let mut wheel = Wheel::new(at(1_000));
        wheel.insert('a', at(1_500));
        wheel.insert('b', at(30_000));
        let mut due = Vec::new();
        wheel.advance(at(1_499), &mut due);
        assert!(due.is_empty());
        wheel.advance(at(1_600), &mut due);
        assert_eq!(due, ['a']);
        wheel.advance(at(40_000), &mut due);
        assert_eq!((due, wheel.next_due()), (vec!['a', 'b'], None));
    }

    #[test]
    fn what_is_due_after_more_than_a_turn_comes_up_early_to_be_set_again() {
        let mut wheel = Wheel::new(at(0));
        wheel.insert((), at(600_000));
        let first = wheel.next_due().unwrap();
        assert!(first < at(600_000));
        let mut due = Vec::new();
        wheel.advance(first, &mut due);
        assert_eq!(due.len(), 1);
    }

    proptest! {
        #[test]
        fn every_entry_comes_up_once_and_in_time(
            deadlines in prop::collection::vec(0..60_000_u64, 1..100),
            steps in prop::collection::vec(1..10_000_u64, 1..50),
        ) {
            let mut wheel = Wheel::new(at(0));
            for deadline in &deadlines {
                wheel.insert(*deadline, at(*deadline));
            }
            let (mut now, mut seen) = (0, Vec::new());
            for step in steps {
                now += step;
                let before = seen.len();
                wheel.advance(at(now), &mut seen);
                prop_assert!(seen[before..].iter().all(|deadline| *deadline <= now));
                let late = deadlines.iter().filter(|deadline| **deadline + SLOT_MS <= now).count();
                prop_assert!(seen.len() >= late);
            }
            wheel.advance(at(now + 120_000), &mut seen);
            prop_assert_eq!(seen.len(), deadlines.len());
        }
    }
}
