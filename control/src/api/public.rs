//! What nodes and people ask: status, view, changes.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use hiveops_proto::control::{ControlStatus, ControlView};
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::path::{CONTROL_STATUS, IDEMPOTENCY_HEADER};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::{App, json};
use crate::replica::ask::{Ask, Decided, Refused, Told};
use crate::state::{Action, LimitChange, Reply};

/// How long a follower waits for its leader when it is asked for the status of all.
const STATUS_TIMEOUT: Duration = Duration::from_millis(400);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusQuery {
    /// Only what this replica itself knows.
    #[serde(default)]
    local: bool,
}

/// The status; how far the members are is known by the leader alone, so it is asked.
pub(crate) async fn status(State(app): State<App>, Query(query): Query<StatusQuery>) -> Json<ControlStatus> {
    let mut status = app.service.status();
    if !query.local
        && status.leader != Some(status.id)
        && let Some((leader, address)) = app.service.group.leader()
    {
        let path = format!("{CONTROL_STATUS}?local=true");
        let answer = app.service.link.get(&address, leader, &path, STATUS_TIMEOUT).await;
        if let Ok((StatusCode::OK, body)) = answer
            && let Ok(leaders) = serde_json::from_slice::<ControlStatus>(&body)
            && Some(leaders.id) == status.leader
        {
            status.members = leaders.members;
        }
    }
    Json(status)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ViewQuery {
    /// As of now, which the leader and a quorum must confirm.
    #[serde(default)]
    linearizable: bool,
}

pub(crate) async fn view(
    State(app): State<App>,
    Query(query): Query<ViewQuery>,
) -> Result<Json<ControlView>, Problem> {
    if query.linearizable {
        return match app.service.ask(Ask::View).await? {
            Told::View(view) => Ok(Json(*view)),
            other => Err(unexpected(&other)),
        };
    }
    let view = app.service.plane.read(|state| state.view());
    view.map(Json).ok_or_else(|| Problem::new(ProblemKind::NoQuorum, "the cluster has no first state yet"))
}

/// A change of limits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsPatch {
    limits: BTreeMap<String, u64>,
    /// Only say what would change.
    #[serde(default)]
    dry_run: bool,
}

/// What a change of limits changes.
#[derive(Debug, Serialize)]
pub(crate) struct LimitsReply {
    dry_run: bool,
    changes: Vec<LimitChange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<Decided>,
}

pub(crate) async fn limits(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<LimitsReply>, Problem> {
    let request = request(&headers)?;
    let LimitsPatch { limits: patch, dry_run } = json(body).await?;
    if dry_run {
        return match app.service.ask(Ask::PreviewLimits { patch }).await? {
            Told::Limits(changes) => Ok(Json(LimitsReply { dry_run, changes, decided: None })),
            other => Err(unexpected(&other)),
        };
    }
    let decided = app.service.propose(request, Action::SetLimits { patch }).await?;
    let changes = match &decided.reply {
        Reply::Limits(changes) => changes.clone(),
        _ => Vec::new(),
    };
    Ok(Json(LimitsReply { dry_run, changes, decided: Some(decided) }))
}

/// Anything that can be asked of the state, but a cluster is made only once.
pub(crate) async fn command(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Decided>, Problem> {
    let request = request(&headers)?;
    match json::<Action>(body).await? {
        Action::Init(_) => Err(Problem::new(ProblemKind::Forbidden, "the cluster makes itself")),
        action => Ok(Json(app.service.propose(request, action).await?)),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMember {
    id: u64,
    address: String,
}

pub(crate) async fn add(State(app): State<App>, body: Body) -> Result<Response, Problem> {
    let NewMember { id, address } = json(body).await?;
    done(app.service.ask(Ask::Add { id, address }).await)
}

pub(crate) async fn promote(State(app): State<App>, Path(id): Path<u64>) -> Result<Response, Problem> {
    done(app.service.ask(Ask::Promote { id }).await)
}

pub(crate) async fn remove(State(app): State<App>, Path(id): Path<u64>) -> Result<Response, Problem> {
    done(app.service.ask(Ask::Remove { id }).await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLeader {
    id: u64,
}

pub(crate) async fn transfer(State(app): State<App>, body: Body) -> Result<Response, Problem> {
    let NewLeader { id: to } = json(body).await?;
    done(app.service.ask(Ask::Transfer { to }).await)
}

fn done(told: Result<Told, Refused>) -> Result<Response, Problem> {
    told.map(|_| StatusCode::NO_CONTENT.into_response()).map_err(Problem::from)
}

/// The asker's own name for the request.
pub(super) fn request(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| IdempotencyKey::new(text).ok());
    let detail = || format!("{IDEMPOTENCY_HEADER} must be {}", IdempotencyKey::RULE);
    key.map(Some).ok_or_else(|| Problem::new(ProblemKind::BadRequest, detail()))
}

pub(super) fn unexpected(told: &Told) -> Problem {
    Problem::new(ProblemKind::Internal, format!("the leader answered something else: {told:?}"))
}
