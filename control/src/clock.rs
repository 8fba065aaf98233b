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
    pub(crate) fn now(&self, term: u64) -> Timestamp {
        let mut base = self.0.lock();
        let base = match *base {
            Some(known) if known.term == term => known,
            Some(_) | None => *base.insert(Base { term, wall: wall(), at: Instant::now() }),
        };
        let millis = i64::try_from((base.wall + base.at.elapsed()).as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(millis)
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of this crate's shell")]
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
