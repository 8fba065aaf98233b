//! The one clock of a run: `CLOCK_MONOTONIC`, in nanoseconds since the run began. Publisher and receiver
//! are threads of one process and share it, so a latency is the difference of two readings of one clock.

use std::time::{Duration, Instant};

/// Reads the monotonic clock; cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Nanoseconds since the run began; 64 bits last for centuries.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A point in time that some wait may not pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    /// What is left, or `None` once it has passed.
    pub(crate) fn left(self) -> Option<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}
