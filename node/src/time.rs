//! Time and ids for the shells of this crate. Pure code takes a [`Moment`], a [`Timestamp`] or an id as an
//! argument; only shells hold a [`Clock`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hiveops_proto::{ConnectionId, CorrelationId, Timestamp};
use uuid::Uuid;

/// Milliseconds of monotonic time since the node started: what deadlines are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        self.plus_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn plus_millis(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    pub(crate) fn plus_secs(self, seconds: u64) -> Self {
        self.plus_millis(seconds.saturating_mul(1_000))
    }

    /// How long after `earlier` this is, in milliseconds; 0 when it is not after it.
    pub(crate) fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A number in 0..1 that spreads nodes over time: the random bits of an id, which are no secret.
pub(crate) fn random() -> f64 {
    // The lower bits: the upper ones of this half say which kind of id it is, and are always the same.
    let bits = Uuid::new_v4().as_u128() as u64 & ((1 << 53) - 1);
    bits as f64 / (1_u64 << 53) as f64
}

/// Full jitter: a random part, 0 to 1, of a ceiling that doubles up to the cap. Nodes that lose something at the
/// same moment do not come back at the same moment.
pub(crate) fn jittered(base: Duration, cap: Duration, doublings: u32, random: f64) -> Duration {
    base.saturating_mul(1 << doublings.min(10)).min(cap).mul_f64(random.clamp(0.0, 1.0))
}

/// Reads the machine's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Duration,
}

/// A clock that only runs forwards, also while the machine is suspended: a lease runs out in its sleep.
#[cfg(target_os = "linux")]
fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A clock that only runs forwards; it may stand still while the machine is suspended.
#[cfg(not(target_os = "linux"))]
fn monotonic() -> Duration {
    static BASE: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    BASE.elapsed()
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: monotonic() }
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment(u64::try_from(monotonic().saturating_sub(self.started).as_millis()).unwrap_or(u64::MAX))
    }

    /// Wall-clock time, for people and for other machines.
    #[expect(clippy::disallowed_methods, reason = "one of two places where this crate reads the wall clock")]
    pub(crate) fn timestamp(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The same, as finely as the machine has it.
    #[expect(clippy::disallowed_methods, reason = "the other place where this crate reads the wall clock")]
    pub(crate) fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    pub(crate) fn correlation_id(&self) -> CorrelationId {
        CorrelationId::from(Uuid::now_v7())
    }

    pub(crate) fn connection_id(&self) -> ConnectionId {
        ConnectionId::from(Uuid::now_v7())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_number_may_be_anywhere_from_0_to_1() {
        let mut tenths = [0_usize; 10];
        (0..10_000).for_each(|_| tenths[(random() * 10.0) as usize] += 1);
        assert!(tenths.iter().all(|count| (700..1_300).contains(count)), "{tenths:?}");
    }
}
