//! The pure state machine: a command in, an outcome out. No clock, no randomness, no IO: the same commands
//! in the same order make the same state, to the byte, on every replica. The raft shell applies the log to
//! it; `run` of a standalone plane does the same with a log of its own.

mod cluster;
mod command;
mod contract;
mod expiring;
mod families;
mod keys;
mod leases;
mod limits;
mod outcome;
mod requests;
mod revocations;
mod secret;
mod snapshot;
mod users;

use std::collections::BTreeMap;

use hiveops_proto::access::VerifyingKey;
use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::{ControlView, Revision};
use hiveops_proto::id::{ClusterId, FamilyId, KeyId, UserId};
use hiveops_proto::{Limits, Timestamp};
use serde::{Deserialize, Serialize};

pub use command::{Action, Command, Init, UnknownVersion, Version};
pub use contract::{
    CONTRACT_BYTES_MAX, Change, Classification, Level, NOTE_BYTES_MAX, Published, Push, Pushed,
    SUPPORTED_MAX, classify,
};
pub(crate) use expiring::Expiring;
pub use families::{
    FAMILIES_MAX, FAMILIES_PER_USER_MAX, Family, GRACE_MS, IDLE_MS, LOGIN_MS, NewFamily, Refreshed,
};
pub use keys::{
    KEYS_MAX, KeyState, NewKey, Overlap, PUBLISH_WAIT_MS, PublicKey, RETIRE_WAIT_MS, Rotation, SigningKey,
};
pub use leases::{HOLDERS_MAX, LEASE_MS, LEASE_MS_RANGE, NodeLease, USERS_PER_ASK_MAX, USERS_PER_NODE_MAX};
pub use outcome::{LimitChange, Outcome, Refusal, RefusalCode, Reply};
pub use revocations::{REVOKED_MS, SINGLE_MAX};
pub use secret::{InvalidTokenHash, SECRET_BYTES_MAX, Secret, TokenHash};
pub use snapshot::RestoreError;
pub(crate) use users::is_email;
pub use users::{Account, NewUser, USERS_MAX};

#[cfg(test)]
use crate::sim::planted::{Planted, is_planted};
use cluster::{Changed, Cluster, Effect};
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

impl State {
    /// The state before the first command: no cluster yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what a command asks for, whole or not at all. `revision` is its place in the log.
    pub fn apply(&mut self, revision: Revision, command: Command) -> Outcome {
        assert!(revision > self.applied, "{revision:?} was applied after {:?}", self.applied);
        let Command { v: _, at, request, action } = command;
        self.pass_time(revision, at);
        let Some(name) = request else { return self.perform(revision, action) };
        if let Some(outcome) = self.requests.answered(&name, &action) {
            return outcome;
        }
        let print = fingerprint(&action);
        let outcome = self.perform(revision, action);
        // Before there is a cluster nothing can be done, and afterwards the same request can be.
        let is_too_early =
            matches!(&outcome, Outcome::Refused(refusal) if refusal.code == RefusalCode::NotInitialized);
        if !is_too_early {
            self.requests.remember(name, print, outcome.clone(), self.clock);
        }
        outcome
    }

    /// What nodes get to see; nothing before the cluster has been made.
    pub fn view(&self) -> Option<ControlView> {
        self.cluster.as_ref().map(|cluster| cluster.view(self.clock))
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

    /// The key that signs at `now`. Control's own view of its keys: nodes never see private ones.
    pub fn signing_key(&self, now: Timestamp) -> Option<(&KeyId, &SigningKey)> {
        self.cluster.as_ref()?.keys.signing(now.max(self.clock))
    }

    /// The public keys whose signatures are good at `now`, oldest first.
    pub fn verifying_keys(&self, now: Timestamp) -> Vec<VerifyingKey> {
        let cluster = self.cluster.as_ref();
        cluster.map(|cluster| cluster.keys.verifying(now.max(self.clock))).unwrap_or_default()
    }

    /// What people may see of the keys that are good at `now`, oldest first.
    pub fn keys(&self, now: Timestamp) -> Vec<PublicKey> {
        let cluster = self.cluster.as_ref();
        cluster.map(|cluster| cluster.keys.list(now.max(self.clock))).unwrap_or_default()
    }

    /// When something that nodes see ends by itself, if no command comes before. The next command from then
    /// on lets go of it, whatever it asks for.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.cluster.as_ref()?.next_end()
    }

    /// A user by id.
    pub fn user(&self, id: &UserId) -> Option<&Account> {
        self.cluster.as_ref()?.users.get(id)
    }

    /// A user by email; case does not matter.
    pub fn user_by_email(&self, email: &str) -> Option<&Account> {
        self.cluster.as_ref()?.users.by_email(email)
    }

    /// All users, in the order of their ids.
    pub fn users(&self) -> impl Iterator<Item = &Account> {
        self.cluster.iter().flat_map(|cluster| cluster.users.iter())
    }

    /// A login by id.
    pub fn family(&self, id: &FamilyId) -> Option<&Family> {
        self.cluster.as_ref()?.families.get(id)
    }

    /// The lives of nodes that hold a lease, or whose budget is not free yet.
    pub fn nodes(&self) -> Vec<NodeLease> {
        let cluster = self.cluster.as_ref();
        cluster.map(|cluster| cluster.leases.list(self.clock)).unwrap_or_default()
    }

    /// The time in the plane. A leader's clock goes on from here if its wall clock is behind it.
    pub fn clock(&self) -> Timestamp {
        self.clock
    }

    /// Comes to the place and the time of a command, and lets go of what has ended by then.
    fn pass_time(&mut self, revision: Revision, at: Timestamp) {
        let is_new_term = revision.term > self.applied.term;
        #[cfg(test)]
        let is_new_term = is_new_term && !is_planted(Planted::LeasesOutliveTheirClock);
        self.applied = revision;
        self.clock = self.clock.max(at);
        self.requests.expire(self.clock);
        if let Some(cluster) = &mut self.cluster {
            if is_new_term {
                cluster.leases.new_term(self.clock);
            }
            if cluster.expire(self.clock) {
                cluster.revision = revision;
            }
        }
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

fn not_initialized() -> Refusal {
    Refusal::new(RefusalCode::NotInitialized, "the cluster has not been made yet")
}

#[cfg(test)]
mod tests;
