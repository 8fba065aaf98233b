//! What happened beneath the agreement. Counted where it happens, registered by `metrics`.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge, Opts};

/// Counts since the replica started; the clones share them, in the network and the stores.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    /// Times that this replica asked for votes.
    pub(crate) elections: IntCounter,
    /// Snapshots that this replica made.
    pub(crate) snapshots_built: IntCounter,
    /// Snapshots that a leader sent.
    pub(crate) snapshots_installed: IntCounter,
    /// The size of the last one of either.
    pub(crate) snapshot_bytes: IntGauge,
    /// Messages with entries that got no answer.
    pub(crate) append_failures: IntCounter,
    /// Questions for a vote that got no answer.
    pub(crate) vote_failures: IntCounter,
    /// Snapshots that got no answer.
    pub(crate) snapshot_failures: IntCounter,
}

impl Counts {
    pub(crate) fn new() -> Self {
        let made = "the names and labels here are well formed, which a test shows";
        let rpc = |kind| {
            let opts = Opts::new(
                "hiveops_control_rpc_failures_total",
                "Messages to other replicas that got no answer, by kind.",
            );
            IntCounter::with_opts(opts.const_label("kind", kind)).expect(made)
        };
        let snapshots = |source| {
            let opts = Opts::new(
                "hiveops_control_snapshots_total",
                "Snapshots of the state that were made here or came from a leader.",
            );
            IntCounter::with_opts(opts.const_label("source", source)).expect(made)
        };
        let elections =
            IntCounter::new("hiveops_control_elections_total", "Times that this replica asked for votes.");
        let bytes = IntGauge::new("hiveops_control_snapshot_bytes", "Size of the last snapshot.");
        Self {
            elections: elections.expect(made),
            snapshots_built: snapshots("built"),
            snapshots_installed: snapshots("installed"),
            snapshot_bytes: bytes.expect(made),
            append_failures: rpc("append"),
            vote_failures: rpc("vote"),
            snapshot_failures: rpc("snapshot"),
        }
    }

    /// All of them.
    pub(crate) fn collectors(&self) -> [Box<dyn Collector>; 7] {
        [
            Box::new(self.elections.clone()),
            Box::new(self.snapshots_built.clone()),
            Box::new(self.snapshots_installed.clone()),
            Box::new(self.snapshot_bytes.clone()),
            Box::new(self.append_failures.clone()),
            Box::new(self.vote_failures.clone()),
            Box::new(self.snapshot_failures.clone()),
        ]
    }
}
