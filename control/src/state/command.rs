//! What can be asked of the plane. A command carries everything that a decision needs (the time, ids and
//! secrets made outside), so that every replica decides alike; its JSON is an entry of the log.

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::access::Role;
use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::{DeprecationPolicy, Source};
use hiveops_proto::id::{ClusterId, FamilyId, IdempotencyKey, TokenId, UserId};
use hiveops_proto::lease::LeaseAsk;
use hiveops_proto::{Limits, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::contract::Push;
use super::families::NewFamily;
use super::keys::{NewKey, Overlap, Rotation};
use super::secret::{Secret, TokenHash};
use super::users::NewUser;

/// One entry of the log.
///
/// Unknown members and variants are errors: a replica that does not understand a command must stop
/// rather than apply a part of it and differ from the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The language that the command is written in.
    pub v: Version,
    /// When the leader took it in. Within a term it must come from a clock that never runs backwards and
    /// never jumps (the wall clock at the election, plus the monotonic time since).
    pub at: Timestamp,
    /// The asker's own name for the request: repeating it does nothing and answers what the first did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<IdempotencyKey>,
    /// What to do.
    pub action: Action,
}

impl Command {
    /// A command in today's language.
    pub fn new(at: Timestamp, request: Option<IdempotencyKey>, action: Action) -> Self {
        Self { v: Version::CURRENT, at, request, action }
    }
}

/// The language of commands; raised when an old binary would read one wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version(u32);

/// Why a command cannot be read by this binary.
#[derive(Debug, thiserror::Error)]
#[error("command version {0} is not known to this binary, which knows version {current}", current = Version::CURRENT.0)]
pub struct UnknownVersion(u32);

impl Version {
    /// What this binary writes, and all it reads.
    pub const CURRENT: Self = Self(1);
}

impl TryFrom<u32> for Version {
    type Error = UnknownVersion;
    fn try_from(number: u32) -> Result<Self, UnknownVersion> {
        if number == Self::CURRENT.0 { Ok(Self(number)) } else { Err(UnknownVersion(number)) }
    }
}

impl From<Version> for u32 {
    fn from(version: Version) -> u32 {
        version.0
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Make the cluster; the first action, and only once.
    Init(Box<Init>),
    /// Give some limits other values; all of them or none.
    SetLimits {
        /// The new value of each limit that is named.
        patch: BTreeMap<String, u64>,
    },
    /// Put another contract version in force.
    PushContract(Box<Push>),
    /// Change which contract versions clients may ask for, and what they are told.
    SupportContract {
        /// The versions; the one in force is among them.
        versions: Option<BTreeSet<ContractVersion>>,
        /// What happens to old versions.
        policy: Option<DeprecationPolicy>,
    },
    /// Let a new key take over the signing of access tokens.
    RotateKey {
        /// The key.
        key: NewKey,
        /// How.
        rotation: Rotation,
        /// How long its steps take.
        #[serde(default, skip_serializing_if = "Overlap::is_default")]
        overlap: Overlap,
    },
    /// Make a user.
    AddUser(Box<NewUser>),
    /// Make the first user, a `super_admin` whatever it says; nothing happens if there is one.
    BootstrapAdmin(Box<NewUser>),
    /// Give a user another role; access tokens have to be made anew.
    SetRole {
        /// The user.
        user: UserId,
        /// The role.
        role: Role,
        /// Whether sessions go on with what the role allows. In commands of before there was a choice they end;
        /// those have to make the state that they made then.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        narrows: bool,
    },
    /// Let a user in again.
    EnableUser {
        /// The user.
        user: UserId,
    },
    /// Do not let a user in any more; logins end.
    DisableUser {
        /// The user.
        user: UserId,
    },
    /// Give a user another password; logins end.
    SetPassword {
        /// The user.
        user: UserId,
        /// The argon2id hash in its PHC form.
        password_hash: Secret,
    },
    /// Begin a login, after the password has been checked.
    OpenFamily {
        /// The login.
        family: NewFamily,
        /// The user's when the password was checked: if it is another by now, so may the password be.
        generation: u64,
    },
    /// Use a refresh token.
    RefreshFamily {
        /// The login that the token names.
        family: FamilyId,
        /// The token.
        presented: TokenHash,
        /// The one that replaces it.
        next: TokenHash,
    },
    /// End a login and its access tokens.
    RevokeFamily {
        /// The login.
        family: FamilyId,
    },
    /// Revoke one access token.
    RevokeToken {
        /// Its `jti`.
        jti: TokenId,
        /// Its `sub`.
        user: UserId,
    },
    /// End all logins of a user and all access tokens.
    RevokeUser {
        /// The user.
        user: UserId,
    },
    /// Let go of what has ended by itself. A leader asks for it when something has and no other command comes.
    Tick,
    /// Renew a node's lease, and lend it what it asks for.
    RenewLease(Box<LeaseAsk>),
    /// A node has closed its sessions and goes away.
    EndLease {
        /// The node.
        node: NodeId,
        /// Which life of it.
        incarnation: u64,
    },
}

/// What a cluster starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// The cluster's name for itself.
    pub cluster_id: ClusterId,
    /// The first thresholds.
    pub limits: Limits,
    /// For each threshold, who set it; one that is missing counts as a default.
    pub sources: BTreeMap<String, Source>,
    /// The contract document, as text: parsing it is a part of the decision, because JSON numbers need
    /// not survive being written and read again.
    pub contract: String,
    /// What happens to old versions.
    pub deprecation_policy: DeprecationPolicy,
    /// `sha256:` and the digest of the published schema of frames.
    pub schema_digest: String,
    /// How long a node may hold what it borrowed without being heard of.
    pub lease_ms: u64,
}
