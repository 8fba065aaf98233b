//! The one place of the crate that draws at random.

use std::time::Duration;

use aws_lc_rs::rand;
use uuid::Uuid;

/// The system gave no randomness; the library does not say more.
#[derive(Debug, thiserror::Error)]
#[error("the system has no randomness to give")]
pub(crate) struct NoRandomness;

/// Where a replica draws from; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Chance {
    /// The system.
    System,
    /// What a seed makes.
    #[cfg(test)]
    Seeded(crate::sim::chance::Seeded),
}

impl Chance {
    /// A name that nobody else draws.
    pub(crate) fn name(&self) -> Uuid {
        match self {
            Self::System => Uuid::now_v7(),
            #[cfg(test)]
            Self::Seeded(seeded) => Uuid::from_u128(seeded.wide()),
        }
    }

    /// Bytes that nobody can guess.
    pub(crate) fn bytes<const COUNT: usize>(&self) -> Result<[u8; COUNT], NoRandomness> {
        let mut bytes = [0; COUNT];
        match self {
            Self::System => rand::fill(&mut bytes).map_err(|_| NoRandomness)?,
            #[cfg(test)]
            Self::Seeded(seeded) => {
                bytes.chunks_mut(8).for_each(|part| {
                    part.copy_from_slice(&seeded.next().to_be_bytes()[..part.len()]);
                });
            }
        }
        Ok(bytes)
    }

    /// A time below `spread`, to the microsecond.
    pub(crate) fn below(&self, spread: Duration) -> Duration {
        let drawn = match self {
            Self::System => Uuid::new_v4().as_u128(),
            #[cfg(test)]
            Self::Seeded(seeded) => seeded.wide(),
        };
        let micros = drawn.checked_rem(spread.as_micros()).unwrap_or(0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}
