//! `GET /metrics` and its older path: the Prometheus text format, or OpenMetrics for those who ask for it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{self, HeaderValue};

use crate::app::App;
use crate::http::problem::ApiError;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::openmetrics;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPENMETRICS: HeaderValue = HeaderValue::from_static(openmetrics::CONTENT_TYPE);
const BY_ACCEPT: HeaderValue = HeaderValue::from_static("accept");

pub(crate) async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (content_type, text) = if accepted.any(openmetrics::is_wanted) {
        (OPENMETRICS, app.scrape(Metrics::render_openmetrics).await)
    } else {
        (TEXT, app.scrape(Metrics::render).await.map_err(|error| ApiError::internal(&error))?)
    };
    Ok(([(header::CONTENT_TYPE, content_type), (header::VARY, BY_ACCEPT)], text).into_response())
}
