//! Who may use what.
//!
//! HTTP routes are refused with 401 or 403. A WebSocket handshake is judged here too, but its refusal is
//! sent as a close code after the upgrade, because a browser shows a page nothing else. What a credential is
//! worth is decided by `auth`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hiveops_proto::CorrelationId;
use hiveops_proto::http::ProblemKind;
use http::HeaderMap;
use http::header::{self, HeaderValue};

use super::correlation::Correlation;
use super::problem::ApiError;
use crate::app::App;
use crate::auth::credentials::{self, Handshake};
use crate::auth::{Denial, Permission, Principal};
use crate::telemetry::log_credential_denied;

/// Refuses a request without a valid credential where one is needed, and tells those behind it who asks.
pub(crate) async fn required(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let changes = !request.method().is_safe();
    let (headers, origins) = (request.headers(), &app.config.origins);
    if changes && !app.config.auth.required && !credentials::may_change_unasked(headers, origins) {
        return Err(denied(&app, Denial::Origin, &correlation_id(&app, &request)));
    }
    let found = credentials::of_request(headers, origins, changes);
    match app.gate().judge(found) {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            Ok(next.run(request).await)
        }
        Err(denial) => Err(denied(&app, denial, &correlation_id(&app, &request))),
    }
}

/// Refuses changes of the dashboards' state to those who may only look. Behind [`required`].
pub(crate) async fn writes(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if request.method().is_safe() {
        return Ok(next.run(request).await);
    }
    permitted(State((app, Permission::Write)), request, next).await
}

/// Refuses those whose role has not the permission. Behind [`required`].
pub(crate) async fn permitted(
    State((app, permission)): State<(Arc<App>, Permission)>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let principal =
        request.extensions().get::<Principal>().ok_or_else(|| ApiError::internal(&MissingLayer))?;
    if principal.may(permission) {
        Ok(next.run(request).await)
    } else {
        Err(denied(&app, Denial::Forbidden, &correlation_id(&app, &request)))
    }
}

/// Who opens a socket: the origin is looked at first, then the credential.
pub(crate) fn handshake(
    app: &App,
    headers: &HeaderMap,
    handshake: Handshake<'_>,
) -> Result<Principal, Denial> {
    let origins = &app.config.origins;
    if !credentials::origin_allowed(headers, origins) {
        return Err(Denial::Origin);
    }
    app.gate().judge(credentials::of_handshake(headers, origins, handshake))
}

/// A refusal of an HTTP route, counted and logged.
pub(crate) fn denied(app: &App, denial: Denial, correlation_id: &CorrelationId) -> ApiError {
    app.metrics.requests_denied.with_label_values(&[denial.as_str()]).inc();
    log_credential_denied(&app.config.node_id, denial, correlation_id);
    match denial {
        Denial::Forbidden => {
            ApiError::new(ProblemKind::Forbidden, "the role of this credential does not allow this")
        }
        Denial::Origin => {
            let detail =
                "this page may not do this: add its exact origin to WS_ALLOWED_ORIGINS if it is yours";
            ApiError::new(ProblemKind::Forbidden, detail)
        }
        Denial::Missing => unauthorized("this route needs a credential", "Bearer"),
        _ => unauthorized("the credential is not valid", "Bearer error=\"invalid_token\""),
    }
}

fn unauthorized(detail: &str, challenge: &'static str) -> ApiError {
    ApiError::new(ProblemKind::Unauthorized, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// The request's own; the layer that gives it one is around every route.
fn correlation_id(app: &App, request: &Request) -> CorrelationId {
    let given = request.extensions().get::<Correlation>().map(|Correlation(id)| id.clone());
    given.unwrap_or_else(|| app.clock.correlation_id())
}

/// The router was put together wrongly.
#[derive(Debug, thiserror::Error)]
#[error("nobody has found out who asks before it is asked what they may do")]
struct MissingLayer;
