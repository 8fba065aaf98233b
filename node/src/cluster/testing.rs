//! Speakers and figures for the tests of the cluster.

use std::collections::BTreeMap;

use hiveops_proto::{NodeId, SubscriptionName};

use super::books::{NodeBooks, SubscriptionBooks};
use super::figures::{NodeFigures, SocketFigures};
use super::message::{Incarnation, Speaker};

pub(super) fn speaker(node_id: &str, number: u64) -> Speaker {
    Speaker { node_id: NodeId::new(node_id).unwrap(), incarnation: Incarnation::from_number(number) }
}

/// A node with so many connections.
pub(super) fn figures(connections: u64) -> NodeFigures {
    let tasks = SubscriptionName::new("tasks").unwrap();
    NodeFigures {
        stats: SocketFigures {
            total_connections: connections,
            active_connections: connections,
            subscription_counts: BTreeMap::from([(tasks, connections)]),
            connections_by_type: BTreeMap::from([("tasks".to_owned(), connections)]),
            oldest_connection: None,
            messages_sent: 0,
            messages_received: 0,
            send_failures: 0,
            outbox_frames: 0,
            last_fanout: 0,
        },
        status: "healthy".to_owned(),
        score: 100,
        draining: false,
        bus_live: true,
        version: "0.1.0".to_owned(),
        contract_version: "1.0.0".parse().unwrap(),
        uptime_seconds: 1,
    }
}

/// A node whose books of `tasks` are so much off.
pub(super) fn books(residual: i64) -> NodeBooks {
    let tasks = SubscriptionBooks {
        recipients: 10,
        caught_up: 1,
        delivered: 5,
        coalesced: 2,
        dropped: BTreeMap::from([("left".to_owned(), 1)]),
        pending: 2,
        residual,
    };
    let subscriptions = BTreeMap::from([(SubscriptionName::new("tasks").unwrap(), tasks)]);
    NodeBooks { complete: true, subscriptions }
}
