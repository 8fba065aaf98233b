//! The pure state machine: a command in, an outcome out. No clock, no randomness, no IO: the same commands
//! in the same order make the same state, to the byte, on every replica. The raft shell applies the log to
//! it; `run` of a standalone plane does the same with a log of its own.

mod command;
mod contract;
mod expiring;
mod limits;
mod outcome;
mod requests;
mod snapshot;

use std::collections::BTreeMap;

use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::{ControlView, Revision};
use hiveops_proto::id::ClusterId;
use hiveops_proto::{Limits, Timestamp};
use serde::{Deserialize, Serialize};

pub use command::{Action, Command, Init, UnknownVersion, Version};
pub use contract::{
    CONTRACT_BYTES_MAX, Change, Classification, Level, NOTE_BYTES_MAX, Published, Push, Pushed,
    SUPPORTED_MAX, classify,
};
pub use outcome::{LimitChange, Outcome, Refusal, RefusalCode, Reply};
pub use snapshot::RestoreError;

use contract::Registry;
use limits::Thresholds;
use requests::{Requests, fingerprint};

/// Everything the plane knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The place of the last command in the log.
    applied: Revision,
    /// The latest time that a command carried: time in the plane does not run backwards, whatever the
    /// clocks of its leaders say.
    clock: Timestamp,
    requests: Requests,
    cluster: Option<Cluster>,
}

/// What there is once the cluster has been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Cluster {
    id: ClusterId,
    /// The place in the log of the last command that changed the view.
    revision: Revision,
    thresholds: Thresholds,
    registry: Registry,
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
        self.requests.expire(self.clock);
        let Command { v: _, at: _, request, action } = command;
        let Some(name) = request else { return self.perform(revision, action) };
        if let Some(outcome) = self.requests.answered(&name, &action) {
            return outcome;
        }
        let print = fingerprint(&action);
        let outcome = self.perform(revision, action);
        self.requests.remember(name, print, outcome.clone(), self.clock);
        outcome
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

    /// What [`Action::PushContract`] would do now, or why it would be refused.
    pub fn preview_contract(&self, push: &Push) -> Result<Pushed, Refusal> {
        self.cluster.as_ref().ok_or_else(not_initialized)?.registry.preview(push)
    }

    /// The contract versions that are kept, by number.
    pub fn contract_versions(&self) -> Option<&BTreeMap<ContractVersion, Published>> {
        self.cluster.as_ref().map(|cluster| cluster.registry.versions())
    }

    /// The time in the plane. A leader's clock goes on from here if its wall clock is behind it.
    pub fn clock(&self) -> Timestamp {
        self.clock
    }

    fn perform(&mut self, revision: Revision, action: Action) -> Outcome {
        let now = self.clock;
        let effect = match (action, &mut self.cluster) {
            (Action::Init(init), None) => Cluster::new(revision, *init, now).map(|cluster| {
                self.cluster = Some(cluster);
                Effect::view(Reply::Empty)
            }),
            (_, None) => Err(not_initialized()),
            (action, Some(cluster)) => cluster.decide(action, now),
        };
        match effect {
            Ok(Effect { changed, reply }) => {
                if let (Changed::View, Some(cluster)) = (changed, &mut self.cluster) {
                    cluster.revision = revision;
                }
                Outcome::Done { revision, changed: changed != Changed::Nothing, reply }
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }
}

impl Effect {
    fn nothing(reply: Reply) -> Self {
        Self { changed: Changed::Nothing, reply }
    }

    fn view(reply: Reply) -> Self {
        Self { changed: Changed::View, reply }
    }

    /// A change of the view, or none.
    fn view_if(changed: bool, reply: Reply) -> Self {
        if changed { Self::view(reply) } else { Self::nothing(reply) }
    }
}

impl Cluster {
    fn new(revision: Revision, init: Init, now: Timestamp) -> Result<Self, Refusal> {
        Ok(Self {
            id: init.cluster_id,
            revision,
            thresholds: Thresholds::new(init.limits, &init.sources)?,
            registry: Registry::new(init.contract, init.deprecation_policy, init.schema_digest, now)?,
        })
    }

    fn view(&self) -> ControlView {
        ControlView {
            revision: self.revision,
            limits: self.thresholds.limits.clone(),
            sources: self.thresholds.sources.clone(),
            contract: self.registry.view(),
        }
    }

    fn decide(&mut self, action: Action, now: Timestamp) -> Result<Effect, Refusal> {
        match action {
            Action::Init(init) => self.init_again(&init),
            Action::SetLimits { patch } => {
                let changes = self.thresholds.set(&patch)?;
                Ok(Effect::view_if(!changes.is_empty(), Reply::Limits(changes)))
            }
            Action::PushContract(push) => {
                let pushed = self.registry.push(*push, now)?;
                let changed = pushed.version != pushed.previous;
                Ok(Effect::view_if(changed, Reply::Contract(Box::new(pushed))))
            }
            Action::SupportContract { versions, policy } => {
                Ok(Effect::view_if(self.registry.support(versions, policy)?, Reply::Empty))
            }
        }
    }

    fn init_again(&self, init: &Init) -> Result<Effect, Refusal> {
        if init.cluster_id == self.id {
            return Ok(Effect::nothing(Reply::Empty));
        }
        let reason = format_args!("this is cluster `{}`, not `{}`", self.id, init.cluster_id);
        Err(Refusal::new(RefusalCode::OtherCluster, reason))
    }
}

fn not_initialized() -> Refusal {
    Refusal::new(RefusalCode::NotInitialized, "the cluster has not been made yet")
}
