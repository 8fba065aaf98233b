//! A shard's books: what became of every live publication that was due to one of its sessions. Pure.
//!
//! One *due frame* is one publication for one session. It becomes due when a fan-out walks the sessions of
//! its subscription and finds this one live or fallen behind, or, for a session that catches up, when the log
//! feeds it in. From there it goes one way: the socket takes it whole, a later value of its key takes its
//! place, it is dropped for a reason, or it still waits. Each is counted where it happens and none is worked
//! out from the others, so that the sum can be wrong, and says so. Snapshots, replays, notices and answers
//! are no publications here.

use hiveops_proto::contract::SUBSCRIPTIONS_MAX;

use crate::catalog::SubId;

/// Why a due frame never reaches the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The outbox had no room: a send failure. The log still has it, and what it has when there is room again
    /// is fed in, and due anew.
    Refused,
    /// It waited for a session that was ended for backpressure or abuse.
    Backpressure,
    /// It waited, or was being written, when the connection ended.
    Closed,
    /// The socket broke as a fan-out wrote to it.
    Broken,
    /// It waited, and the session left the subscription.
    Left,
    /// It waited, and the log began anew: a snapshot comes instead.
    Reset,
}

impl Dropped {
    pub(crate) const ALL: [Self; 6] =
        [Self::Refused, Self::Backpressure, Self::Closed, Self::Broken, Self::Left, Self::Reset];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Backpressure => "backpressure",
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Left => "left",
            Self::Reset => "reset",
        }
    }
}

/// The frames of one subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Frames that became due.
    pub(crate) recipients: u64,
    /// Those of them that the log fed in, for sessions that caught up.
    pub(crate) caught_up: u64,
    pub(crate) delivered: u64,
    pub(crate) coalesced: u64,
    dropped: [u64; Dropped::ALL.len()],
    /// Read from the outboxes, when somebody asks.
    pub(crate) pending: u64,
}

impl Account {
    pub(crate) fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }

    /// What is missing: 0, or something was lost (more than 0) or counted twice (less).
    pub(crate) fn residual(&self) -> i64 {
        let dropped: u64 = self.dropped.iter().sum();
        let found = self.delivered + self.coalesced + dropped + self.pending;
        self.recipients.wrapping_sub(found).cast_signed()
    }

    fn add(&mut self, other: &Self) {
        self.recipients += other.recipients;
        self.caught_up += other.caught_up;
        self.delivered += other.delivered;
        self.coalesced += other.coalesced;
        for (sum, count) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += count;
        }
        self.pending += other.pending;
    }
}

/// One account for each subscription that there can be: a plain delivery is an addition to a number that
/// nobody else writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Books {
    accounts: Box<[Account]>,
}

impl Default for Books {
    fn default() -> Self {
        Self { accounts: vec![Account::default(); SUBSCRIPTIONS_MAX].into() }
    }
}

impl Books {
    /// A publication became due to so many sessions.
    pub(super) fn due(&mut self, sub: SubId, sessions: u64) {
        self.of(sub).recipients += sessions;
    }

    /// The log fed one in.
    pub(super) fn fed(&mut self, sub: SubId) {
        let account = self.of(sub);
        account.recipients += 1;
        account.caught_up += 1;
    }

    /// So many sockets took one whole.
    pub(super) fn delivered(&mut self, sub: SubId, sessions: u64) {
        self.of(sub).delivered += sessions;
    }

    /// A later value took its place.
    pub(super) fn coalesced(&mut self, sub: SubId) {
        self.of(sub).coalesced += 1;
    }

    pub(super) fn dropped(&mut self, sub: SubId, reason: Dropped, frames: u64) {
        self.of(sub).dropped[reason as usize] += frames;
    }

    /// The books as of now, with what waits according to `waiting`, which names the subscription of each frame.
    pub(super) fn closed_with(&self, waiting: impl Iterator<Item = SubId>) -> Self {
        let mut books = self.clone();
        waiting.for_each(|sub| books.of(sub).pending += 1);
        books
    }

    pub(crate) fn account(&self, sub: SubId) -> &Account {
        &self.accounts[sub.index()]
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, account) in self.accounts.iter_mut().zip(&other.accounts) {
            sum.add(account);
        }
    }

    fn of(&mut self, sub: SubId) -> &mut Account {
        &mut self.accounts[sub.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_becomes_of_a_frame_the_sum_holds_and_one_that_is_forgotten_shows() {
        let tasks = SubId::from_index(3).unwrap();
        let mut books = Books::default();
        books.due(tasks, 9);
        books.fed(tasks);
        books.delivered(tasks, 2);
        books.coalesced(tasks);
        for reason in Dropped::ALL {
            books.dropped(tasks, reason, 1);
        }
        assert_eq!(books.closed_with([tasks].into_iter()).account(tasks).residual(), 0);
        assert_eq!(books.closed_with([].into_iter()).account(tasks).residual(), 1, "one is missing");
        let twice = books.closed_with([tasks, tasks].into_iter());
        assert_eq!((twice.account(tasks).residual(), twice.account(tasks).caught_up), (-1, 1));
    }

    #[test]
    fn the_books_of_shards_add_up() {
        let (tasks, agents) = (SubId::from_index(0).unwrap(), SubId::from_index(63).unwrap());
        let (mut sum, mut other) = (Books::default(), Books::default());
        sum.due(tasks, 2);
        other.due(tasks, 1);
        other.dropped(agents, Dropped::Left, 4);
        sum.add(&other);
        assert_eq!((sum.account(tasks).recipients, sum.account(agents).dropped(Dropped::Left)), (3, 4));
    }
}
