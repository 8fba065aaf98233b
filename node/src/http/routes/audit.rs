//! `GET /api/dashboard/audit`: what became of every live publication on every node, and whether it adds up.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::body::Json;

pub(crate) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let own = app.books().await;
    Json(json!({
        "node_id": app.config.node_id,
        "cluster": app.cluster.audit(own).await,
        "timestamp": app.clock.timestamp(),
    }))
}
