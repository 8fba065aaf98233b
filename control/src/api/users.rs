//! Users, as people look after them: `hiveops users`, and nodes that want to know who somebody is. No answer
//! has a password or a hash in it.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use hiveops_proto::CorrelationId;
use hiveops_proto::access::{Role, User};
use hiveops_proto::auth::{NewUserRequest, PasswordRequest, RoleRequest, UserList};
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::UserId;
use http::{HeaderMap, StatusCode};

use super::problem::Problem;
use super::public::{request, unexpected};
use super::{App, json, json_unquoted};
use crate::replica::ask::{Ask, Told};
use crate::state::{Action, Secret};

pub(crate) async fn list(State(app): State<App>) -> Result<Json<UserList>, Problem> {
    match app.service.ask(Ask::Users).await? {
        Told::Users(users) => Ok(Json(UserList { users })),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<User>, Problem> {
    user(app.service.ask(Ask::User { id: named(&id)? }).await?)
}

pub(crate) async fn add(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<User>), Problem> {
    let request = request(&headers)?.or_else(|| app.service.name());
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
    let shape =
        format!(r#"{{"email", "full_name", "role", "password"}}, with a role of {}"#, roles.join(", "));
    let NewUserRequest { email, full_name, role, password } = json_unquoted(body, &shape).await?;
    let ask = Ask::AddUser { request, email, full_name, role, password: Secret::new(password) };
    let added = user(app.service.ask(ask).await?)?;
    tracing::info!(correlation_id = %correlation_id, user = %added.id, role = %added.role, "user added");
    Ok((StatusCode::CREATED, added))
}

pub(crate) async fn set_role(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<User>, Problem> {
    let id = named(&id)?;
    let RoleRequest { role } = json(body).await?;
    let action = Action::SetRole { user: id.clone(), role, narrows: true };
    app.service.propose(request(&headers)?, action).await?;
    tracing::info!(correlation_id = %correlation_id, user = %id, role = %role, "user has another role");
    user(app.service.ask(Ask::User { id }).await?)
}

pub(crate) async fn disable(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<User>, Problem> {
    let id = named(&id)?;
    app.service.propose(request(&headers)?, Action::DisableUser { user: id.clone() }).await?;
    tracing::info!(correlation_id = %correlation_id, user = %id, "user disabled");
    user(app.service.ask(Ask::User { id }).await?)
}

pub(crate) async fn enable(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<User>, Problem> {
    let id = named(&id)?;
    app.service.propose(request(&headers)?, Action::EnableUser { user: id.clone() }).await?;
    tracing::info!(correlation_id = %correlation_id, user = %id, "user enabled");
    user(app.service.ask(Ask::User { id }).await?)
}

pub(crate) async fn set_password(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<User>, Problem> {
    let id = named(&id)?;
    let request = request(&headers)?.or_else(|| app.service.name());
    let PasswordRequest { password } = json_unquoted(body, r#"{"password"}"#).await?;
    let ask = Ask::SetPassword { request, user: id, password: Secret::new(password) };
    let changed = user(app.service.ask(ask).await?)?;
    tracing::info!(correlation_id = %correlation_id, user = %changed.id, "user has another password");
    Ok(changed)
}

/// An id that cannot be one is nobody's.
fn named(id: &str) -> Result<UserId, Problem> {
    UserId::new(id).map_err(|_| Problem::new(ProblemKind::NotFound, "there is no such user"))
}

fn user(told: Told) -> Result<Json<User>, Problem> {
    match told {
        Told::User(user) => Ok(Json(*user)),
        other => Err(unexpected(&other)),
    }
}
