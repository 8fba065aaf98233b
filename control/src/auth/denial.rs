//! Why somebody was not let in, and what became of a refresh: closed sets, because both are labels of
//! metrics. They say more than the person at the door is told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a login was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Denial {
    pub(crate) reason: DenialReason,
    /// When another try makes sense, if time helps.
    pub(crate) retry_after_ms: Option<u64>,
}

impl From<DenialReason> for Denial {
    fn from(reason: DenialReason) -> Self {
        Self { reason, retry_after_ms: None }
    }
}

/// In one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DenialReason {
    UnknownUser,
    WrongPassword,
    Disabled,
    /// It was not even hashed.
    PasswordTooLong,
    /// The user was changed while the password was checked.
    Changed,
    AccountThrottled,
    AddressThrottled,
    /// The queue of those whose password is checked is full.
    Busy,
    /// There is no quorum, or no key to sign with yet.
    Unavailable,
}

impl DenialReason {
    pub(crate) const ALL: [Self; 9] = [
        Self::UnknownUser,
        Self::WrongPassword,
        Self::Disabled,
        Self::PasswordTooLong,
        Self::Changed,
        Self::AccountThrottled,
        Self::AddressThrottled,
        Self::Busy,
        Self::Unavailable,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::Disabled => "disabled",
            Self::PasswordTooLong => "password_too_long",
            Self::Changed => "changed",
            Self::AccountThrottled => "account_throttled",
            Self::AddressThrottled => "address_throttled",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefreshOutcome {
    /// There is a new token.
    Rotated,
    /// There was one already: somebody used the same token a moment ago, and both have the same new one.
    InGrace,
    /// The token was used before: the login has ended.
    Reused,
    /// The text is no token, or there is no such login.
    Invalid,
    /// There is no quorum, or no key to sign with yet.
    Unavailable,
}

impl RefreshOutcome {
    pub(crate) const ALL: [Self; 5] =
        [Self::Rotated, Self::InGrace, Self::Reused, Self::Invalid, Self::Unavailable];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::InGrace => "in_grace",
            Self::Reused => "reused",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of a logout. Whoever asked is not told which: that there is no such login is what they want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogoutOutcome {
    /// The login has ended by it.
    Ended,
    /// There was no such login any more, or never.
    NoLogin,
    /// The refresh token is none, or none of that login, which goes on.
    Invalid,
    /// There is no quorum.
    Unavailable,
}

impl LogoutOutcome {
    pub(crate) const ALL: [Self; 4] = [Self::Ended, Self::NoLogin, Self::Invalid, Self::Unavailable];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::NoLogin => "no_login",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for LogoutOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RefreshOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
