//! A control plane of the tests' own, over HTTP: one user, one password, and the rules of its tokens as far as
//! a node can tell them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path as PathParam, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hiveops_proto::access::{RevokedSubject, Role};
use hiveops_proto::auth::{Grant, LoginRequest, LogoutRequest, RefreshRequest};
use hiveops_proto::control::{ControlView, WatchLine};
use hiveops_proto::http::{Problem, ProblemKind};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::tokens::{self, claims, header, signed};
use super::{JWT, ORIGINS, leaks};
use crate::harness::{Node, config, view};

pub(super) const EMAIL: &str = "ada@example.org";
pub(super) const PASSWORD: &str = "correct-horse-battery-staple";
const SECRET: &str = "a-secret-of-the-cluster";

/// The plane, whatever its replicas are.
pub(super) struct Plane {
    views: watch::Sender<Arc<ControlView>>,
    /// The refresh tokens of the one login: all but the last are used.
    lineage: Mutex<Vec<String>>,
    /// What was asked for: path, body as the node sent it, correlation id.
    asked: Mutex<Vec<(String, Value, String)>>,
}

/// How a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replica {
    Sound,
    /// It knows of no leader.
    Leaderless,
    /// It has another secret.
    Stranger,
    /// It has no room for another hash.
    Busy,
}

