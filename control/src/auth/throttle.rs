//! How often anybody may try to log in: a few times at once, then one try at a time, counted per account and
//! per address, whether or not there is such an account and whether or not the tries succeed. Pure: the time
//! is an argument.
//!
//! A bucket is remembered by the time at which it will be full again, so one that is full need not be
//! remembered. When there are too many, the fullest is forgotten first: somebody who floods it with names has
//! one try missing in each, and cannot push out the account that is being guessed at.

use std::net::{IpAddr, Ipv6Addr};

use hiveops_proto::Timestamp;
use sha2::{Digest as _, Sha256};

use super::denial::{Denial, DenialReason};
use crate::state::Expiring;

/// Tries at once for one account: somebody who mistypes has enough of them.
const ACCOUNT: Rate = Rate { burst: 5, every_ms: 12_000 };

/// Tries at once from one address: an office behind one address has enough of them.
const ADDRESS: Rate = Rate { burst: 20, every_ms: 3_000 };

/// Buckets of each kind. An account's is full after a minute, and not even a tenth of so many passwords can
/// be checked in one.
const BUCKETS_MAX: usize = 10_000;

/// How much of an IPv6 address is one customer's as a rule; the rest is for the customer to choose.
const IPV6_PREFIX: u32 = 64;

/// What a bucket holds, and how fast it fills.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u64,
    every_ms: u64,
}

/// A digest instead of the name: all have one size, however long the name is.
type Key = [u8; 32];

/// All buckets that are not full.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    accounts: Buckets,
    addresses: Buckets,
}

impl Throttle {
    /// Counts a try, or says how long there may be none.
    pub(crate) fn take(&mut self, email: &str, address: Option<&str>, now: Timestamp) -> Result<(), Denial> {
        let denied = |reason| move |wait_ms| Denial { reason, retry_after_ms: Some(wait_ms) };
        if let Some(address) = address {
            let taken = self.addresses.take(key(&place(address)), ADDRESS, now);
            taken.map_err(denied(DenialReason::AddressThrottled))?;
        }
        let taken = self.accounts.take(key(&email.to_lowercase()), ACCOUNT, now);
        taken.map_err(denied(DenialReason::AccountThrottled))
    }
}

/// An entry ends when its bucket is full again.
#[derive(Debug, Default)]
struct Buckets(Expiring<Key, ()>);

impl Buckets {
    /// Takes one out; otherwise how many milliseconds it is until there is one.
    fn take(&mut self, key: Key, rate: Rate, now: Timestamp) -> Result<(), u64> {
        self.0.expire(now);
        let full_at = self.0.until(&key);
        let missing_ms = full_at.map_or(0, |full_at| full_at.millis_since(now));
        let wait_ms = (missing_ms + rate.every_ms).saturating_sub(rate.burst * rate.every_ms);
        if wait_ms > 0 {
            return Err(wait_ms);
        }
        if full_at.is_none() && self.0.len() >= BUCKETS_MAX {
            self.0.pop_first();
        }
        self.0.insert(key, (), now.plus_millis(missing_ms + rate.every_ms));
        Ok(())
    }
}

fn key(name: &str) -> Key {
    Sha256::digest(name.as_bytes()).into()
}

/// What of an address is one customer's. A text that is no address stands for itself.
fn place(address: &str) -> String {
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let network = address.to_bits() >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX);
            Ipv6Addr::from_bits(network).to_string()
        }
        Ok(address @ IpAddr::V4(_)) => address.to_string(),
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000).plus_millis(ms)
    }

    fn denied(throttle: &mut Throttle, email: &str, address: Option<&str>, ms: u64) -> Option<Denial> {
        throttle.take(email, address, at(ms)).err()
    }

    #[test]
    fn five_tries_of_an_account_at_once_then_one_every_twelve_seconds() {
        let mut throttle = Throttle::default();
        for _ in 0..5 {
            assert_eq!(denied(&mut throttle, "ada@example.org", None, 0), None);
        }
        let wanted = Denial { reason: DenialReason::AccountThrottled, retry_after_ms: Some(12_000) };
        assert_eq!(denied(&mut throttle, "ADA@example.org", None, 0), Some(wanted));
        let nearly = denied(&mut throttle, "ada@example.org", None, 11_999).unwrap();
        assert_eq!(nearly.retry_after_ms, Some(1), "what was denied costs nothing");
        assert_eq!(denied(&mut throttle, "ada@example.org", None, 12_000), None);
        assert!(denied(&mut throttle, "ada@example.org", None, 12_000).is_some());
        assert_eq!(denied(&mut throttle, "bob@example.org", None, 12_000), None);
    }

    #[test]
    fn twenty_tries_from_an_address_at_once_then_one_every_three_seconds() {
        let mut throttle = Throttle::default();
        let email = |number: u64| format!("user{number}@example.org");
        for number in 0..20 {
            assert_eq!(denied(&mut throttle, &email(number), Some("192.0.2.1"), 0), None);
        }
        let late = denied(&mut throttle, &email(20), Some("::ffff:192.0.2.1"), 1_000).unwrap();
        assert_eq!((late.reason, late.retry_after_ms), (DenialReason::AddressThrottled, Some(2_000)));
        assert_eq!(denied(&mut throttle, &email(20), Some("192.0.2.2"), 1_000), None);
        assert_eq!(denied(&mut throttle, &email(20), Some("192.0.2.1"), 3_000), None);
    }

    #[test]
    fn a_network_of_one_customer_is_one_address() {
        assert_eq!(place("2001:db8:1:2:3:4:5:6"), place("2001:db8:1:2::9"));
        assert_ne!(place("2001:db8:1:2::"), place("2001:db8:1:3::"));
        assert_eq!(place("somewhere"), "somewhere");
    }

    #[test]
    fn a_flood_of_names_does_not_push_out_the_account_that_is_guessed_at() {
        let mut throttle = Throttle::default();
        for _ in 0..5 {
            assert_eq!(denied(&mut throttle, "ada@example.org", None, 0), None);
        }
        for number in 0..BUCKETS_MAX + 100 {
            assert_eq!(denied(&mut throttle, &format!("{number}@example.org"), None, 1), None);
        }
        assert_eq!(throttle.accounts.0.len(), BUCKETS_MAX);
        assert!(denied(&mut throttle, "ada@example.org", None, 2).is_some());
        assert_eq!(denied(&mut throttle, "eve@example.org", None, 60_001), None);
        assert_eq!(throttle.accounts.0.len(), 1, "full buckets are forgotten");
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_waiting_as_told_is_enough(
            pauses in proptest::collection::vec(0_u64..20_000, 1..100),
        ) {
            let mut throttle = Throttle::default();
            let (mut now, mut allowed) = (0, Vec::new());
            for pause in pauses {
                now += pause;
                match denied(&mut throttle, "ada@example.org", None, now) {
                    None => allowed.push(now),
                    Some(denial) => {
                        now += denial.retry_after_ms.unwrap();
                        prop_assert_eq!(denied(&mut throttle, "ada@example.org", None, now), None);
                        allowed.push(now);
                    }
                }
            }
            for (first, begin) in allowed.iter().enumerate() {
                for (last, end) in allowed.iter().enumerate().skip(first) {
                    let most = ACCOUNT.burst + (end - begin) / ACCOUNT.every_ms;
                    prop_assert!(((last - first) as u64) < most);
                }
            }
        }
    }
}
