//! What became of a command. It is stored with the request's name, so it carries no secret.

use std::fmt;

use hiveops_proto::Timestamp;
use hiveops_proto::control::{Revision, Source};
use hiveops_proto::id::{KeyId, UserId};
use hiveops_proto::lease::LeaseGrant;
use serde::{Deserialize, Serialize};

use super::contract::Pushed;
use super::families::Refreshed;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[must_use]
pub enum Outcome {
    /// It was done.
    Done {
        /// The command's place in the log; for a repeated request, the first one's.
        revision: Revision,
        /// Whether anything is different now.
        changed: bool,
        /// What the asker wants to know.
        reply: Reply,
    },
    /// It cannot be done; the state is as it was.
    Refused(Refusal),
}

/// What the asker wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// That it was done.
    Empty,
    /// Which limits are different now.
    Limits(Vec<LimitChange>),
    /// How the contract in force differs from the one before.
    Contract(Box<Pushed>),
    /// Which key takes over, and when.
    Rotation {
        /// The key.
        kid: KeyId,
        /// When it begins to sign.
        sign_from: Timestamp,
    },
    /// What using the refresh token led to, and for whom.
    Refreshed {
        /// Whose login it is.
        user: UserId,
        /// What it led to.
        refreshed: Refreshed,
    },
    /// What a node may hold.
    Lease(LeaseGrant),
}

/// One limit that a patch gives another value or another source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitChange {
    /// The limit.
    pub name: String,
    /// Its value before.
    pub from: u64,
    /// Its value after.
    pub to: u64,
    /// Who set the value before.
    pub source: Source,
}

/// Why a command cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct Refusal {
    /// In one word, for machines.
    pub code: RefusalCode,
    /// For people: all mistakes at once.
    pub reasons: Vec<String>,
}

impl Refusal {
    /// A refusal for one reason.
    pub(crate) fn new(code: RefusalCode, reason: impl fmt::Display) -> Self {
        Self { code, reasons: vec![reason.to_string()] }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join(", "))
    }
}

/// The kinds of refusal; the API chooses its HTTP status by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The cluster has not been made yet.
    NotInitialized,
    /// The cluster is another one already.
    OtherCluster,
    /// What was asked for makes no sense.
    Invalid,
    /// It contradicts what there is.
    Conflict,
    /// There is no such thing.
    NotFound,
    /// A bound of the plane is reached.
    TooMany,
    /// The user may not come in any more, or has changed since the credentials were checked.
    Denied,
    /// Somebody newer speaks for the node, or something newer was said.
    Superseded,
    /// The name of the request belongs to another request.
    RequestReused,
}
