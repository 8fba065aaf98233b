//! What this node says of itself, to the other nodes of the cluster and to its own routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use hiveops_proto::{ConnectionId, CorrelationId, DisconnectReason};

use super::App;
use crate::bus::{Bus, Call};
use crate::cluster::{
    Answering, Cluster, Disconnect, Local, NodeBooks, NodeFigures, Reach, SocketFigures, Speaker,
};
use crate::config::{BusUrl, Config};
use crate::hub::Ended;
use crate::session::Ending;
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;
use crate::trace::NodeTrace;

/// This node's place in the cluster of its bus.
pub(super) fn cluster(
    config: &Config,
    bus: &Arc<dyn Bus>,
    clock: Clock,
    metrics: &Arc<Metrics>,
) -> (Cluster, Answering) {
    let reach = match config.bus {
        BusUrl::Embedded => Reach::Alone,
        BusUrl::Nats(_) | BusUrl::Redis(..) => Reach::Shared,
    };
    Cluster::new(config.node_id.clone(), reach, Box::new(Arc::clone(bus)), clock, Arc::clone(metrics))
}

impl App {
    /// This node.
    pub(crate) fn node_figures(&self) -> NodeFigures {
        let health = self.health();
        NodeFigures {
            stats: self.socket_figures(),
            status: health.status().to_owned(),
            score: health.score,
            draining: self.is_draining(),
            bus_live: self.bus_live(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            contract_version: self.control.view().contract.current.version,
            uptime_seconds: self.uptime_seconds(),
        }
    }

    /// This node's connections.
    pub(crate) fn socket_figures(&self) -> SocketFigures {
        let summary = self.registry().summary();
        let catalog = self.publisher.catalog();
        let joined = |sub| (catalog.name(sub).clone(), self.hub.joined(sub) as u64);
        let by_type = summary.by_type.into_iter().map(|(name, count)| (name.to_owned(), count));
        SocketFigures {
            total_connections: self.metrics.connections.get(),
            active_connections: summary.total,
            subscription_counts: catalog.ids().map(joined).collect(),
            connections_by_type: by_type.collect::<BTreeMap<_, _>>(),
            oldest_connection: summary.oldest,
            messages_sent: self.metrics.messages_sent.get(),
            messages_received: self.metrics.messages_received.get(),
            send_failures: self.metrics.send_failures.get(),
            outbox_frames: self.hub.outbox_frames() as u64,
            last_fanout: self.metrics.last_fanout.get().unsigned_abs(),
        }
    }

    /// Ends a session of this node as an administrator wishes; false when it is not here.
    pub(crate) async fn end_session(&self, wish: &Disconnect) -> Result<bool, Ended> {
        let ending = Ending {
            detail: wish.reason.clone(),
            correlation_id: Some(wish.correlation_id.clone()),
            ..Ending::new(DisconnectReason::Admin)
        };
        let found = self.hub.disconnect(&wish.connection_id, ending).await?;
        if found {
            tracing::info!(
                correlation_id = %wish.correlation_id,
                connection_id = %wish.connection_id,
                node_id = %self.config.node_id,
                "session ended by an administrator"
            );
        }
        Ok(found)
    }
}

/// Answers the other nodes.
pub(super) struct AppLocal {
    app: Arc<App>,
}

impl AppLocal {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

impl Local for AppLocal {
    fn figures(&self) -> NodeFigures {
        self.app.node_figures()
    }

    fn trace(&self, id: &CorrelationId) -> NodeTrace {
        self.app.traces.find(id)
    }

    fn books(&self) -> Call<'_, NodeBooks> {
        Box::pin(self.app.books())
    }

    fn is_draining(&self) -> bool {
        self.app.is_draining()
    }

    fn holds(&self, id: &ConnectionId) -> bool {
        self.app.registry().shard_of(id).is_some()
    }

    fn disconnect<'a>(&'a self, wish: Disconnect, asker: &'a Speaker) -> Call<'a, Option<bool>> {
        Box::pin(async move {
            let found = self.app.end_session(&wish).await;
            if found == Ok(true) {
                tracing::info!(
                    correlation_id = %wish.correlation_id,
                    node_id = %self.app.config.node_id,
                    asked_by = %asker.node_id,
                    "another node asked for the end of a session"
                );
            }
            // A shard that has ended has no sessions, and the node goes away with it.
            found.ok()
        })
    }
}
