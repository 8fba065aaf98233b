//! `POST /api/dashboard/websocket/broadcast`: an administrator publishes. Answers once the bus has stored it.

use std::sync::Arc;

use axum::extract::State;
use hiveops_proto::http::{BroadcastReply, ProblemKind};
use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::path::IDEMPOTENCY_HEADER;
use http::HeaderMap;
use serde::Deserialize;

use crate::app::App;
use crate::bus::Repeat;
use crate::http::body::{Json, Query, RawObject};
use crate::http::correlation::Correlation;
use crate::http::problem::ApiError;
use crate::publisher::Request;

#[derive(Deserialize)]
pub(crate) struct Target {
    subscription: String,
    message_type: String,
}

pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Correlation(correlation_id): Correlation,
    Query(target): Query<Target>,
    headers: HeaderMap,
    RawObject(data): RawObject,
) -> Result<Json<BroadcastReply>, ApiError> {
    let idempotency_key = idempotency_key(&headers)?;
    let repeat = idempotency_key.clone().map_or(Repeat::Content, Repeat::Key);
    let request = Request {
        idempotency_key,
        repeat,
        ..Request::new(&target.subscription, &target.message_type, data, correlation_id.clone())
    };
    let published = app.publisher.publish(request).await;
    let catalog = app.publisher.catalog();
    let published = published.map_err(|refused| ApiError::refused(refused, &catalog))?;
    let sub = published.checked.sub;
    Ok(Json(BroadcastReply {
        success: true,
        subscription: catalog.name(sub).clone(),
        message_type: published.message_type,
        clients_reached: app.hub.joined(sub) as u64,
        scope: "node".to_owned(),
        correlation_id,
        epoch: published.ack.epoch,
        seq: published.ack.seq,
        duplicate: published.ack.duplicate,
        timestamp: app.clock.timestamp(),
    }))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| IdempotencyKey::new(text).ok());
    key.map(Some).ok_or_else(|| {
        let detail = format!("{IDEMPOTENCY_HEADER} must be {}", IdempotencyKey::RULE);
        ApiError::new(ProblemKind::BadRequest, detail)
    })
}
