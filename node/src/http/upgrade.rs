//! The WebSocket routes: from a handshake to a socket in a shard.
//!
//! Everything that can be refused with a status is refused before the upgrade. What a browser must see is
//! refused after it, by a close frame.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::path::Endpoint;
use hiveops_proto::position::parse_since;
use hiveops_proto::{ConnectionId, CorrelationId, DisconnectReason, Positions};
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::access;
use super::body::Query;
use super::client::ClientAddress;
use super::correlation::Correlation;
use super::naming::named;
use super::patient::Patient;
use super::problem::ApiError;
use crate::admission::{NoPlace, Place};
use crate::app::{App, resume};
use crate::auth::credentials::Handshake;
use crate::auth::{Denial, Principal};
use crate::hub::{Admission, Full, Intent, Refused, Registration, SessionInfo, Working};
use crate::session::{Setup, WantedVersion};
use crate::tasks::TaskKind;
use crate::telemetry::metrics::HandshakeRefusal;
use crate::telemetry::{log_denied, log_handshake_denied, log_refused};
use crate::ws::handshake::{self, Accepted};
use crate::ws::{Coding, deflate};

/// Names that a query may list: far beyond what a connection can join, and a bound on what is looked at.
const NAMES_MAX: usize = 256;

/// Seconds after which a refused client may try again.
const RETRY_SECONDS: u32 = 1;

/// What the kernel may hold for one socket: beyond it the outbox decides what a slow client gets.
const SEND_BUFFER_BYTES: usize = 128 * 1_024;

#[derive(Deserialize)]
pub(super) struct Wanted {
    subscriptions: Option<String>,
    connection_id: Option<String>,
    contract_version: Option<String>,
    since: Option<String>,
    /// Opens this one socket; instead of another credential.
    ticket: Option<String>,
    /// A credential where it does not belong: only taken by a node that was told to.
    access_token: Option<String>,
}

/// One of the five routes.
pub(super) async fn open(
    State((app, endpoint)): State<(Arc<App>, Endpoint)>,
    client: ClientAddress,
    Correlation(correlation_id): Correlation,
    query: Result<Query<Wanted>, ApiError>,
    request: Request,
) -> Result<Response, ApiError> {
    let refuse = |refusal| {
        count_refused(&app, refusal);
        log_refused(&app.config.node_id, refusal, client, &correlation_id);
    };
    let accepted = check(&app, &request, refuse)?;
    let asked = query.and_then(|Query(wanted)| Ok((since(&wanted)?, connection_id(&wanted)?, wanted)));
    let (since, wished, wanted) = asked.inspect_err(|_| refuse(HandshakeRefusal::Malformed))?;
    let verdict = access::handshake(&app, request.headers(), wanted.credential(&app, &accepted));
    let shard = app.hub.next_shard();
    let intent = match verdict {
        Err(denial) => {
            count_denied(&app, denial, &correlation_id);
            Intent::Refuse(denial.reason().into())
        }
        Ok(principal) => match enter(&app, wished.as_ref(), &principal, client, (endpoint, shard)).await {
            Err(Stay::Out(full)) => {
                refuse(full);
                let refused = match full {
                    HandshakeRefusal::UserFull => Refused::USER_FULL,
                    _ => DisconnectReason::ConnectionLimit.into(),
                };
                log_denied(&app.config.node_id, refused, &correlation_id);
                Intent::Refuse(refused)
            }
            Err(Stay::Answered(full, error)) => {
                refuse(full);
                return Err(error);
            }
            Ok(registration) => {
                resume::wait(&app, &since).await;
                let connection_id = registration.id().clone();
                let refused_id = wished.filter(|wished| *wished != connection_id);
                let setup = Setup {
                    connection_id,
                    refused_id,
                    endpoint,
                    subscriptions: wanted.subscriptions.as_deref().map(names),
                    since,
                    wanted_version: wanted.contract_version.as_deref().map(version),
                    principal,
                    correlation_id,
                };
                Intent::Open(Box::new(setup), registration)
            }
        },
    };
    Ok(switch(&app, accepted, request, shard, intent))
}

