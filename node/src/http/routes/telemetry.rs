//! `POST /api/dashboard/telemetry/version-mismatch`: counted, and nothing else.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use crate::app::App;

pub(crate) async fn version_mismatch(State(app): State<Arc<App>>) -> StatusCode {
    app.metrics.version_mismatches.inc();
    StatusCode::NO_CONTENT
}
