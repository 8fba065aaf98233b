//! The values behind `coordination_update` and `system_update` as this build writes and reads them.
//!
//! The reporters make them, the board reads them back, health and `request_data` show them.

use std::collections::BTreeMap;

use hiveops_proto::board::{AgentStatus, TaskStatus};
use hiveops_proto::{Key, Timestamp};
use serde::{Deserialize, Serialize};

use super::figures::Trend;

/// The key of the one coordination value of a cluster.
pub(crate) const COORDINATION_ID: &str = "cluster";

/// How long a node counts as there after its last report: three of the longest intervals between two.
pub(crate) const NODE_LEASE_MS: u64 = 90_000;

/// How the work as a whole goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CoordinationReport {
    pub(crate) id: Key,
    /// Completed of those completed or failed in the window, from 0 to 1; none when there were none.
    pub(crate) success_rate: Option<f64>,
    pub(crate) trend: Trend,
    pub(crate) total_tasks: u64,
    pub(crate) by_status: BTreeMap<TaskStatus, u64>,
    pub(crate) queue_length: u64,
    pub(crate) in_progress: u64,
    pub(crate) agents: AgentSummary,
    pub(crate) window_seconds: u64,
    pub(crate) updated_at: Timestamp,
}

/// How many agents there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentSummary {
    pub(crate) total: u64,
    pub(crate) active: u64,
    pub(crate) by_status: BTreeMap<AgentStatus, u64>,
}

/// How one node is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    pub(crate) id: Key,
    pub(crate) status: String,
    pub(crate) score: u64,
    pub(crate) connections: u64,
    pub(crate) fanout_p99_ms: Option<f64>,
    pub(crate) bus: BusReport,
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_percent: Option<f64>,
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) uptime_seconds: u64,
    pub(crate) updated_at: Timestamp,
}

/// How a node sees its bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BusReport {
    pub(crate) kind: String,
    pub(crate) live: bool,
}

impl CoordinationReport {
    /// What must differ for the report to be news: figures as people read them, and no time.
    pub(crate) fn news(&self) -> impl PartialEq + use<> {
        let Self { success_rate, trend, total_tasks, by_status, agents, .. } = self.clone();
        (success_rate.map(|rate| whole(rate * 100.0)), trend, total_tasks, by_status, agents)
    }
}

impl NodeReport {
    /// What must differ for the report to be news. A processor's load is never the same twice, so it
    /// counts in steps that somebody would look up for.
    pub(crate) fn news(&self) -> impl PartialEq + use<> {
        const CPU_STEP_PERCENT: f64 = 5.0;
        const RSS_STEP_BYTES: u64 = 16 * 1_048_576;
        let Self { status, score, connections, bus, .. } = self.clone();
        (
            (status, score, connections, bus),
            self.fanout_p99_ms.map(|ms| whole(ms.max(1.0).log2())),
            self.cpu_percent.map(|percent| whole(percent / CPU_STEP_PERCENT)),
            self.memory_percent.map(whole),
            self.rss_bytes.map(|bytes| bytes / RSS_STEP_BYTES),
        )
    }

    /// Whether the node has not reported within its lease.
    pub(crate) fn is_gone(&self, now: Timestamp) -> bool {
        now.millis_since(self.updated_at) > NODE_LEASE_MS
    }
}

/// The nearest whole number; figures of a report are far below where a conversion saturates.
fn whole(figure: f64) -> i64 {
    figure.round() as i64
}