/// Sends back what it gets; exists only in builds for the conformance suite.
#[cfg(feature = "echo-endpoint")]
pub(super) async fn echo(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let accepted = check(&app, &request, |refusal| count_refused(&app, refusal))?;
    Ok(switch(&app, accepted, request, app.hub.next_shard(), Intent::Echo))
}

/// The handshake itself, and whether the node takes any.
fn check(app: &App, request: &Request, refuse: impl Fn(HandshakeRefusal)) -> Result<Accepted, ApiError> {
    let accepted =
        Accepted::check(request.method(), request.version(), request.headers()).map_err(|error| {
            refuse(HandshakeRefusal::Malformed);
            malformed(error)
        })?;
    if app.is_draining() {
        refuse(HandshakeRefusal::Shutdown);
        let error = ApiError::new(ProblemKind::Draining, "the node is going away: connect to another");
        return Err(error.retry_after_seconds(RETRY_SECONDS));
    }
    let admitted = app.handshakes.admit(&app.limits(), app.clock.moment());
    if !admitted {
        refuse(HandshakeRefusal::Rate);
        return Err(overloaded("handshake_rate_per_second"));
    }
    Ok(accepted)
}

fn malformed(error: handshake::Error) -> ApiError {
    match error {
        handshake::Error::UnsupportedVersion => {
            ApiError::new(ProblemKind::UpgradeRequired, error.to_string())
                .with_header(header::SEC_WEBSOCKET_VERSION, handshake::VERSION)
        }
        handshake::Error::Upgrade | handshake::Error::Connection => {
            ApiError::new(ProblemKind::UpgradeRequired, error.to_string())
                .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
        }
        handshake::Error::Method | handshake::Error::HttpVersion | handshake::Error::Key => {
            ApiError::new(ProblemKind::BadRequest, error.to_string())
        }
    }
}

fn overloaded(limit: &str) -> ApiError {
    let detail = format!("the node is at its limit ({limit}): try again, or another node");
    ApiError::new(ProblemKind::Overloaded, detail).retry_after_seconds(RETRY_SECONDS)
}

/// Why a handshake whose credential is good gets no session.
enum Stay {
    /// Told by a close code, after the upgrade.
    Out(HandshakeRefusal),
    /// Told by a status, before it.
    Answered(HandshakeRefusal, ApiError),
}

/// A place under the limits of the cluster and one in the registry.
async fn enter(
    app: &App,
    wished: Option<&ConnectionId>,
    principal: &Principal,
    client: ClientAddress,
    at: (Endpoint, usize),
) -> Result<Registration, Stay> {
    let place = app.budget().enter(principal.user().cloned()).await.map_err(|none| {
        Stay::Out(match none {
            NoPlace::ClusterFull => HandshakeRefusal::ClusterFull,
            NoPlace::UserFull => HandshakeRefusal::UserFull,
            NoPlace::NotLent => HandshakeRefusal::NotLent,
        })
    })?;
    named(app, wished, |id| register(app, id, client, at, place)).await
}

/// A place in the registry.
fn register(
    app: &App,
    wished: Option<&ConnectionId>,
    client: ClientAddress,
    (endpoint, shard): (Endpoint, usize),
    place: Place,
) -> Result<Registration, Stay> {
    let info = SessionInfo { endpoint, connected_at: app.clock.timestamp() };
    let made = || app.clock.connection_id();
    let registered = app.registry().register(wished, made, client.0, (info, shard), place, &app.limits());
    registered.map_err(|full| match full {
        Full::Cluster => Stay::Out(HandshakeRefusal::ClusterFull),
        Full::User => Stay::Out(HandshakeRefusal::UserFull),
        Full::Node => Stay::Answered(HandshakeRefusal::NodeFull, overloaded(full.limit())),
        Full::Address => Stay::Answered(HandshakeRefusal::AddressFull, overloaded(full.limit())),
    })
}

