//! What other replicas say.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hiveops_proto::http::ProblemKind;

use super::problem::Problem;
use super::{App, MESSAGE_BYTES_MAX, bytes, json};
use crate::replica::ask::{Ask, Asked};
use crate::replica::service::Hello;
use crate::storage;

pub(crate) async fn hello(State(app): State<App>) -> Json<Hello> {
    Json(app.service.introduce())
}

pub(crate) async fn adopt(State(app): State<App>, cluster: String) -> Result<(), Problem> {
    let conflict = |detail| Problem::new(ProblemKind::VersionConflict, detail);
    // It waits for the disk.
    let adopted = storage::blocking(move || app.service.be_adopted(&cluster)).await;
    adopted.map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?.map_err(conflict)
}

pub(crate) async fn ask(State(app): State<App>, body: Body) -> Result<Response, Problem> {
    match app.service.answer(json::<Ask>(body).await?).await {
        Ok(told) => Ok(Json(Ok::<_, ()>(told)).into_response()),
        Err(Asked::Refused(refused)) => Ok(Json(Err::<(), _>(refused)).into_response()),
        Err(Asked::NotLeader) => Err(Problem::new(ProblemKind::NoQuorum, "this replica does not lead")),
    }
}

pub(crate) async fn ask_any(State(app): State<App>, body: Body) -> Result<Response, Problem> {
    Ok(Json(app.service.ask(json::<Ask>(body).await?).await).into_response())
}

pub(crate) async fn elect(State(app): State<App>) -> Result<(), Problem> {
    let stopped = |error: crate::raft::Undecided| Problem::new(ProblemKind::NoQuorum, error.to_string());
    app.service.group.elect().await.map_err(stopped)
}

pub(crate) async fn append(State(app): State<App>, body: Body) -> Result<Vec<u8>, Problem> {
    let body = bytes(body, MESSAGE_BYTES_MAX).await?;
    app.service.group.append(&body).await.map_err(unreadable)
}

pub(crate) async fn vote(State(app): State<App>, body: Body) -> Result<Vec<u8>, Problem> {
    let body = bytes(body, MESSAGE_BYTES_MAX).await?;
    app.service.group.vote(&body).await.map_err(unreadable)
}

pub(crate) async fn snapshot(State(app): State<App>, body: Body) -> Result<Vec<u8>, Problem> {
    let body = bytes(body, MESSAGE_BYTES_MAX).await?;
    let answer = app.service.group.snapshot(&body).await;
    answer.ok_or_else(|| Problem::new(ProblemKind::BadRequest, "this is no snapshot"))
}

fn unreadable(error: serde_json::Error) -> Problem {
    Problem::new(ProblemKind::BadRequest, error.to_string())
}
