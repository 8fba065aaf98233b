//! Who somebody is: passwords, refresh tokens, access tokens, and how often anybody may try. It decides
//! nothing about users or logins, which is the state machine's business, and knows neither HTTP nor the
//! other replicas; `replica/login.rs` puts the two together.

mod access_token;
mod denial;
mod hashing;
mod password;
mod refresh_token;
mod throttle;

use hiveops_proto::Timestamp;
use parking_lot::Mutex;

pub(crate) use access_token::{Issue, sign};
pub(crate) use denial::{Denial, DenialReason, LogoutOutcome, RefreshOutcome};
pub(crate) use hashing::{Busy, Hashing, NotHashed};
pub use password::{Password, WrongLength};
pub(crate) use refresh_token::{RefreshToken, seed_of};
use throttle::Throttle;

/// What a replica needs to check who somebody is. Only that of the leader is used: whoever leads next begins
/// with an empty throttle.
#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) hashing: Hashing,
    /// Held for a few comparisons.
    throttle: Mutex<Throttle>,
}

impl Auth {
    pub(crate) fn new() -> Self {
        Self { hashing: Hashing::new(), throttle: Mutex::new(Throttle::default()) }
    }

    /// Counts a try to log in, or says why there may be none now.
    pub(crate) fn admit(&self, email: &str, address: Option<&str>, now: Timestamp) -> Result<(), Denial> {
        self.throttle.lock().take(email, address, now)
    }
}
