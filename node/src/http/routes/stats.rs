//! `GET /api/dashboard/websocket/stats`: who is connected to this node, and what the cluster looks like.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::path::Endpoint;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::body::Json;

pub(crate) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let node = app.node_figures();
    let own = node.stats.clone();
    let cluster = app.cluster.figures(node).await;
    Json(json!({
        "websocket_stats": own,
        "endpoints": Endpoint::ALL.iter().map(|endpoint| endpoint.path()).collect::<Vec<_>>(),
        "subscription_types": app.publisher.catalog().names(),
        "node_id": app.config.node_id,
        "cluster": cluster,
        "last_updated": app.clock.timestamp(),
    }))
}
