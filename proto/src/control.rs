//! What the control plane tells a node: the few slow facts that all nodes agree on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::access::{Revocation, VerifyingKey};
use crate::code::words;
use crate::contract::{Contract, ContractVersion};
use crate::id::ClusterId;
use crate::limits::Limits;

words! {
    /// Where a value in force came from.
    Source {
        /// Nobody said otherwise.
        Default = "default",
        /// The configuration file.
        File = "file",
        /// The environment.
        Env = "env",
        /// The command line.
        Flag = "flag",
        /// The control plane.
        Control = "control",
    }
}

/// A point in control's log. A node's view never goes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision {
    /// The leader's term.
    pub term: u64,
    /// The entry's index.
    pub index: u64,
}

/// A node's copy of control state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlView {
    /// The point in control's log that the view shows.
    pub revision: Revision,
    /// The thresholds.
    pub limits: Limits,
    /// For each threshold, who set it.
    pub sources: BTreeMap<String, Source>,
    /// The contract versions.
    pub contract: ContractView,
    /// Who may come in; members that an older writer did not know are empty.
    #[serde(default)]
    pub access: AccessView,
}

/// What nodes need to know to let people in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AccessView {
    /// The cluster that the view is of; nothing for a view without a control plane.
    pub cluster_id: Option<ClusterId>,
    /// The keys whose signatures are good, oldest first.
    pub keys: Vec<VerifyingKey>,
    /// The credentials that are no longer good.
    pub revocations: Vec<Revocation>,
}

/// Which contract versions there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContractView {
    /// The one in force, whole.
    pub current: Contract,
    /// Those that clients may ask for, oldest first; the one in force is among them.
    pub supported_versions: Vec<ContractVersion>,
    /// What happens to old ones.
    pub deprecation_policy: DeprecationPolicy,
    /// `sha256:` and the digest of the published schema.
    pub schema_digest: String,
    /// `sha256:` and the digest of the contract document in force, as it was pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract_digest: Option<String>,
}

/// What clients of an old version may rely on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeprecationPolicy {
    /// In one word.
    pub policy: String,
    /// In a sentence.
    pub notice: String,
}

impl Default for DeprecationPolicy {
    fn default() -> Self {
        Self {
            policy: "semver".to_owned(),
            notice: "A minor version only adds. A major version is announced by version_warning while the \
                     one before it is still supported."
                .to_owned(),
        }
    }
}
