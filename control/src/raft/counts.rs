//! What happened beneath the agreement. Counted where it happens, exported by `metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the replica started; shared by the network and the stores.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Times that this replica asked for votes.
    pub(crate) elections: AtomicU64,
    /// Snapshots that this replica made.
    pub(crate) snapshots_built: AtomicU64,
    /// Snapshots that a leader sent.
    pub(crate) snapshots_installed: AtomicU64,
    /// The size of the last one of either.
    pub(crate) snapshot_bytes: AtomicU64,
    /// Messages with entries that got no answer.
    pub(crate) append_failures: AtomicU64,
    /// Questions for a vote that got no answer.
    pub(crate) vote_failures: AtomicU64,
    /// Snapshots that got no answer.
    pub(crate) snapshot_failures: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
