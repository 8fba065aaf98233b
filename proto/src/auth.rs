//! What nodes and the command line say to control about logins: requests and answers of `/api/control/auth`
//! and `/api/control/users`. Whoever holds one of these holds a secret, so none shows it in a debug output.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::access::User;
use crate::id::FamilyId;

/// Somebody wants to log in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRequest {
    /// The name; case does not matter.
    pub email: String,
    /// The password.
    pub password: String,
    /// Where the request came from, as the node saw it: attempts are throttled by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Somebody wants a new access token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshRequest {
    /// The one that was given last.
    pub refresh_token: String,
}

/// A login is to end: the one of a refresh token, or the one of this name.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogoutRequest {
    /// A refresh token of the login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The login: the `sid` of its access tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyId>,
}

/// What a login or a refresh gives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// An EdDSA JWT with the claims of [`crate::access::AccessClaims`].
    pub access_token: String,
    /// Good for one refresh.
    pub refresh_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds until the access token ends.
    pub expires_in: u64,
    /// Whose it is.
    pub user: User,
}

/// Every user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// In the order of their ids.
    pub users: Vec<User>,
}

impl fmt::Debug for LoginRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest").field("email", &self.email).finish_non_exhaustive()
    }
}

impl fmt::Debug for RefreshRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshRequest").finish_non_exhaustive()
    }
}

impl fmt::Debug for LogoutRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogoutRequest").field("family", &self.family).finish_non_exhaustive()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("user", &self.user.id).finish_non_exhaustive()
    }
}
