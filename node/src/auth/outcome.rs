//! What became of a login or a refresh that control was asked about: closed sets, which are labels.

use hiveops_proto::http::ProblemKind;

use crate::control::AccountError;

/// Why somebody did not get in by email and password. Counted beside the denials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginRefusal {
    /// Email and password do not belong together, or the user may not come in.
    Credentials,
    /// Too many were tried.
    Throttled,
    /// Nobody could say.
    Unavailable,
}

/// What became of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshOutcome {
    Granted,
    /// It is none, or its login has ended.
    Invalid,
    /// It was used before.
    Reused,
    /// Nobody could say.
    Unavailable,
}

impl LoginRefusal {
    pub(crate) const ALL: [Self; 3] = [Self::Credentials, Self::Throttled, Self::Unavailable];

    pub(crate) fn of(error: &AccountError) -> Self {
        match error {
            AccountError::Refused { kind: ProblemKind::LoginThrottled, .. } => Self::Throttled,
            AccountError::Refused {
                kind: ProblemKind::NoQuorum | ProblemKind::NoLeader | ProblemKind::Busy,
                ..
            }
            | AccountError::Unavailable(_) => Self::Unavailable,
            AccountError::Refused { .. } => Self::Credentials,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "invalid_credentials",
            Self::Throttled => "login_throttled",
            Self::Unavailable => "unavailable",
        }
    }
}

impl RefreshOutcome {
    pub(crate) const ALL: [Self; 4] = [Self::Granted, Self::Invalid, Self::Reused, Self::Unavailable];

    pub(crate) fn of<T>(outcome: &Result<T, AccountError>) -> Self {
        match outcome {
            Ok(_) => Self::Granted,
            Err(AccountError::Refused { kind: ProblemKind::RefreshReused, .. }) => Self::Reused,
            Err(AccountError::Refused { kind: ProblemKind::InvalidRefreshToken, .. }) => Self::Invalid,
            Err(AccountError::Refused { .. } | AccountError::Unavailable(_)) => Self::Unavailable,
        }
    }

    /// Whether the token is good for nothing any more.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Invalid | Self::Reused)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Invalid => "invalid",
            Self::Reused => "reused",
            Self::Unavailable => "unavailable",
        }
    }
}
