//! The last things that happened, up to a number and an age, and how far back that is. Pure.

use std::collections::VecDeque;

use hiveops_proto::Timestamp;

/// How long anything is kept at most: an hour answers for what somebody has just missed, and is what makes
/// "it has left" a time that can be named.
pub(crate) const KEPT_MS: u64 = 60 * 60 * 1_000;

/// A ring.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    entries: VecDeque<(Timestamp, T)>,
    /// Everything since then is here.
    reaches_back_to: Timestamp,
}

impl<T> Ring<T> {
    /// An empty one, which knows of nothing before `now`.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { entries: VecDeque::new(), reaches_back_to: now }
    }

    /// Adds one, and holds no more than `max` from then on.
    pub(crate) fn push(&mut self, now: Timestamp, entry: T, max: usize) {
        self.expire(now);
        while self.entries.len() >= max
            && let Some((at, _)) = self.entries.pop_front()
        {
            // What else happened in the same millisecond may be gone as well.
            self.reaches_back_to = self.reaches_back_to.max(at.plus_millis(1));
        }
        self.entries.push_back((now, entry));
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.entries.front()
            && now.millis_since(*at) > KEPT_MS
        {
            self.reaches_back_to = self.reaches_back_to.max(at.plus_millis(1));
            self.entries.pop_front();
        }
    }

    /// What is there of the last hour, the oldest first.
    pub(crate) fn entries(&mut self, now: Timestamp) -> impl Iterator<Item = &T> {
        self.expire(now);
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// Since when everything is here.
    pub(crate) fn reaches_back_to(&mut self, now: Timestamp) -> Timestamp {
        self.expire(now);
        self.reaches_back_to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000).plus_millis(ms)
    }

    #[test]
    fn it_holds_the_last_of_them_and_says_since_when_it_is_whole() {
        let mut ring = Ring::new(at(0));
        for ms in 1..=3 {
            ring.push(at(ms), ms, 3);
        }
        assert_eq!((ring.reaches_back_to(at(3)), ring.entries(at(3)).count()), (at(0), 3));
        ring.push(at(4), 4, 3);
        assert_eq!(ring.entries(at(4)).copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(
            ring.reaches_back_to(at(4)),
            at(2),
            "the first one is gone, and it was of the first millisecond"
        );
    }

    #[test]
    fn what_is_older_than_an_hour_is_gone() {
        let mut ring = Ring::new(at(0));
        ring.push(at(1), 1, 3);
        ring.push(at(2), 2, 3);
        assert_eq!(ring.entries(at(1 + KEPT_MS)).count(), 2);
        assert_eq!(
            ring.reaches_back_to(at(2 + KEPT_MS)),
            at(2),
            "also when nobody has looked at the entries"
        );
        assert_eq!(ring.entries(at(2 + KEPT_MS)).count(), 1);
        ring.push(at(3 + KEPT_MS), 3, 3);
        assert_eq!(ring.entries(at(3 + KEPT_MS)).count(), 1);
    }
}
