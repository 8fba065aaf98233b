//! What went wrong between a node and its bus, as plain counters; the metrics read them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted by the links to a bus that lives elsewhere, since the start of the node.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Connections made anew after one was lost or given up.
    pub(crate) reconnects: AtomicU64,
    /// Logs read again after a connection was made anew.
    pub(crate) resyncs: AtomicU64,
    /// Publications that should have come and did not: a hole, or a head that the bus has and we have not.
    pub(crate) gaps: AtomicU64,
    /// Connections given up because we did not take what came in time.
    pub(crate) lagged: AtomicU64,
    /// Publications sent again because the first connection could not say what became of them.
    pub(crate) retries: AtomicU64,
    /// Messages of publishers that do not ask a node, dropped because too many waited.
    pub(crate) intake_dropped: AtomicU64,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
