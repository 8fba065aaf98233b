//! What became of publications on one node, as it tells the others, and on all of them together. Pure.

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::{NodeId, SubscriptionName};
use serde::{Deserialize, Serialize};

use super::figures::{Completeness, NAMES_MAX, TEXT_BYTES_MAX};
use super::members::Sight;
use super::message::{Incarnation, Speaker};

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeBooks {
    /// Whether all of its shards closed their books for this answer.
    pub(crate) complete: bool,
    pub(crate) subscriptions: BTreeMap<SubscriptionName, SubscriptionBooks>,
}

/// One subscription: `recipients` = `delivered` + `coalesced` + all of `dropped` + `pending` + `residual`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubscriptionBooks {
    pub(crate) recipients: u64,
    /// Those of the recipients that the log fed in.
    pub(crate) caught_up: u64,
    pub(crate) delivered: u64,
    pub(crate) coalesced: u64,
    /// By reason.
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) pending: u64,
    pub(crate) residual: i64,
}

/// The cluster as one node sees it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ClusterBooks {
    status: Completeness,
    /// The sum over the nodes that are shown.
    residual: u64,
    nodes: Vec<Node>,
    missing: BTreeSet<NodeId>,
}

/// One node as an audit shows it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Node {
    node_id: NodeId,
    incarnation: Incarnation,
    complete: bool,
    /// What is missing and what is too much, added up without regard to which: it is 0 only when every
    /// subscription's is.
    residual: u64,
    subscriptions: BTreeMap<SubscriptionName, SubscriptionBooks>,
}

impl NodeBooks {
    /// Whether they have the size of what a node says of itself.
    pub(super) fn is_bounded(&self) -> bool {
        self.subscriptions.len() <= NAMES_MAX
            && self.subscriptions.values().all(|books| {
                books.dropped.len() <= NAMES_MAX
                    && books.dropped.keys().all(|reason| reason.len() <= TEXT_BYTES_MAX)
            })
    }

    fn residual(&self) -> u64 {
        let residuals = self.subscriptions.values().map(|books| books.residual.unsigned_abs());
        residuals.fold(0, u64::saturating_add)
    }
}

impl ClusterBooks {
    /// From what the nodes say of themselves.
    pub(super) fn new(
        answers: impl IntoIterator<Item = (Speaker, NodeBooks)>,
        missing: BTreeSet<NodeId>,
        sight: Sight,
    ) -> Self {
        let mut nodes: Vec<Node> = answers
            .into_iter()
            .map(|(speaker, books)| {
                let (Speaker { node_id, incarnation }, residual) = (speaker, books.residual());
                let NodeBooks { complete, subscriptions } = books;
                Node { node_id, incarnation, complete, residual, subscriptions }
            })
            .collect();
        nodes.sort_by(|a, b| (&a.node_id, a.incarnation).cmp(&(&b.node_id, b.incarnation)));
        let status = match Completeness::of(sight, &missing) {
            Completeness::Complete if nodes.iter().all(|node| node.complete) => Completeness::Complete,
            Completeness::Complete | Completeness::Partial => Completeness::Partial,
        };
        let residual = nodes.iter().fold(0_u64, |sum, node| sum.saturating_add(node.residual));
        Self { status, residual, nodes, missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{books, speaker};

    fn cluster(nodes: Vec<(Speaker, NodeBooks)>, missing: &[&str]) -> ClusterBooks {
        let missing = missing.iter().map(|id| NodeId::new(id).unwrap()).collect();
        ClusterBooks::new(nodes, missing, Sight::Whole)
    }

    #[test]
    fn what_one_node_lacks_and_another_has_too_much_do_not_cancel_out() {
        let nodes = vec![(speaker("n2", 2), books(-1)), (speaker("n1", 1), books(3))];
        let made = cluster(nodes, &[]);
        assert_eq!((made.status, made.residual), (Completeness::Complete, 4));
        let shown: Vec<_> = made.nodes.iter().map(|node| (node.node_id.as_str(), node.residual)).collect();
        assert_eq!(shown, [("n1", 3), ("n2", 1)]);
        assert_eq!(cluster(vec![(speaker("n1", 1), books(i64::MIN))], &[]).residual, 1 << 63);
    }

    #[test]
    fn they_are_partial_when_a_node_or_a_shard_did_not_answer() {
        let open = NodeBooks { complete: false, ..books(0) };
        assert_eq!(cluster(vec![(speaker("n1", 1), open)], &[]).status, Completeness::Partial);
        assert_eq!(cluster(vec![(speaker("n1", 1), books(0))], &["n2"]).status, Completeness::Partial);
    }

    #[test]
    fn books_have_bounds() {
        let mut node = books(0);
        assert!(node.is_bounded());
        let of_tasks = node.subscriptions.values_mut().next().unwrap();
        of_tasks.dropped.insert("x".repeat(TEXT_BYTES_MAX + 1), 1);
        assert!(!node.is_bounded());
    }
}
