//! Whoever a credential showed: what a request or a session goes on with once the credential is forgotten.

use hiveops_proto::access::{AccessClaims, Role};
use hiveops_proto::id::UserId;

use super::roles::{self, Permission};
use super::token::Vouched;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Nobody in particular: no credential is needed here.
    Anyone,
    /// Whoever has the static token.
    Shared(Role),
    /// A user, by an access token. Boxed: most of a session's memory would be this.
    User(Box<Vouched>),
}

impl Principal {
    /// The role; none where nobody asks for one.
    fn role(&self) -> Option<Role> {
        match self {
            Self::Anyone => None,
            Self::Shared(role) => Some(*role),
            Self::User(vouched) => Some(vouched.claims.role),
        }
    }

    pub(crate) fn may(&self, permission: Permission) -> bool {
        self.role().is_none_or(|role| roles::may(role, permission))
    }

    pub(crate) fn may_join(&self, subscription: &str) -> bool {
        self.role().is_none_or(|role| roles::may_join(role, subscription))
    }

    /// Goes on with another role, as if by a token of this generation.
    pub(crate) fn change_role(&mut self, role: Role, generation: u64) {
        if let Self::User(vouched) = self {
            vouched.claims.role = role;
            vouched.claims.generation = generation;
        }
    }

    /// The user, for limits that are per user.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.claims().map(|claims| &claims.sub)
    }

    pub(crate) fn claims(&self) -> Option<&AccessClaims> {
        self.vouched().map(|vouched| &vouched.claims)
    }

    /// What let a user in.
    pub(crate) fn vouched(&self) -> Option<&Vouched> {
        match self {
            Self::Anyone | Self::Shared(_) => None,
            Self::User(vouched) => Some(vouched),
        }
    }
}
