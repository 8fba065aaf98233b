//! The one place of the crate that draws at random.

use std::time::Duration;

use uuid::Uuid;

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
