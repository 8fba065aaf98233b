//! The one place of the crate that reads a clock of the machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hiveops_proto::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The time that commands carry: within a term it never runs backwards and never jumps, whatever is done to
/// the machine's clock.
#[derive(Debug)]
pub(crate) struct TermClock {
    wall: Wall,
    base: Mutex<Option<Base>>,
}

/// The clock on the wall, which anybody may set.
#[derive(Debug, Clone)]
pub(crate) enum Wall {
    System,
    #[cfg(test)]
    Simulated(crate::sim::chance::SkewedWall),
}

#[derive(Debug, Clone, Copy)]
struct Base {
    term: u64,
    wall: Duration,
    at: Instant,
}

impl TermClock {
    pub(crate) fn new(wall: Wall) -> Self {
        Self { wall, base: Mutex::new(None) }
    }

    /// `reached` is the time that earlier commands carried: it goes on from there when the wall clock is behind.
    pub(crate) fn now(&self, term: u64, reached: Timestamp) -> Timestamp {
        let mut base = self.base.lock();
        let base = match *base {
            Some(known) if known.term == term => known,
            Some(_) | None => {
                let wall = self.wall.now().max(since_epoch(reached));
                *base.insert(Base { term, wall, at: Instant::now() })
            }
        };
        let millis = i64::try_from((base.wall + base.at.elapsed()).as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(millis)
    }
}

fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0))
}

impl Wall {
    #[expect(clippy::disallowed_methods, reason = "the clock of this crate's shell")]
    fn now(&self) -> Duration {
        match self {
            Self::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            #[cfg(test)]
            Self::Simulated(wall) => wall.now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_whose_clock_is_behind_goes_on_where_the_last_one_was() {
        let clock = TermClock::new(Wall::System);
        let first = clock.now(1, Timestamp::default());
        let ahead = first.plus_millis(3_600_000);
        let second = clock.now(2, ahead);
        assert!(first > Timestamp::default() && second >= ahead);
        assert!(clock.now(2, Timestamp::default()) >= second);
    }
}
