//! `GET /api/dashboard/websocket/contract`: the contract version in force.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::path;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::body::Json;

pub(crate) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let view = app.control.view();
    let contract = &view.contract;
    Json(json!({
        "current_version": contract.current.version,
        "supported_versions": contract.supported_versions,
        "deprecation_policy": contract.deprecation_policy,
        "contract_digest": contract.contract_digest,
        "schema_digest": contract.schema_digest,
        "schema_url": path::WS_SCHEMA,
        "subscriptions": contract.current.subscriptions,
        "revision": view.revision,
        "age_seconds": app.control.age_seconds(),
        "stale": app.control.is_stale(),
        "timestamp": app.clock.timestamp(),
    }))
}
