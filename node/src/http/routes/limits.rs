//! `GET /api/dashboard/websocket/limits`: every threshold in force, and who set it.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::Limits;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::http::body::Json;

pub(crate) async fn show(State(app): State<Arc<App>>) -> Json<Value> {
    let view = app.control.view();
    let limits = app.limits();
    let mut body = Map::new();
    for spec in Limits::TABLE {
        body.insert(spec.name.to_owned(), limits.get(spec.name).into());
    }
    let contract = &view.contract;
    let rest = json!({
        "ws_auth_required": app.config.auth.required,
        "ws_allowed_origins_configured": app.config.origins.configured(),
        "sources": view.sources,
        "contract_version": contract.current.version,
        "supported_versions": contract.supported_versions,
        // Limits and contract come from this node's own configuration.
        "control": app.control.mode(),
        "revision": view.revision,
        "age_seconds": app.control.age_seconds(),
        "stale": app.control.is_stale(),
        "timestamp": app.clock.timestamp(),
    });
    if let Value::Object(rest) = rest {
        body.extend(rest);
    }
    Json(Value::Object(body))
}
