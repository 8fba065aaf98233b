//! `GET /metrics`: the Prometheus text format. Behind the secret like everything else.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hiveops_proto::http::ProblemKind;
use http::header::CONTENT_TYPE;

use super::App;
use super::problem::Problem;

pub(crate) async fn show(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.service.metrics.render(&app.service);
    let text = text.map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
