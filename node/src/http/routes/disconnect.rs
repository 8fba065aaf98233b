//! `POST /api/dashboard/websocket/disconnect/{connection_id}`: an administrator ends a session, on whichever node it is.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::{ConnectionId, NodeId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::cluster::{Disconnect, Disconnected, REASON_CHARS_MAX};
use crate::http::body::{Json, Path, Query};
use crate::http::correlation::Correlation;
use crate::http::problem::ApiError;

/// When it is worth asking again, in seconds: about the time between two announcements of a node.
const RETRY_SECONDS: u32 = 1;

#[derive(Deserialize)]
pub(crate) struct Why {
    reason: Option<String>,
}

pub(crate) async fn end(
    State(app): State<Arc<App>>,
    Correlation(correlation_id): Correlation,
    Path(id): Path<ConnectionId>,
    Query(why): Query<Why>,
) -> Result<Json<Value>, ApiError> {
    let words = why.reason.filter(|words| !words.is_empty());
    if words.as_ref().is_some_and(|words| words.chars().count() > REASON_CHARS_MAX) {
        let detail = format!("reason may have {REASON_CHARS_MAX} characters");
        return Err(ApiError::new(ProblemKind::BadRequest, detail));
    }
    let wish = Disconnect { connection_id: id.clone(), reason: words.clone(), correlation_id };
    let here = app.end_session(&wish).await.map_err(|error| ApiError::internal(&error))?;
    let node_id = if here { app.config.node_id.clone() } else { elsewhere(&app, &wish).await? };
    Ok(Json(json!({
        "success": true,
        "connection_id": id,
        "reason": words,
        "node_id": node_id,
        "correlation_id": wish.correlation_id,
        "timestamp": app.clock.timestamp(),
    })))
}

/// Asks the other nodes; returns the one that had the session.
async fn elsewhere(app: &App, wish: &Disconnect) -> Result<NodeId, ApiError> {
    let id = &wish.connection_id;
    let silent = match app.cluster.disconnect(wish.clone()).await {
        Disconnected::By(node_id) => {
            tracing::info!(
                correlation_id = %wish.correlation_id,
                connection_id = %id,
                node_id = %app.config.node_id,
                other = %node_id,
                "session ended on another node by an administrator"
            );
            return Ok(node_id);
        }
        Disconnected::Nowhere => {
            return Err(ApiError::new(ProblemKind::NotFound, format!("there is no session `{id}`")));
        }
        Disconnected::Unsure(silent) => silent,
    };
    let silent: Vec<&str> = silent.iter().map(NodeId::as_str).collect();
    let detail = if silent.is_empty() {
        format!("no node that is known has a session `{id}`, and others may be there: try again")
    } else {
        format!(
            "no node that answered has a session `{id}`, and none came from {}: try again",
            silent.join(", ")
        )
    };
    Err(ApiError::new(ProblemKind::ClusterPartial, detail).retry_after_seconds(RETRY_SECONDS))
}
