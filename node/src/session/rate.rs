//! The inbound rate of one session: a token bucket, one notice per cooldown, and the memory of abuse.

use hiveops_proto::Limits;

use crate::time::Moment;

/// A token, in the parts that flow in per millisecond at one token per second.
const TOKEN: u64 = 1_000;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// Drop it and say so, once per cooldown.
    DropAndTell {
        retry_after_ms: u64,
    },
    DropSilently,
    /// The session has been dropping for too long.
    Abuse,
}

#[derive(Debug)]
pub(super) struct TokenBucket {
    /// In parts of a token.
    level: u64,
    refilled_at: Moment,
    told_at: Option<Moment>,
    /// The second, counted from the node's start, of the last drop, and how many in a row had one.
    last_drop_second: u64,
    drop_seconds: u64,
}

impl TokenBucket {
    pub(super) fn full(limits: &Limits, now: Moment) -> Self {
        Self {
            level: limits.rate_limit_burst_capacity * TOKEN,
            refilled_at: now,
            told_at: None,
            last_drop_second: 0,
            drop_seconds: 0,
        }
    }

    /// Whether the next message would be dropped.
    pub(super) fn is_empty(&mut self, limits: &Limits, now: Moment) -> bool {
        self.refill(limits, now);
        self.level < TOKEN
    }

    /// Decides about one message.
    pub(super) fn take(&mut self, limits: &Limits, now: Moment) -> Verdict {
        match self.take_quietly(limits, now) {
            Verdict::DropSilently => self.tell(limits, now),
            verdict => verdict,
        }
    }

    /// Decides about something that is dropped without a word, and leaves the word to the next message.
    pub(super) fn take_quietly(&mut self, limits: &Limits, now: Moment) -> Verdict {
        self.refill(limits, now);
        if self.level >= TOKEN {
            self.level -= TOKEN;
            return Verdict::Allow;
        }
        if self.drops_without_end(limits, now) { Verdict::Abuse } else { Verdict::DropSilently }
    }

    /// Says so, unless that was done lately.
    fn tell(&mut self, limits: &Limits, now: Moment) -> Verdict {
        let cooldown_ms = limits.rate_limit_notify_cooldown_seconds * 1_000;
        if self.told_at.is_some_and(|told| now.millis_since(told) < cooldown_ms) {
            return Verdict::DropSilently;
        }
        self.told_at = Some(now);
        let missing = TOKEN - self.level;
        Verdict::DropAndTell { retry_after_ms: missing.div_ceil(limits.rate_limit_tokens_per_second) }
    }

    fn refill(&mut self, limits: &Limits, now: Moment) {
        let gained = now.millis_since(self.refilled_at).saturating_mul(limits.rate_limit_tokens_per_second);
        let capacity = limits.rate_limit_burst_capacity * TOKEN;
        self.level = self.level.saturating_add(gained).min(capacity);
        self.refilled_at = self.refilled_at.max(now);
    }

    fn drops_without_end(&mut self, limits: &Limits, now: Moment) -> bool {
        let second = now.as_millis() / 1_000;
        if self.drop_seconds == 0 || second > self.last_drop_second + 1 {
            self.drop_seconds = 1;
        } else if second == self.last_drop_second + 1 {
            self.drop_seconds += 1;
        }
        self.last_drop_second = second;
        self.drop_seconds >= limits.rate_limit_abuse_seconds
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limits = Limits::default();
        let mut bucket = TokenBucket::full(&limits, at(0));
        let allowed = (0..100).filter(|_| bucket.take(&limits, at(0)) == Verdict::Allow).count();
        assert_eq!(allowed, 40);
        let allowed = (1..=10_000).filter(|ms| bucket.take(&limits, at(*ms)) == Verdict::Allow).count();
        assert_eq!(allowed, 200);
    }

    #[test]
    fn the_notice_comes_once_per_cooldown_and_names_the_wait() {
        let limits = Limits::default();
        let mut bucket = TokenBucket::full(&limits, at(0));
        for _ in 0..40 {
            bucket.take(&limits, at(0));
        }
        assert_eq!(bucket.take(&limits, at(10)), Verdict::DropAndTell { retry_after_ms: 40 });
        assert_eq!(bucket.take(&limits, at(11)), Verdict::DropSilently);
        for _ in 0..101 {
            bucket.take(&limits, at(5_009));
        }
        assert_eq!(bucket.take(&limits, at(5_009)), Verdict::DropSilently);
        assert!(matches!(bucket.take(&limits, at(5_010)), Verdict::DropAndTell { .. }));
    }

    #[test]
    fn drops_in_every_second_of_a_minute_are_abuse() {
        let limits = Limits::default();
        let mut bucket = TokenBucket::full(&limits, at(0));
        let mut verdicts = (0..60_000_u64).map(|ms| (ms, bucket.take(&limits, at(ms))));
        let (ms, _) = verdicts.find(|(_, verdict)| *verdict == Verdict::Abuse).unwrap();
        assert!((59_000..61_000).contains(&ms), "after {ms} ms");
    }

    #[test]
    fn a_second_without_a_drop_ends_the_row() {
        let limits = Limits { rate_limit_abuse_seconds: 3, ..Limits::default() };
        let mut bucket = TokenBucket::full(&limits, at(0));
        let mut flood = |ms| (0..200).fold(Verdict::Allow, |_, _| bucket.take(&limits, at(ms)));
        assert_ne!(flood(0), Verdict::Abuse);
        assert_ne!(flood(1_000), Verdict::Abuse);
        assert_ne!(flood(3_000), Verdict::Abuse);
        assert_ne!(flood(4_000), Verdict::Abuse);
        assert_eq!(flood(5_000), Verdict::Abuse);
    }

    #[test]
    fn what_is_dropped_quietly_leaves_the_notice_to_the_next_message() {
        let limits = Limits::default();
        let mut bucket = TokenBucket::full(&limits, at(0));
        for _ in 0..45 {
            bucket.take_quietly(&limits, at(0));
        }
        assert!(matches!(bucket.take(&limits, at(0)), Verdict::DropAndTell { .. }));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate(
            gaps in prop::collection::vec(0..200_u64, 1..300),
            rate in 1..100_u64,
            extra in 0..100_u64,
        ) {
            let limits = Limits {
                rate_limit_tokens_per_second: rate,
                rate_limit_burst_capacity: rate + extra,
                ..Limits::default()
            };
            let mut bucket = TokenBucket::full(&limits, at(0));
            let (mut now, mut allowed) = (0, 0);
            for gap in gaps {
                now += gap;
                allowed += u64::from(bucket.take(&limits, at(now)) == Verdict::Allow);
                prop_assert!(allowed * 1_000 <= (rate + extra) * 1_000 + now * rate);
            }
        }
    }
}