/// Answers 101 and, once that is written, hands the socket to its shard.
fn switch(
    app: &Arc<App>,
    accepted: Accepted,
    mut request: Request,
    shard: usize,
    intent: Intent,
) -> Response {
    let agreed = app.config.compression.then(|| deflate::negotiate(request.headers())).flatten();
    let coding = agreed.as_ref().map_or(Coding::Plain, |agreed| agreed.coding);
    let upgrade = hyper::upgrade::on(&mut request);
    let working = request.extensions_mut().remove::<Working>();
    let owner = Arc::clone(app);
    let deadline = Duration::from_secs(app.limits().handshake_timeout_seconds);
    app.tasks.spawn(TaskKind::Upgrade, async move {
        // Until then the session's name and its share of the caps are taken.
        match tokio::time::timeout(deadline, upgrade).await {
            Ok(Ok(upgraded)) => hand_over(&owner, upgraded, shard, (intent, coding), working).await,
            Ok(Err(error)) => {
                count_refused(&owner, HandshakeRefusal::Malformed);
                tracing::debug!(error = %error, "client went away before its upgrade");
            }
            Err(_) => {
                count_refused(&owner, HandshakeRefusal::Timeout);
                tracing::debug!("upgrade did not complete in time");
            }
        }
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = accepted.subprotocol() {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    if let Some(agreed) = agreed {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, agreed.response);
    }
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted.accept);
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn hand_over(
    app: &App,
    upgraded: hyper::upgrade::Upgraded,
    shard: usize,
    (intent, coding): (Intent, Coding),
    working: Option<Working>,
) {
    let Ok(parts) = upgraded.downcast::<TokioIo<Patient>>() else {
        tracing::error!("upgraded connection is not a socket of the accept loop");
        return;
    };
    let socket = match parts.io.into_inner().into_socket().into_std() {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(error = %error, "socket could not leave the runtime");
            return;
        }
    };
    // Where the kernel refuses, its own bound holds.
    let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES);
    // A copy: even an empty rest keeps the whole buffer of the request.
    let read = Bytes::copy_from_slice(&parts.read_buf);
    let admission = Admission { socket, read, coding, intent, working };
    if app.hub.admit(shard, admission).await.is_err() {
        tracing::info!("shard has ended, a new socket is closed");
    }
}

fn count_refused(app: &App, refusal: HandshakeRefusal) {
    app.metrics.handshakes_refused.with_label_values(&[refusal.as_str()]).inc();
}

fn count_denied(app: &App, denial: Denial, correlation_id: &CorrelationId) {
    match denial {
        Denial::Origin => app.metrics.origin_denied.inc(),
        _ => app.metrics.auth_denied.with_label_values(&[denial.as_str()]).inc(),
    }
    log_handshake_denied(&app.config.node_id, denial, correlation_id);
}

impl Wanted {
    /// Where its credential may stand besides its headers.
    fn credential<'a>(&'a self, app: &App, accepted: &'a Accepted) -> Handshake<'a> {
        Handshake {
            protocols: &accepted.protocols,
            ticket: self.ticket.as_deref(),
            access_token: self.access_token.as_deref(),
            query_token_allowed: app.config.auth.query_token,
        }
    }
}

fn since(wanted: &Wanted) -> Result<Positions, ApiError> {
    parse_since(wanted.since.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::new(ProblemKind::BadRequest, format!("query: {error}")))
}

fn connection_id(wanted: &Wanted) -> Result<Option<ConnectionId>, ApiError> {
    let wished = wanted.connection_id.as_deref().filter(|id| !id.is_empty());
    wished
        .map(|id| {
            ConnectionId::new(id).map_err(|error| ApiError::new(ProblemKind::BadRequest, error.to_string()))
        })
        .transpose()
}

fn names(list: &str) -> Vec<String> {
    list.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .take(NAMES_MAX)
        .map(str::to_owned)
        .collect()
}

fn version(text: &str) -> WantedVersion {
    match text.parse() {
        Ok(version) => WantedVersion::Version(version),
        Err(_) => WantedVersion::Other(text.chars().take(32).collect()),
    }
}
