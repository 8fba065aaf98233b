//! The tasks: people and agents make and change them here, one at a time or, after being offline, in a batch.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hiveops_proto::Key;
use hiveops_proto::board::{SyncResult, Task, TaskBatch, TaskCreation, TaskPatch, TaskStatus};
use hiveops_proto::path;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::body::{Json, Path, Query};
use super::conditional::{fresh, if_match, tagged};
use super::correlation::Correlation;
use super::page::{self, Removed};
use super::problem::ApiError;
use crate::board::BoardService;
use crate::board::service::{Condition, Identity, Outcome, TaskFilter};

type Service = State<Arc<BoardService>>;

pub(crate) fn router() -> Router<Arc<BoardService>> {
    Router::new()
        .route(path::TASKS, get(list).post(create))
        .route(path::TASK, get(show).patch(change).delete(remove))
        .route(path::TASKS_SYNC, post(sync))
}

#[derive(Deserialize)]
struct ListQuery {
    status: Option<TaskStatus>,
    assigned_agent: Option<Key>,
    limit: Option<usize>,
    after: Option<Key>,
}

#[derive(Serialize)]
struct List {
    tasks: Vec<Task>,
    next: Option<Key>,
}

#[derive(Serialize)]
struct Synced {
    results: Vec<SyncResult>,
}

async fn list(State(service): Service, Query(query): Query<ListQuery>) -> Result<Json<List>, ApiError> {
    let limit = page::limit(query.limit)?;
    let filter = TaskFilter { status: query.status, assigned_agent: query.assigned_agent };
    let page = service.tasks(&filter, query.after.as_ref(), limit)?;
    Ok(Json(List { tasks: page.items, next: page.next }))
}

async fn create(
    State(service): Service,
    Correlation(by): Correlation,
    Json(wanted): Json<TaskCreation>,
) -> Result<Response, ApiError> {
    Ok(match service.create_task(&wanted, &by).await? {
        Outcome::Applied(task) => {
            let location = page::location(path::TASKS, &task.id);
            (location, tagged(StatusCode::CREATED, task.version, task)).into_response()
        }
        Outcome::Duplicate(task) => tagged(StatusCode::OK, task.version, task),
    })
}

async fn show(
    State(service): Service,
    Path(id): Path<Key>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let task = service.task(&id)?;
    Ok(fresh(&headers, task.version, task))
}

async fn change(
    State(service): Service,
    Correlation(by): Correlation,
    Path(id): Path<Key>,
    headers: HeaderMap,
    Json(patch): Json<TaskPatch>,
) -> Result<Response, ApiError> {
    let outcome = service.patch_task(&id, &patch, if_match(&headers)?, &by, Identity::Shared).await?;
    let (Outcome::Applied(task) | Outcome::Duplicate(task)) = outcome;
    Ok(tagged(StatusCode::OK, task.version, task))
}

async fn remove(
    State(service): Service,
    Correlation(by): Correlation,
    Path(id): Path<Key>,
    headers: HeaderMap,
) -> Result<Json<Removed>, ApiError> {
    let condition = Condition { expected_version: None, if_match: if_match(&headers)? };
    service.delete_task(&id, condition, &by).await?;
    Ok(Json(Removed::new(id)))
}

async fn sync(State(service): Service, Json(batch): Json<TaskBatch>) -> Result<Json<Synced>, ApiError> {
    Ok(Json(Synced { results: service.sync_tasks(batch).await? }))
}

#[cfg(test)]
mod tests;
