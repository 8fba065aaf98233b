//! The pure state machine: a command in, an outcome out. No clock, no randomness, no IO: the same commands
//! in the same order make the same state, to the byte, on every replica. The raft shell applies the log to
//! it; `run` of a standalone plane does the same with a log of its own.

mod command;
mod limits;
mod outcome;
mod snapshot;

use std::collections::BTreeMap;

use hiveops_proto::control::{ContractView, ControlView, DeprecationPolicy, Revision};
use hiveops_proto::id::ClusterId;
use hiveops_proto::{Contract, Limits, Timestamp};
use serde::{Deserialize, Serialize};

pub use command::{Action, Command, Init, UnknownVersion, Version};
pub use outcome::{LimitChange, Outcome, Refusal, RefusalCode, Reply};
pub use snapshot::RestoreError;

use limits::Thresholds;

/// Everything the plane knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The place of the last command in the log.
    applied: Revision,
    /// The latest time that a command carried: time in the plane does not run backwards, whatever the
    /// clocks of its leaders say.
    clock: Timestamp,
    cluster: Option<Cluster>,
}

/// What there is once the cluster has been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cluster {
    id: ClusterId,
    /// The place in the log of the last command that changed the view.
    revision: Revision,
    thresholds: Thresholds,
    contract: Contract,
    deprecation_policy: DeprecationPolicy,
    schema_digest: String,
}

/// What a command changed, and what to say about it.
struct Effect {
    changed: Changed,
    reply: Reply,
}

/// How far a change is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    /// It was like that already.
    Nothing,
    /// What nodes see is different.
    View,
}

impl State {
    /// The state before the first command: no cluster yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what a command asks for, whole or not at all. `revision` is its place in the log.
    pub fn apply(&mut self, revision: Revision, command: Command) -> Outcome {
        assert!(revision > self.applied, "{revision:?} was applied after {:?}", self.applied);
        self.applied = revision;
        self.clock = self.clock.max(command.at);
        match self.decide(revision, command.action) {
            Ok(Effect { changed, reply }) => {
                if let (Changed::View, Some(cluster)) = (changed, &mut self.cluster) {
                    cluster.revision = revision;
                }
                Outcome::Done { revision, changed: changed != Changed::Nothing, reply }
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// What nodes get to see; nothing before the cluster has been made.
    pub fn view(&self) -> Option<ControlView> {
        self.cluster.as_ref().map(Cluster::view)
    }

    /// The place in the log of the last change that nodes see. The view is the same as long as this is.
    pub fn view_revision(&self) -> Option<Revision> {
        self.cluster.as_ref().map(|cluster| cluster.revision)
    }

    /// The place of the last command in the log.
    pub fn applied(&self) -> Revision {
        self.applied
    }

    /// The name of the cluster, once it has been made.
    pub fn cluster_id(&self) -> Option<&ClusterId> {
        self.cluster.as_ref().map(|cluster| &cluster.id)
    }

    /// The thresholds in force.
    pub fn limits(&self) -> Option<&Limits> {
        self.cluster.as_ref().map(|cluster| &cluster.thresholds.limits)
    }

    /// What [`Action::SetLimits`] would change now, or why it would be refused.
    pub fn preview_limits(&self, patch: &BTreeMap<String, u64>) -> Result<Vec<LimitChange>, Refusal> {
        let cluster = self.cluster.as_ref().ok_or_else(not_initialized)?;
        cluster.thresholds.preview(patch)
    }

    fn decide(&mut self, revision: Revision, action: Action) -> Result<Effect, Refusal> {
        let action = match action {
            Action::Init(init) => return self.init(revision, *init),
            other => other,
        };
        let cluster = self.cluster.as_mut().ok_or_else(not_initialized)?;
        cluster.decide(action)
    }

    fn init(&mut self, revision: Revision, init: Init) -> Result<Effect, Refusal> {
        match &self.cluster {
            None => {
                self.cluster = Some(Cluster::new(revision, init)?);
                Ok(Effect { changed: Changed::View, reply: Reply::Empty })
            }
            Some(cluster) if cluster.id == init.cluster_id => {
                Ok(Effect { changed: Changed::Nothing, reply: Reply::Empty })
            }
            Some(cluster) => Err(Refusal::new(
                RefusalCode::OtherCluster,
                format_args!("this is cluster `{}`, not `{}`", cluster.id, init.cluster_id),
            )),
        }
    }
}

impl Cluster {
    fn new(revision: Revision, init: Init) -> Result<Self, Refusal> {
        let contract =
            Contract::parse(&init.contract).map_err(|error| Refusal::new(RefusalCode::Invalid, error))?;
        Ok(Self {
            id: init.cluster_id,
            revision,
            thresholds: Thresholds::new(init.limits, &init.sources)?,
            contract,
            deprecation_policy: init.deprecation_policy,
            schema_digest: init.schema_digest,
        })
    }

    fn view(&self) -> ControlView {
        ControlView {
            revision: self.revision,
            limits: self.thresholds.limits.clone(),
            sources: self.thresholds.sources.clone(),
            contract: ContractView {
                current: self.contract.clone(),
                supported_versions: vec![self.contract.version],
                deprecation_policy: self.deprecation_policy.clone(),
                schema_digest: self.schema_digest.clone(),
            },
        }
    }

    fn decide(&mut self, action: Action) -> Result<Effect, Refusal> {
        match action {
            Action::Init(_) => Ok(Effect { changed: Changed::Nothing, reply: Reply::Empty }),
            Action::SetLimits { patch } => {
                let changes = self.thresholds.set(&patch)?;
                let changed = if changes.is_empty() { Changed::Nothing } else { Changed::View };
                Ok(Effect { changed, reply: Reply::Limits(changes) })
            }
        }
    }
}

fn not_initialized() -> Refusal {
    Refusal::new(RefusalCode::NotInitialized, "the cluster has not been made yet")
}
