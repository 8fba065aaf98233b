//! One node in figures, as it tells the others and `stats` shows it, and all of them together. Pure.

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::{ContractVersion, NodeId, SubscriptionName, Timestamp};
use serde::{Deserialize, Serialize};

use super::members::Sight;
use super::message::{Incarnation, Speaker};

/// Entries of a map of figures at most: as many as a contract may have subscriptions.
pub(super) const NAMES_MAX: usize = 64;

/// Bytes of a short text at most.
pub(super) const TEXT_BYTES_MAX: usize = 64;

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeFigures {
    /// Its connections.
    pub(crate) stats: SocketFigures,
    /// `healthy`, `degraded` or `unhealthy`.
    pub(crate) status: String,
    /// From 0 to 100.
    pub(crate) score: u64,
    pub(crate) draining: bool,
    pub(crate) bus_live: bool,
    pub(crate) version: String,
    pub(crate) contract_version: ContractVersion,
    pub(crate) uptime_seconds: u64,
}

/// The connections of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketFigures {
    pub(crate) total_connections: u64,
    pub(crate) active_connections: u64,
    pub(crate) subscription_counts: BTreeMap<SubscriptionName, u64>,
    pub(crate) connections_by_type: BTreeMap<String, u64>,
    pub(crate) oldest_connection: Option<Timestamp>,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) send_failures: u64,
    pub(crate) outbox_frames: u64,
    pub(crate) last_fanout: u64,
}

/// The cluster as one node sees it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct ClusterFigures {
    status: Completeness,
    nodes: Vec<Node>,
    missing: BTreeSet<NodeId>,
    totals: Totals,
}

/// Whether every node is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Completeness {
    Complete,
    Partial,
}

/// One node as `stats` shows it.
#[derive(Debug, PartialEq, Serialize)]
struct Node {
    node_id: NodeId,
    incarnation: Incarnation,
    /// Another live process has the same node id.
    duplicate_node_id: bool,
    stats: SocketFigures,
    status: String,
    score: u64,
    draining: bool,
    bus_live: bool,
    version: String,
    contract_version: ContractVersion,
    uptime_seconds: u64,
}

/// The sums over the nodes that are shown.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Totals {
    nodes: u64,
    total_connections: u64,
    active_connections: u64,
    subscription_counts: BTreeMap<SubscriptionName, u64>,
}

impl NodeFigures {
    /// Whether it has the size of what a node says of itself.
    pub(super) fn is_bounded(&self) -> bool {
        let SocketFigures { subscription_counts, connections_by_type, .. } = &self.stats;
        subscription_counts.len() <= NAMES_MAX
            && connections_by_type.len() <= NAMES_MAX
            && connections_by_type.keys().all(|name| name.len() <= TEXT_BYTES_MAX)
            && self.status.len() <= TEXT_BYTES_MAX
            && self.version.len() <= TEXT_BYTES_MAX
    }
}

impl Completeness {
    /// Of a view in which these nodes did not answer.
    pub(super) fn of(sight: Sight, missing: &BTreeSet<NodeId>) -> Self {
        match sight {
            Sight::Whole if missing.is_empty() => Self::Complete,
            Sight::Whole | Sight::Settling | Sight::Blind => Self::Partial,
        }
    }
}

impl ClusterFigures {
    /// From what the nodes say of themselves.
    pub(super) fn new(
        answers: impl IntoIterator<Item = (Speaker, NodeFigures)>,
        missing: BTreeSet<NodeId>,
        sight: Sight,
        doubled: &BTreeSet<Incarnation>,
    ) -> Self {
        let status = Completeness::of(sight, &missing);
        let mut totals = Totals::default();
        let mut nodes: Vec<Node> = answers
            .into_iter()
            .map(|(speaker, figures)| {
                totals.add(&figures.stats);
                Node::new(speaker, figures, doubled)
            })
            .collect();
        nodes.sort_by(|a, b| (&a.node_id, a.incarnation).cmp(&(&b.node_id, b.incarnation)));
        Self { status, nodes, missing, totals }
    }
}

impl Node {
    fn new(speaker: Speaker, figures: NodeFigures, doubled: &BTreeSet<Incarnation>) -> Self {
        let Speaker { node_id, incarnation } = speaker;
        let NodeFigures {
            stats,
            status,
            score,
            draining,
            bus_live,
            version,
            contract_version,
            uptime_seconds,
        } = figures;
        Self {
            node_id,
            incarnation,
            duplicate_node_id: doubled.contains(&incarnation),
            stats,
            status,
            score,
            draining,
            bus_live,
            version,
            contract_version,
            uptime_seconds,
        }
    }
}

impl Totals {
    /// What others say of themselves may be anything, so sums end where numbers do.
    fn add(&mut self, stats: &SocketFigures) {
        self.nodes += 1;
        self.total_connections = self.total_connections.saturating_add(stats.total_connections);
        self.active_connections = self.active_connections.saturating_add(stats.active_connections);
        for (name, count) in &stats.subscription_counts {
            let sum = self.subscription_counts.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{figures, speaker};

    #[test]
    fn the_cluster_is_the_sum_of_the_nodes_that_answered() {
        let answers = [(speaker("n2", 2), figures(3)), (speaker("n1", 9), figures(u64::MAX))];
        let made = ClusterFigures::new(
            answers,
            BTreeSet::new(),
            Sight::Whole,
            &[Incarnation::from_number(9)].into(),
        );
        assert_eq!(made.status, Completeness::Complete);
        let shown: Vec<_> =
            made.nodes.iter().map(|node| (node.node_id.as_str(), node.duplicate_node_id)).collect();
        assert_eq!(shown, [("n1", true), ("n2", false)]);
        assert_eq!((made.totals.nodes, made.totals.active_connections), (2, u64::MAX));
    }

    #[test]
    fn it_is_partial_when_a_node_is_missing_or_may_be() {
        let missing = BTreeSet::from([NodeId::new("n2").unwrap()]);
        assert_eq!(
            ClusterFigures::new([], missing, Sight::Whole, &BTreeSet::new()).status,
            Completeness::Partial
        );
        assert_eq!(
            ClusterFigures::new([], BTreeSet::new(), Sight::Settling, &BTreeSet::new()).status,
            Completeness::Partial
        );
    }

    #[test]
    fn figures_have_bounds() {
        let mut node = figures(1);
        assert!(node.is_bounded());
        node.version = "x".repeat(TEXT_BYTES_MAX + 1);
        assert!(!node.is_bounded());
    }
}
