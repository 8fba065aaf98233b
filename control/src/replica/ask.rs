//! What only a leader can do, what came of it, and why nothing did. These go between replicas as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use hiveops_proto::access::{Role, User};
use hiveops_proto::auth::Grant;
use hiveops_proto::control::{ControlView, Revision};
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::{FamilyId, IdempotencyKey, UserId};
use serde::{Deserialize, Serialize};

use crate::auth::{Denial, LogoutOutcome, RefreshOutcome};
use crate::raft::Undecided;
use crate::state::{
    Action, LimitChange, PublicKey, Push, Pushed, Refusal, RefusalCode, Reply, Rotation, Secret,
};

/// Within this a decision is made or refused with `no_quorum`; it leaves room for the way there and back in
/// the second that is promised.
pub(super) const DECISION: Duration = Duration::from_millis(800);
/// A login waits in a queue for its hash, and for the decision then.
const LOGIN: Duration = Duration::from_secs(5);
/// A change of the members needs two decisions, and a new leader needs an election.
const MEMBERS: Duration = Duration::from_secs(5);

/// What only a leader can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    Propose {
        request: Option<IdempotencyKey>,
        action: Action,
    },
    PreviewLimits {
        patch: BTreeMap<String, u64>,
    },
    PreviewContract {
        push: Push,
    },
    /// The leader makes the key, so that its private half is nowhere before it is in the log.
    Rotate {
        request: Option<IdempotencyKey>,
        rotation: Rotation,
    },
    Keys,
    View,
    Login {
        email: String,
        password: Secret,
        /// Where it comes from, if somebody knows.
        address: Option<String>,
    },
    Refresh {
        token: Secret,
    },
    Logout {
        family: FamilyId,
    },
    /// By a refresh token, which has to be one of the login's.
    LogoutBy {
        token: Secret,
    },
    /// The leader makes id and hash, for the same reason.
    AddUser {
        request: Option<IdempotencyKey>,
        email: String,
        full_name: String,
        role: Role,
        password: Secret,
    },
    SetPassword {
        request: Option<IdempotencyKey>,
        user: UserId,
        password: Secret,
    },
    User {
        id: UserId,
    },
    Users,
    Add {
        id: u64,
        address: String,
    },
    Promote {
        id: u64,
    },
    Remove {
        id: u64,
    },
    Transfer {
        to: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    Decided(Decided),
    Limits(Vec<LimitChange>),
    Contract(Box<Pushed>),
    Keys(Vec<PublicKey>),
    View(Box<ControlView>),
    LoggedIn(Result<Box<Grant>, Denial>),
    Refreshed(RefreshOutcome, Option<Box<Grant>>),
    User(Box<User>),
    Users(Vec<User>),
    /// A logout that ended nothing; one that did is [`Told::Done`].
    NotLoggedOut(LogoutOutcome),
    Done,
}

/// A decision that a quorum has stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decided {
    /// Its place in the log; for a repeated request, the first one's.
    pub(crate) revision: Revision,
    /// Whether anything is different now.
    pub(crate) changed: bool,
    pub(crate) reply: Reply,
    /// Who acknowledged it.
    pub(crate) leader: u64,
    /// The term of the leader that acknowledged it.
    pub(crate) term: u64,
}

/// Why nothing came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) kind: ProblemKind,
    pub(crate) detail: String,
}

impl Refused {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// Why a leader did not do it.
#[derive(Debug)]
pub(crate) enum Asked {
    NotLeader,
    Refused(Refused),
}

impl From<Refused> for Asked {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Undecided> for Asked {
    fn from(undecided: Undecided) -> Self {
        let detail = undecided.to_string();
        match undecided {
            Undecided::NotLeader => Self::NotLeader,
            Undecided::NoQuorum => Self::Refused(no_quorum(&detail)),
            Undecided::Refused(_) => Self::Refused(Refused::new(ProblemKind::VersionConflict, detail)),
            Undecided::Stopped => Self::Refused(no_quorum(&detail)),
        }
    }
}

impl Ask {
    /// How long to wait for it.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Propose { .. }
            | Self::PreviewLimits { .. }
            | Self::PreviewContract { .. }
            | Self::Rotate { .. }
            | Self::Refresh { .. }
            | Self::Logout { .. }
            | Self::LogoutBy { .. }
            | Self::User { .. }
            | Self::Users
            | Self::Keys
            | Self::View => DECISION,
            Self::Login { .. } | Self::AddUser { .. } | Self::SetPassword { .. } => LOGIN,
            Self::Add { .. } | Self::Promote { .. } | Self::Remove { .. } | Self::Transfer { .. } => MEMBERS,
        }
    }
}

pub(super) fn no_quorum(why: &str) -> Refused {
    let detail = format!("{why}; it is safe to send this again, with the same Idempotency-Key if it has one");
    Refused::new(ProblemKind::NoQuorum, detail)
}

pub(super) fn refused(refusal: Refusal) -> Refused {
    let kind = match refusal.code {
        RefusalCode::NotInitialized => ProblemKind::NoQuorum,
        RefusalCode::OtherCluster | RefusalCode::Denied => ProblemKind::Forbidden,
        RefusalCode::Invalid => ProblemKind::InvalidData,
        RefusalCode::Conflict | RefusalCode::Superseded => ProblemKind::VersionConflict,
        RefusalCode::NotFound => ProblemKind::NotFound,
        RefusalCode::TooMany => ProblemKind::StateFull,
        RefusalCode::RequestReused => ProblemKind::IdempotencyConflict,
    };
    Refused::new(kind, refusal.to_string())
}
