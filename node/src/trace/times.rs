//! How long the deliveries of one publication took: a small histogram of fixed size that shards add to.
//!
//! Four steps to each doubling, so a quantile is at most a quarter above the truth.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Steps of a doubling, as a power of two.
const STEP_BITS: u32 = 2;
const STEPS: usize = 1 << STEP_BITS;

/// Doublings from 4 µs on: the last one ends at 67 s, beyond which an outbox has ended its session long ago.
const DOUBLINGS: usize = 24;

/// The first steps are a microsecond wide each.
const BUCKETS: usize = STEPS * (DOUBLINGS + 1);

/// Times in microseconds.
#[derive(Debug)]
pub(crate) struct Times {
    buckets: [AtomicU32; BUCKETS],
    max_us: AtomicU32,
}

impl Default for Times {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU32::new(0)), max_us: AtomicU32::new(0) }
    }
}

impl Times {
    pub(crate) fn observe(&self, time: Duration, times: u32) {
        let us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.buckets[bucket(us)].fetch_add(times, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// The longest, in microseconds.
    pub(crate) fn max_us(&self) -> u32 {
        self.max_us.load(Ordering::Relaxed)
    }

    /// The time within which this share of the deliveries was made, in microseconds: the upper edge of its
    /// bucket; none without a delivery.
    pub(crate) fn quantile_us(&self, share: f64) -> Option<u32> {
        let counts: Vec<u64> =
            self.buckets.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).collect();
        let all: u64 = counts.iter().sum();
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let at = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        at.map(|at| upper(at).min(self.max_us()))
    }
}

fn bucket(us: u32) -> usize {
    if us < STEPS as u32 {
        return us as usize;
    }
    let doubling = us.ilog2() - STEP_BITS;
    let step = (us >> doubling) as usize - STEPS;
    (STEPS * (doubling as usize + 1) + step).min(BUCKETS - 1)
}

/// The largest time of a bucket.
fn upper(bucket: usize) -> u32 {
    if bucket == BUCKETS - 1 {
        return u32::MAX;
    }
    let (doubling, step) = (bucket / STEPS, bucket % STEPS);
    match doubling.checked_sub(1) {
        None => step as u32,
        Some(shift) => ((STEPS + step + 1) << shift) as u32 - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_is_at_least_the_truth_and_at_most_a_quarter_above_it(
            mut times in proptest::collection::vec(0_u32..60_000_000, 1..200),
            share in 0.0_f64..1.0,
        ) {
            let found = Times::default();
            times.iter().for_each(|us| found.observe(Duration::from_micros(u64::from(*us)), 1));
            times.sort_unstable();
            let at = ((times.len() as f64 * share).ceil() as usize).max(1) - 1;
            let (truth, quantile) = (times[at], found.quantile_us(share).unwrap());
            prop_assert!(quantile >= truth && quantile <= truth + truth / 4 + 1, "{quantile} for {truth}");
            prop_assert_eq!(found.max_us(), *times.last().unwrap());
        }
    }

    #[test]
    fn what_is_beyond_the_last_bucket_is_no_longer_than_the_longest() {
        let times = Times::default();
        assert_eq!(times.quantile_us(0.5), None);
        times.observe(Duration::from_secs(90), 3);
        assert_eq!((times.quantile_us(0.5), times.max_us()), (Some(90_000_000), 90_000_000));
        times.observe(Duration::from_secs(1_000_000), 1);
        assert_eq!(times.quantile_us(1.0), Some(u32::MAX));
    }
}
