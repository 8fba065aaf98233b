//! What a replica can be told: one table of settings, read from flags, the environment and a file, in that
//! order. All mistakes are reported together, before anything is opened.
//!
//! The command line makes its flags from the table. What a cluster starts from (limits, contract) is a node's
//! business to read, and arrives as [`Start`].

mod load;
mod mistake;
mod secret;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use hiveops_proto::access::{ACCESS_TOKEN_MS, KEY_PUBLISH_WAIT_MS};
use hiveops_proto::control::{DeprecationPolicy, Source};
use hiveops_proto::id::ClusterId;
use hiveops_proto::{Contract, Limits};

pub use crate::auth::{Password, WrongLength};
pub use crate::replica::peers::Peers;
use crate::state::{Init, LEASE_MS, Overlap, RETIRE_WAIT_MS};
pub use load::{Given, Inputs, environment, load};
pub use mistake::{Mistake, Mistakes};
pub use secret::Secret;
pub use table::{Setting, settings};

/// A replica's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its number in the cluster.
    pub id: u64,
    /// Where it listens, for nodes, people and other replicas.
    pub listen: SocketAddr,
    /// The replicas that make the cluster, and where they reach each other.
    pub peers: Peers,
    /// Where this replica reaches some of the others, when that is not where everybody does.
    pub routes: Option<Peers>,
    /// Where it keeps log, vote and snapshots.
    pub data_dir: PathBuf,
    /// Log entries between two snapshots.
    pub snapshot_entries: u64,
    /// How long access tokens and their keys are good.
    pub tokens: TokenTimes,
    /// What everybody must know who talks to it.
    pub secret: Option<Secret>,
    /// Who is the first user, if this replica leads while there is none.
    pub first_admin: Option<FirstAdmin>,
    /// What the cluster starts from, if this replica is the first to lead it.
    pub start: Start,
}

/// How long access tokens are good, and how the keys that sign them take over from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTimes {
    /// From the signature of an access token to its end.
    pub access_seconds: u64,
    /// The steps of a rotation.
    pub(crate) overlap: Overlap,
}

impl Default for TokenTimes {
    fn default() -> Self {
        Self { access_seconds: ACCESS_TOKEN_MS / 1_000, overlap: Overlap::default() }
    }
}

impl TokenTimes {
    /// Whether a rotation is sure to refuse no valid token: nodes and caches have the time to see the new key, and
    /// the old one outlives its tokens also where clocks differ by the leeway.
    pub fn has_slack(&self) -> bool {
        let Overlap { publish_ms, retire_ms } = self.overlap;
        let tokens_ms = self.access_seconds * 1_000 + (RETIRE_WAIT_MS - ACCESS_TOKEN_MS);
        publish_ms >= KEY_PUBLISH_WAIT_MS && retire_ms >= tokens_ms
    }
}

/// The user that is made when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAdmin {
    /// The name to log in with, and for people until somebody gives another one.
    pub email: String,
    /// What the user logs in with.
    pub password: Password,
}

/// What a cluster starts from; later it is what was agreed on.
#[derive(Debug, Clone)]
pub struct Start {
    /// The thresholds.
    pub limits: Limits,
    /// For each threshold, who set it; one that is missing counts as a default.
    pub sources: BTreeMap<String, Source>,
    /// The contract document.
    pub contract: String,
    /// What happens to old versions.
    pub deprecation_policy: DeprecationPolicy,
    /// `sha256:` and the digest of the published schema.
    pub schema_digest: String,
}

impl Start {
    /// With the schema of this build.
    pub fn new(limits: Limits, sources: BTreeMap<String, Source>, contract: &Contract) -> Self {
        Self {
            limits,
            sources,
            contract: crate::document_of(contract),
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: hiveops_proto::schema_digest(),
        }
    }

    /// The first entry of a cluster's log.
    pub(crate) fn into_init(self, cluster_id: ClusterId) -> Init {
        let Self { limits, sources, contract, deprecation_policy, schema_digest } = self;
        Init { cluster_id, limits, sources, contract, deprecation_policy, schema_digest, lease_ms: LEASE_MS }
    }
}
