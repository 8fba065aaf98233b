//! `POST /api/dashboard/websocket/disconnect/{connection_id}`: an administrator ends a session.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::{ConnectionId, DisconnectReason};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::body::{Json, Path, Query};
use crate::http::correlation::Correlation;
use crate::http::problem::ApiError;
use crate::session::Ending;

/// Characters of the administrator's words that reach the client.
const WORDS_MAX: usize = 200;

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
    if words.as_ref().is_some_and(|words| words.chars().count() > WORDS_MAX) {
        let detail = format!("reason may have {WORDS_MAX} characters");
        return Err(ApiError::new(ProblemKind::BadRequest, detail));
    }
    let ending = Ending {
        detail: words.clone(),
        correlation_id: Some(correlation_id.clone()),
        ..Ending::new(DisconnectReason::Admin)
    };
    let found = app.hub.disconnect(&id, ending).await;
    match found.map_err(|error| ApiError::internal(&error))? {
        true => {
            tracing::info!(correlation_id = %correlation_id, connection_id = %id, "session ended by an administrator");
            Ok(Json(json!({
                "success": true,
                "connection_id": id,
                "reason": words,
                "correlation_id": correlation_id,
                "timestamp": app.clock.timestamp(),
            })))
        }
        false => Err(ApiError::new(ProblemKind::NotFound, format!("there is no session `{id}`"))),
    }
}
