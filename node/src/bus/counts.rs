//! What happened on the way between a node and its broker. Counted where it happens, exported by the app.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections to the broker that ended, or could not be made.
    pub(crate) reconnects: AtomicU64,
    /// Logs that were compared with the broker's and read on from there.
    pub(crate) resyncs: AtomicU64,
    /// Live messages that did not follow the one before: each led to a resync.
    pub(crate) gaps: AtomicU64,
    /// Times the broker or its library said that messages for this node were dropped.
    pub(crate) lagged: AtomicU64,
    /// Publications that were tried again because somebody else had changed their key meanwhile.
    pub(crate) retries: AtomicU64,
    /// Entries of a log that no node wrote or that cannot be read.
    pub(crate) bad_entries: AtomicU64,
    /// Publications of outside publishers that found no room to wait in.
    pub(crate) intake_dropped: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
