//! Agreement between replicas: the only module that names openraft.
//!
//! What is agreed on are proposals, texts that a [`Machine`] applies in the same order on every replica. Log,
//! vote and snapshots are stored in an encoding of our own (`codec`), so that a change of the library does
//! not change what is on the disk.

mod codec;
#[cfg(test)]
mod conformance;
mod counts;
mod group;
mod log_store;
mod machine_store;
mod network;
#[cfg(test)]
mod simulated;

use std::fmt;
use std::sync::Arc;

use hiveops_proto::control::Revision;
use openraft::{BasicNode, StorageIOError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::storage;
pub(crate) use counts::Counts;
pub(crate) use group::{Group, OpenError, Standing, Undecided};

openraft::declare_raft_types!(
    /// What the library is told about our types.
    pub(crate) Types:
        D = Proposal,
        R = Answer,
        NodeId = u64,
        Node = BasicNode,
        SnapshotData = Vec<u8>,
        AsyncRuntime = Runtime,
);

/// What the library runs its tasks on.
#[cfg(not(test))]
type Runtime = openraft::TokioRuntime;
#[cfg(test)]
type Runtime = simulated::Runtime;

type LogId = openraft::LogId<u64>;
type Vote = openraft::Vote<u64>;
type Entry = openraft::Entry<Types>;
type Membership = openraft::Membership<u64, BasicNode>;
type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
type StorageError = openraft::StorageError<u64>;

/// What is proposed: a command as JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) String);

/// A command may carry a private key or a password's hash, and the library writes what it handles into its log.
impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

/// What became of an entry: the outcome of a proposal as JSON, nothing for entries of the library's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Option<String>);

/// What proposals are applied to. The same calls must make the same machine on every replica.
pub(crate) trait Machine: Send + Sync + 'static {
    /// Applies the proposal that stands at `at` and returns its outcome as JSON.
    fn apply(&mut self, at: Revision, proposal: &str) -> Result<String, Unusable>;
    /// Everything, as bytes.
    fn snapshot(&self) -> Vec<u8>;
    /// Becomes what a snapshot shows.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Unusable>;
}

/// What was agreed on cannot be understood: most likely a newer version wrote it. A replica that went on
/// would no longer be what the others are.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}; is this binary older than the other replicas'?")]
pub(crate) struct Unusable(pub(crate) String);

/// The first thing that went wrong for good; cheap to clone. The stores tell it, and who runs the replica
/// reads it, because the library's own error does not say it as clearly.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    fn tell(&self, error: &dyn fmt::Display) {
        let mut first = self.0.lock();
        if first.is_none() {
            tracing::error!(error = %error, "storage failed, the replica stops");
            *first = Some(error.to_string());
        }
    }

    /// What was told first.
    pub(crate) fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// The chain of an error on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Tells a fault, and what of it the library wants to know.
fn fatal<E: std::error::Error + 'static>(
    fault: &Fault,
    subject: fn(&AnyError) -> StorageIOError<u64>,
) -> impl FnOnce(E) -> StorageError {
    let fault = fault.clone();
    move |error| {
        let text = chain(&error);
        fault.tell(&text);
        StorageError::from(subject(&AnyError(text)))
    }
}

/// Does something on a thread that may block; what goes wrong there ends the replica.
async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    fault: &Fault,
    subject: fn(&AnyError) -> StorageIOError<u64>,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, StorageError> {
    match storage::blocking(work).await {
        Ok(done) => done.map_err(fatal(fault, subject)),
        Err(error) => Err(fatal(fault, subject)(error)),
    }
}

/// An error that has become a text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct AnyError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposal_does_not_show_what_it_carries() {
        assert_eq!(format!("{:?}", Proposal("S3CRET".to_owned())), "Proposal(6 bytes)");
    }
}
