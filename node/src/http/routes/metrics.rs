//! `GET /metrics` and its older path: the Prometheus text format.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderValue};

use crate::app::App;
use crate::http::problem::ApiError;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) async fn show(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.refresh_gauges();
    let text = app.metrics.render().map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}
