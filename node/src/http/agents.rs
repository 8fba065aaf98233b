//! The agents: they register, report in and say goodbye here, and people look.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hiveops_proto::Key;
use hiveops_proto::board::{Agent, AgentHeartbeat, AgentPatch, AgentRegistration, AgentStatus};
use hiveops_proto::path;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::{Json, OptionalJson, Path, Query};
use super::conditional::{fresh, if_match, tagged};
use super::correlation::Correlation;
use super::page::{self, Removed};
use super::problem::ApiError;
use crate::board::BoardService;
use crate::board::service::Registered;

type Service = State<Arc<BoardService>>;

pub(crate) fn router() -> Router<Arc<BoardService>> {
    Router::new()
        .route(path::AGENTS, get(list).post(register))
        .route(path::AGENT, get(show).patch(change).delete(deregister))
        .route(path::AGENT_HEARTBEAT, post(beat))
}

#[derive(Deserialize)]
struct ListQuery {
    status: Option<AgentStatus>,
    limit: Option<usize>,
    after: Option<Key>,
}

#[derive(Serialize)]
struct List {
    agents: Vec<Agent>,
    next: Option<Key>,
}

async fn list(State(service): Service, Query(query): Query<ListQuery>) -> Result<Json<List>, ApiError> {
    let limit = page::limit(query.limit)?;
    let page = service.agents(query.status, query.after.as_ref(), limit)?;
    Ok(Json(List { agents: page.items, next: page.next }))
}

async fn register(
    State(service): Service,
    Correlation(by): Correlation,
    Json(wanted): Json<AgentRegistration>,
) -> Result<Response, ApiError> {
    Ok(match service.register_agent(wanted, &by).await? {
        Registered::New(agent) => {
            let location = page::location(path::AGENTS, &agent.id);
            (location, tagged(StatusCode::CREATED, agent.version, agent)).into_response()
        }
        Registered::Again(agent) => tagged(StatusCode::OK, agent.version, agent),
    })
}

async fn show(
    State(service): Service,
    Path(id): Path<Key>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let agent = service.agent(&id)?;
    Ok(fresh(&headers, agent.version, agent))
}

async fn beat(
    State(service): Service,
    Correlation(by): Correlation,
    Path(id): Path<Key>,
    OptionalJson(said): OptionalJson<AgentHeartbeat>,
) -> Result<Response, ApiError> {
    let agent = service.beat(&id, &said, &by).await?;
    Ok(tagged(StatusCode::OK, agent.version, agent))
}

async fn change(
    State(service): Service,
    Correlation(by): Correlation,
    Path(id): Path<Key>,
    headers: HeaderMap,
    Json(patch): Json<AgentPatch>,
) -> Result<Response, ApiError> {
    let agent = service.patch_agent(&id, &patch, if_match(&headers)?, &by).await?;
    Ok(tagged(StatusCode::OK, agent.version, agent))
}

async fn deregister(
    State(service): Service,
    Correlation(by): Correlation,
    Path(id): Path<Key>,
    headers: HeaderMap,
) -> Result<Json<Removed>, ApiError> {
    service.deregister_agent(&id, if_match(&headers)?, &by).await?;
    Ok(Json(Removed::new(id)))
}

#[cfg(test)]
mod tests;
