//! What a seed decides: numbers, and the clocks on the walls of replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use tokio::time::Instant;

/// Mid 2026: where the walls of a simulation begin.
const EPOCH: Duration = Duration::from_secs(1_782_000_000);

/// A row of numbers that a seed and a name make (splitmix64); the clones draw from the same row.
#[derive(Debug, Clone)]
pub(crate) struct Seeded(Arc<AtomicU64>);

impl Seeded {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self(Arc::new(AtomicU64::new(digest(name.as_bytes()) ^ seed.wrapping_mul(0xd134_2543_de82_ef95))))
    }

    pub(crate) fn next(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn wide(&self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    pub(crate) fn key_pair(&self) -> Ed25519KeyPair {
        let seed = [self.wide().to_be_bytes(), self.wide().to_be_bytes()].concat();
        Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times in a thousand.
    pub(crate) fn in_thousand(&self, times: u64) -> bool {
        self.below(1_000) < times
    }

    pub(crate) fn millis(&self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    pub(crate) fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.index(from.len())) }
    }

    pub(crate) fn index(&self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }
}

/// A number for bytes (FNV-1a): the same on every run and machine.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold)
}

/// The clock on a replica's wall: it runs as the others do, but somebody may have set it wrong.
#[derive(Debug, Clone)]
pub(crate) struct SkewedWall {
    began: Instant,
    skew_ms: Arc<AtomicI64>,
}

impl SkewedWall {
    pub(crate) fn new(began: Instant) -> Self {
        Self { began, skew_ms: Arc::default() }
    }

    pub(crate) fn set(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Duration {
        let now = EPOCH + self.began.elapsed();
        let skew = self.skew_ms.load(Ordering::Relaxed);
        let by = Duration::from_millis(skew.unsigned_abs());
        if skew < 0 { now - by } else { now + by }
    }
}
