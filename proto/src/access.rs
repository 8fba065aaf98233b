//! Who may come in: users and their roles, the public signing keys, and the credentials that are no longer
//! good although they have not expired. Control decides; nodes check tokens against it.

use serde::{Deserialize, Serialize};

use crate::code::words;
use crate::id::{ClusterId, FamilyId, KeyId, TokenId, UserId};
use crate::timestamp::Timestamp;

/// How long an access token is good.
pub const ACCESS_TOKEN_MS: u64 = 10 * 60 * 1_000;

/// By how much the clocks of whoever issues a token and whoever checks it may differ.
pub const TOKEN_LEEWAY_MS: u64 = 30 * 1_000;

/// How long a login lasts without being used, and so its refresh token.
pub const LOGIN_IDLE_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// From publishing a signing key to signing with it. Every node that is not cut off has it by then, and so
/// has whoever keeps a node's answer for less than that.
pub const KEY_PUBLISH_WAIT_MS: u64 = 60 * 1_000;

words! {
    /// What a user may do, in one word; from the most to the least.
    Role {
        /// Everything.
        SuperAdmin = "super_admin",
        /// Everything in the dashboards.
        EnterpriseAdmin = "enterprise_admin",
        /// Builds on the contract.
        Developer = "developer",
        /// Works with agents and tasks.
        Operator = "operator",
        /// Looks.
        Viewer = "viewer",
    }
}

/// Whom access tokens are for: their `aud`.
pub const TOKEN_AUDIENCE: &str = "hiveops";

/// What an access token says: the claims of an EdDSA JWT whose header has `alg`, `typ` and `kid` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessClaims {
    /// The cluster whose control plane issued it.
    pub iss: ClusterId,
    /// [`TOKEN_AUDIENCE`].
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The user's role when it was issued; a later change raises the generation.
    pub role: Role,
    /// The token itself.
    pub jti: TokenId,
    /// The login that it belongs to.
    pub sid: FamilyId,
    /// The user's generation when it was issued.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
}

/// A user, as the user may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name for good.
    pub id: UserId,
    /// The name to log in with, in lower case.
    pub email: String,
    /// The name for people.
    pub full_name: String,
    /// What the user may do.
    pub role: Role,
    /// Whether the user may do it now.
    pub is_active: bool,
    /// When the user was made.
    pub created_at: Timestamp,
    /// When the user last logged in.
    pub last_login: Option<Timestamp>,
}

/// The public half of a signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyingKey {
    /// Its name.
    pub kid: KeyId,
    /// The Ed25519 public key, base64url without padding: the `x` of its JWK.
    pub x: String,
    /// When it was published.
    pub not_before: Timestamp,
    /// From then on nothing that it signed is good; open as long as it, or nothing yet, takes its place.
    pub retire_after: Option<Timestamp>,
}

/// Credentials that are no longer good. From `until` on all of them have expired by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Which.
    pub subject: RevokedSubject,
    /// When it can be forgotten.
    pub until: Timestamp,
}

/// Which credentials are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedSubject {
    /// One access token.
    Token {
        /// Its `jti`.
        jti: TokenId,
    },
    /// All access tokens of one login.
    Family {
        /// Their `sid`.
        family: FamilyId,
    },
    /// The access tokens that a user got before a change: of role or password, or of being allowed in.
    /// Counted, not timed, so that no clock has a say in it.
    User {
        /// Their `sub`.
        user: UserId,
        /// Those whose `gen` is below.
        below_generation: u64,
        /// The role, when it is another one and nothing else was changed: sockets go on with it. Without it they
        /// are closed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changed_role: Option<ChangedRole>,
    },
}

/// The role of a user who is as welcome as before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedRole {
    /// What the user may do now.
    pub role: Role,
    /// Since this generation nothing but the role has changed: whose `gen` is below it has lost more than a role.
    pub since_generation: u64,
}
