//! `GET /api/dashboard/websocket/stats`: who is connected to this node, and what the cluster looks like.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::path::Endpoint;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::http::body::Json;

pub(crate) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let node = node(&app);
    let catalog = app.publisher.catalog();
    Json(json!({
        "websocket_stats": node,
        "endpoints": Endpoint::ALL.iter().map(|endpoint| endpoint.path()).collect::<Vec<_>>(),
        "subscription_types": catalog.names(),
        "node_id": app.config.node_id,
        // The embedded bus has one node, so this one knows all of the cluster.
        "cluster": { "status": "complete", "nodes": [{ "node_id": app.config.node_id, "stats": node }] },
        "last_updated": app.clock.timestamp(),
    }))
}

/// This node's figures.
pub(crate) fn node(app: &App) -> Value {
    let summary = app.registry().summary();
    let catalog = app.publisher.catalog();
    let counts: Map<String, Value> =
        catalog.ids().map(|sub| (catalog.name(sub).to_string(), app.hub.joined(sub).into())).collect();
    json!({
        "total_connections": app.metrics.connections.get(),
        "active_connections": summary.total,
        "subscription_counts": counts,
        "connections_by_type": summary.by_type,
        "oldest_connection": summary.oldest,
        "messages_sent": app.metrics.messages_sent.get(),
        "messages_received": app.metrics.messages_received.get(),
        "send_failures": app.metrics.send_failures.get(),
        "outbox_frames": app.hub.outbox_frames(),
        "last_fanout": app.metrics.last_fanout.get(),
    })
}
