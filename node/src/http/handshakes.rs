//! How many WebSocket handshakes a node takes per second. Pure but for the lock around it.

use hiveops_proto::Limits;
use parking_lot::Mutex;

use crate::time::Moment;

/// A token, in the parts that flow in per millisecond at one token per second.
const TOKEN: u64 = 1_000;

/// A token bucket as deep as one second of its rate.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// Held for one decision.
    state: Mutex<Option<(u64, Moment)>>,
}

impl Handshakes {
    /// Whether one more handshake may begin now. A rate of 0 is no limit.
    pub(crate) fn admit(&self, limits: &Limits, now: Moment) -> bool {
        let rate = limits.handshake_rate_per_second;
        if rate == 0 {
            return true;
        }
        let mut state = self.state.lock();
        let full = rate * TOKEN;
        let (level, at) = state.unwrap_or((full, now));
        let level = level.saturating_add(now.millis_since(at).saturating_mul(rate)).min(full);
        let admitted = level >= TOKEN;
        *state = Some((if admitted { level - TOKEN } else { level }, now));
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_handshakes_passes_at_once_and_then_the_rate() {
        let handshakes = Handshakes::default();
        let limits = Limits { handshake_rate_per_second: 10, ..Limits::default() };
        let at = Moment::from_millis;
        assert_eq!((0..100).filter(|_| handshakes.admit(&limits, at(5))).count(), 10);
        assert_eq!((0..1_000).filter(|ms| handshakes.admit(&limits, at(5 + ms))).count(), 9);
        assert!((0..100).all(|_| handshakes.admit(&Limits::default(), at(5))));
    }
}
