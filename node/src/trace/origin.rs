//! Who asked for a publication: carried with the task that serves the request.
//!
//! Between the route that knows who asks and the publisher lies the board, to which it makes no difference.
//! So it travels with the task instead of through every signature on the way.

use hiveops_proto::id::UserId;
use serde::{Deserialize, Serialize};

use super::context::TraceParent;
use crate::auth::Principal;
use crate::bus::IntakeSource;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// Where a publication came in, and who handed it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) source: Source,
    pub(crate) by: By,
    /// The trace that it is a part of.
    pub(crate) parent: Option<TraceParent>,
}

/// The way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// The node itself: its reports, and what follows from leases that have run out.
    Node,
    Http,
    NatsIn,
    RedisEnvelope,
    RedisSystemEvents,
    RedisAgentEvents,
    RedisProjectIndex,
    /// A later version knows another one.
    #[serde(other)]
    Other,
}

impl Source {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Http => "http",
            Self::NatsIn => "nats_in",
            Self::RedisEnvelope => "redis_envelope",
            Self::RedisSystemEvents => "redis_system_events",
            Self::RedisAgentEvents => "redis_agent_events",
            Self::RedisProjectIndex => "redis_project_index",
            Self::Other => "other",
        }
    }
}

/// Who handed it in, as far as a credential told; never the credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum By {
    /// Nobody was asked for a credential.
    Anyone,
    /// Whoever has the static token.
    StaticToken,
    /// A user, by an access token.
    User { id: UserId },
    #[serde(other)]
    Other,
}

impl Origin {
    const NODE: Self = Self { source: Source::Node, by: By::Anyone, parent: None };

    pub(crate) fn http(principal: &Principal, parent: Option<TraceParent>) -> Self {
        let by = match principal {
            Principal::Anyone => By::Anyone,
            Principal::Shared(_) => By::StaticToken,
            Principal::User(vouched) => By::User { id: vouched.claims.sub.clone() },
        };
        Self { source: Source::Http, by, parent }
    }

    /// What came from the bus; who may write there is the broker's business.
    pub(crate) fn intake(source: IntakeSource, parent: Option<TraceParent>) -> Self {
        let source = match source {
            IntakeSource::NatsIn => Source::NatsIn,
            IntakeSource::RedisEnvelope => Source::RedisEnvelope,
            IntakeSource::RedisSystemEvents => Source::RedisSystemEvents,
            IntakeSource::RedisAgentEvents => Source::RedisAgentEvents,
            IntakeSource::RedisProjectIndex => Source::RedisProjectIndex,
        };
        Self { source, by: By::Anyone, parent }
    }

    /// Does something of which the publications come from here.
    pub(crate) async fn of<F: Future>(self, work: F) -> F::Output {
        ORIGIN.scope(self, work).await
    }

    /// That of the task that asks: the node itself where nobody has said otherwise.
    pub(crate) fn current() -> Self {
        ORIGIN.try_with(Self::clone).unwrap_or(Self::NODE)
    }
}
