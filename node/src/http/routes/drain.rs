//! `POST /api/dashboard/websocket/drain`: an administrator lets the node go away, as SIGTERM does.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hiveops_proto::http::ProblemKind;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::config::DrainWindow;
use crate::http::body::{Json, Query};
use crate::http::correlation::Correlation;
use crate::http::problem::ApiError;

/// A misspelt name would end the node over another time than was asked for, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pace {
    seconds: Option<String>,
}

/// Answers at once; the connection is then closed with the others when the last session has gone.
pub(crate) async fn begin(
    State(app): State<Arc<App>>,
    Correlation(correlation_id): Correlation,
    Query(pace): Query<Pace>,
) -> Result<Response, ApiError> {
    let window = pace.seconds.map(|text| text.parse::<DrainWindow>()).transpose();
    let window = window.map_err(|rule| ApiError::new(ProblemKind::BadRequest, format!("seconds {rule}")))?;
    let sessions = app.registry().summary().total;
    let in_force = app.drain.begin(window);
    tracing::info!(
        correlation_id = %correlation_id,
        node_id = %app.config.node_id,
        "drain asked for by an administrator"
    );
    let body = Json(json!({
        "success": true,
        "draining": true,
        "node_id": app.config.node_id,
        "sessions": sessions,
        "drain_seconds": in_force.duration().as_secs(),
        "correlation_id": correlation_id,
        "timestamp": app.clock.timestamp(),
    }));
    Ok((StatusCode::ACCEPTED, body).into_response())
}
