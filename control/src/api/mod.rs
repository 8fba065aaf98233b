//! The HTTP surface of a replica: what nodes and people ask, and what other replicas say, on one port.
//!
//! It knows HTTP; what is asked for is done by `replica::service`.

mod access;
mod auth;
mod contract;
mod keys;
mod lease;
mod metrics;
mod problem;
mod public;
mod replicas;
mod server;
mod users;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use bytes::Bytes;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::path;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::watch::Receiver;

use crate::replica::service::Service;
use crate::wire;
use problem::Problem;

/// A contract with its schema is the largest thing that anybody sends.
const BODY_BYTES_MAX: usize = 4 * 1_048_576;
/// Whatever has a secret in it is short: an email, a password as JSON may write it, a token.
const SECRET_BODY_BYTES_MAX: usize = 16 * 1_024;
/// A snapshot, or one entry of the greatest size as JSON.
const MESSAGE_BYTES_MAX: usize = 64 * 1_048_576;
/// A body must have arrived within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) service: Arc<Service>,
    /// True once the replica stops: streams end then.
    pub(crate) stopping: Receiver<bool>,
}

/// Serves until the replica stops.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>, stopping: Receiver<bool>) {
    let app = App { service, stopping: stopping.clone() };
    server::run(listener, router(app), stopping).await;
}

pub(crate) fn router(app: App) -> Router {
    let public = Router::new()
        .route(path::CONTROL_STATUS, get(public::status))
        .route(path::CONTROL_VIEW, get(public::view))
        .route(path::CONTROL_WATCH, get(watch::watch))
        .route(path::CONTROL_LIMITS, post(public::limits))
        .route(path::CONTROL_CONTRACT, get(contract::show).post(contract::push))
        .route(path::CONTROL_KEYS, get(keys::list))
        .route(path::CONTROL_KEYS_ROTATE, post(keys::rotate))
        .route(path::CONTROL_LOGIN, post(auth::login))
        .route(path::CONTROL_REFRESH, post(auth::refresh))
        .route(path::CONTROL_LOGOUT, post(auth::logout))
        .route(path::CONTROL_USERS, get(users::list).post(users::add))
        .route(path::CONTROL_USER, get(users::show))
        .route(path::CONTROL_USER_ROLE, post(users::set_role))
        .route(path::CONTROL_USER_PASSWORD, post(users::set_password))
        .route(path::CONTROL_USER_DISABLE, post(users::disable))
        .route(path::CONTROL_USER_ENABLE, post(users::enable))
        .route(path::METRICS, get(metrics::show))
        .route(path::CONTROL_COMMANDS, post(public::command))
        .route(path::CONTROL_LEASE, post(lease::renew))
        .route(path::CONTROL_LEASE_END, delete(lease::end))
        .route(path::CONTROL_MEMBERS, post(public::add))
        .route(path::CONTROL_MEMBER, delete(public::remove))
        .route(path::CONTROL_PROMOTE, post(public::promote))
        .route(path::CONTROL_LEADER, post(public::transfer))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let message = DefaultBodyLimit::max(MESSAGE_BYTES_MAX);
    let replicas = Router::new()
        .route(wire::ADOPT, post(replicas::adopt))
        .route(wire::ASK, post(replicas::ask))
        .route(wire::ASK_ANY, post(replicas::ask_any))
        .route(wire::ELECT, post(replicas::elect))
        .route(wire::APPEND, post(replicas::append))
        .route(wire::VOTE, post(replicas::vote))
        .route(wire::SNAPSHOT, post(replicas::snapshot))
        .layer(from_fn_with_state(app.clone(), access::meant_for_this_replica))
        .layer(message);
    Router::new()
        .merge(public)
        .merge(replicas)
        .route(wire::HELLO, get(replicas::hello))
        .layer(from_fn_with_state(app.clone(), access::secret))
        .route(path::LIVEZ, get(|| async { "live" }))
        .with_state(app.clone())
        .layer(from_fn_with_state(app, problem::carry))
}

/// Reads a JSON body; what is wrong with it is said.
async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let bytes = bytes(body, BODY_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let kind = if error.is_data() { ProblemKind::InvalidData } else { ProblemKind::BadRequest };
        Problem::new(kind, error.to_string())
    })
}

/// Reads a JSON body that has a secret in it: what is wrong with it is not quoted.
async fn json_unquoted<T: DeserializeOwned>(body: Body, shape: &str) -> Result<T, Problem> {
    let bytes = bytes(body, SECRET_BODY_BYTES_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let kind = if error.is_data() { ProblemKind::InvalidData } else { ProblemKind::BadRequest };
        Problem::new(kind, format!("the body must be {shape}"))
    })
}

async fn bytes(body: Body, max: usize) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, max)).await;
    match read {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Problem::new(ProblemKind::TooLarge, format!("a body has {max} bytes at most"))),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(ProblemKind::RequestTimeout, detail))
        }
    }
}