impl Plane {
    pub(super) fn new() -> Arc<Self> {
        leaks::watch();
        leaks::secret(PASSWORD);
        leaks::secret(SECRET);
        let config = config(None, &[]);
        let view = ControlView { access: tokens::access(), ..view(&config, config.limits.clone(), 1) };
        Arc::new(Self {
            views: watch::Sender::new(Arc::new(view)),
            lineage: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// A node that follows these replicas of the plane.
    pub(super) async fn node(self: &Arc<Self>, dir: &Path, replicas: &[Replica]) -> Node {
        self.node_with(dir, replicas, &[]).await
    }

    /// The same with settings of its own.
    pub(super) async fn node_with(
        self: &Arc<Self>,
        dir: &Path,
        replicas: &[Replica],
        other: &[(&str, &str)],
    ) -> Node {
        let mut urls = Vec::new();
        for replica in replicas {
            urls.push(format!("http://{}", self.serve(*replica).await));
        }
        let settings = [&[JWT[0], JWT[1], ORIGINS, ("HIVEOPS_CLUSTER_SECRET", SECRET)], other].concat();
        Node::start_following(dir, &urls, &settings).await
    }

    #[expect(clippy::disallowed_methods, reason = "the replica runs beside the test")]
    async fn serve(self: &Arc<Self>, replica: Replica) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/api/control/watch", get(watch))
            .route("/api/control/auth/login", post(login))
            .route("/api/control/auth/refresh", post(refresh))
            .route("/api/control/auth/logout", post(logout))
            .route("/api/control/users/{id}", get(user))
            .layer(axum::middleware::from_fn_with_state(replica, behave))
            .with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    pub(super) fn revoke(&self, subject: RevokedSubject) {
        self.views.send_modify(|view| {
            let mut next = ControlView::clone(view);
            tokens::revoke(&mut next.access, subject);
            next.revision.index += 1;
            *view = Arc::new(next);
        });
    }

    /// What was asked under a path: body and correlation id.
    pub(super) fn asked(&self, path: &str) -> Vec<(Value, String)> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(at, ..)| at == path).map(|(_, body, id)| (body.clone(), id.clone())).collect()
    }

    fn grant(&self) -> Grant {
        let mut lineage = self.lineage.lock().unwrap();
        let refresh_token = leaks::secret(&format!("refresh-token-number-{:04}", lineage.len()));
        lineage.push(refresh_token.clone());
        let user = serde_json::from_value(ada()).unwrap();
        let access_token = signed(&header(), &claims("ada", Role::Viewer));
        Grant { access_token, refresh_token, token_type: "Bearer".to_owned(), expires_in: 600, user }
    }
}

/// The one user.
pub(super) fn ada() -> Value {
    json!({
        "id": "ada", "email": EMAIL, "full_name": "Ada", "role": "viewer", "is_active": true,
        "created_at": "2026-01-01T00:00:00.000Z", "last_login": null,
    })
}

/// Everything but the view goes through here: the secret of the cluster, and what ails the replica.
async fn behave(State(replica): State<Replica>, request: Request, next: Next) -> Response {
    let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    assert_eq!(given, Some(&*format!("Bearer {SECRET}")), "a node shows the secret of the cluster");
    match replica {
        _ if request.uri().path() == "/api/control/watch" => next.run(request).await,
        Replica::Sound => next.run(request).await,
        Replica::Leaderless => refusal(ProblemKind::NoLeader, 503, Some(1)),
        Replica::Stranger => refusal(ProblemKind::Unauthorized, 401, None),
        Replica::Busy => refusal(ProblemKind::Busy, 503, Some(3)),
    }
}

async fn watch(State(plane): State<Arc<Plane>>) -> Body {
    let mut views = plane.views.subscribe();
    views.mark_changed();
    let lines = futures_util::stream::unfold(views, |mut views| async {
        let line = match tokio::time::timeout(Duration::from_millis(500), views.changed()).await {
            Ok(_) => {
                let view = Box::new(ControlView::clone(&views.borrow_and_update()));
                WatchLine::View { view, stale: false }
            }
            Err(_) => WatchLine::Alive { revision: views.borrow().revision, stale: false },
        };
        let mut line = serde_json::to_vec(&line).unwrap();
        line.push(b'\n');
        Some((Ok::<_, std::io::Error>(Bytes::from(line)), views))
    });
    Body::from_stream(lines)
}

async fn login(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let (login, _): (LoginRequest, _) = plane.take(request).await;
    match login.password.as_str() {
        PASSWORD if login.email == EMAIL => Json(plane.grant()).into_response(),
        "too often" => refusal(ProblemKind::LoginThrottled, 429, Some(17)),
        _ => refusal(ProblemKind::InvalidCredentials, 401, None),
    }
}

async fn refresh(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let (refresh, _): (RefreshRequest, _) = plane.take(request).await;
    let place = {
        let lineage = plane.lineage.lock().unwrap();
        lineage.iter().position(|token| *token == refresh.refresh_token).map(|at| at + 1 == lineage.len())
    };
    match place {
        Some(true) => Json(plane.grant()).into_response(),
        Some(false) => refusal(ProblemKind::RefreshReused, 401, None),
        None => refusal(ProblemKind::InvalidRefreshToken, 401, None),
    }
}

async fn logout(State(plane): State<Arc<Plane>>, request: Request) -> Json<Value> {
    let (_, body): (LogoutRequest, Value) = plane.take(request).await;
    assert_eq!(body.as_object().unwrap().len(), 1, "one of the two: {body}");
    plane.lineage.lock().unwrap().clear();
    Json(json!({"success": true}))
}

async fn user(PathParam(id): PathParam<String>) -> Response {
    if id == "ada" { Json(ada()).into_response() } else { refusal(ProblemKind::NotFound, 404, None) }
}

impl Plane {
    /// Reads a request, and remembers it.
    async fn take<T: serde::de::DeserializeOwned>(&self, request: Request) -> (T, Value) {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 65_536).await.unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        let id = parts.headers["x-correlation-id"].to_str().unwrap().to_owned();
        self.asked.lock().unwrap().push((parts.uri.path().to_owned(), value.clone(), id));
        (serde_json::from_slice(&body).unwrap(), value)
    }
}

fn refusal(code: ProblemKind, status: u16, retry_after: Option<u32>) -> Response {
    let problem = Problem {
        problem_type: format!("/problems/{code}"),
        title: "no".to_owned(),
        status,
        detail: Some(format!("control says {code}")),
        code,
        correlation_id: "of-control".parse().unwrap(),
        valid_subscriptions: None,
        valid_message_types: None,
        current: None,
    };
    let mut response = (StatusCode::from_u16(status).unwrap(), Json(problem)).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}
