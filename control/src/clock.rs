//! The one place of the crate that reads a clock of the machine.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hiveops_proto::Timestamp;
use parking_lot::Mutex;

/// The time that commands carry: within a term it never runs backwards and never jumps, whatever is done to
/// the machine's clock.
#[derive(Debug, Default)]
pub(crate) struct TermClock(Mutex<Option<Base>>);

#[derive(Debug, Clone, Copy)]
struct Base {
    term: u64,
    wall: Duration,
    at: Instant,
}

impl TermClock {
    /// `reached` is the time that earlier commands carried: it goes on from there when the wall clock is behind.
    pub(crate) fn now(&self, term: u64, reached: Timestamp) -> Timestamp {
        let mut base = self.0.lock();
        let base = match *base {
            Some(known) if known.term == term => known,
            Some(_) | None => {
                *base.insert(Base { term, wall: wall().max(since_epoch(reached)), at: Instant::now() })
            }
        };
        let millis = i64::try_from((base.wall + base.at.elapsed()).as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(millis)
    }
}

fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "the clock of this crate's shell")]
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_whose_clock_is_behind_goes_on_where_the_last_one_was() {
        let clock = TermClock::default();
        let first = clock.now(1, Timestamp::default());
        let ahead = first.plus_millis(3_600_000);
        let second = clock.now(2, ahead);
        assert!(first > Timestamp::default() && second >= ahead);
        assert!(clock.now(2, Timestamp::default()) >= second);
    }
}
