//! `GET /api/dashboard/trace/{correlation_id}`: where an update went, as all nodes of the cluster know it.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::CorrelationId;

use crate::app::App;
use crate::http::body::{Json, Path};
use crate::trace::Report;

pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<CorrelationId>) -> Json<Report> {
    let own = app.traces.find(&id);
    Json(app.cluster.trace(own, &id, app.clock.timestamp()).await)
}
