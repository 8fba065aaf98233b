//! The health of the process, of what it needs, and of its sockets.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::body::Json;

/// `GET /api/dashboard/websocket/health`
pub(crate) async fn sockets(State(app): State<Arc<App>>) -> Json<Value> {
    let health = app.health();
    Json(json!({
        "websocket_manager": health.status(),
        "background_tasks": app.tasks.health(),
        "connection_stats": app.socket_figures(),
        "overall_health": { "score": health.score, "status": health.status() },
        "bus": app.bus_component(),
        "control": app.control_component(),
        "node_id": app.config.node_id,
        "timestamp": app.clock.timestamp(),
    }))
}

/// `GET /health`
pub(crate) async fn overall(State(app): State<Arc<App>>) -> Json<Value> {
    let health = app.health();
    Json(json!({
        "status": health.status(),
        "version": env!("CARGO_PKG_VERSION"),
        "contract_version": app.control.view().contract.current.version,
        "node_id": app.config.node_id,
        "components": {
            "websocket": { "status": health.status(), "connections": app.hub.sessions() },
            "bus": app.bus_component(),
            "control": app.control_component(),
        },
        "timestamp": app.clock.timestamp(),
    }))
}

/// `GET /livez`: the process answers. It asks nobody else, so that an outage of the bus restarts nothing.
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// `GET /readyz`: the node should get traffic.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let (draining, live) = (app.is_draining(), app.bus_live());
    let reason = match (draining, live) {
        (false, true) => return Json(json!({ "status": "ready" })).into_response(),
        (true, _) => "draining",
        (false, false) => "the bus is not proven live",
    };
    let body = Json(json!({ "status": "not_ready", "reason": reason }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}
