//! How long a link waits before it tries again. It never gives up.

use std::time::Duration;

/// The ceiling of the first wait; it doubles from there.
const FIRST: Duration = Duration::from_millis(50);

/// The ceiling of any wait: what is added to an outage after the server is back.
const LAST: Duration = Duration::from_secs(2);

/// Full jitter: all nodes lose a server at the same moment and should not come back at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait; `random` is any number.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let ceiling = FIRST.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(LAST);
        self.attempts = self.attempts.saturating_add(1);
        let ceiling_ms = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(random % (ceiling_ms + 1))
    }

    /// How many waits there were since the last success.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Random enough for a wait.
pub(super) fn random() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1 & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_cap_and_begins_anew_after_success() {
        let mut backoff = Backoff::default();
        let ceilings: Vec<u128> = (0..40)
            .map(|_| {
                let mut same = Backoff { attempts: backoff.attempts };
                let ceiling =
                    (0..=2_001).map(|random| same_wait(&mut same, random)).max().unwrap_or_default();
                backoff.next(0);
                ceiling
            })
            .collect();
        assert_eq!(ceilings[..7], [50, 100, 200, 400, 800, 1_600, 2_000]);
        assert!(ceilings[7..].iter().all(|ceiling| *ceiling == 2_000));
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
    }

    fn same_wait(backoff: &mut Backoff, random: u64) -> u128 {
        let attempts = backoff.attempts;
        let wait = backoff.next(random).as_millis();
        backoff.attempts = attempts;
        wait
    }
}
