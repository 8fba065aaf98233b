//! Who may use what while authentication is by one static token.
//!
//! HTTP routes are refused with 401 or 403. A WebSocket handshake is judged here too, but its refusal is
//! sent as a close code after the upgrade, because a browser shows a page nothing else.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::DisconnectReason;
use hiveops_proto::http::ProblemKind;
use http::HeaderMap;
use http::header::{self, HeaderValue};

use super::problem::ApiError;
use crate::app::App;
use crate::config::{Auth, Origins, Role};

/// The subprotocol that carries a browser's credential: this and the token in unpadded base64url.
const BEARER_PROTOCOL: &str = "hiveops.bearer.";

/// What a request's credential is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credential {
    NotNeeded,
    Valid(Role),
    Missing,
    Invalid,
}

/// Refuses a request without a valid credential where one is needed.
pub(crate) async fn required(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match judge(&app.config.auth, bearer(request.headers())) {
        Credential::NotNeeded | Credential::Valid(_) => Ok(next.run(request).await),
        Credential::Missing => Err(unauthorized("this route needs a credential", "Bearer")),
        Credential::Invalid => {
            Err(unauthorized("the credential is not valid", "Bearer error=\"invalid_token\""))
        }
    }
}

/// Refuses changes of the dashboards' state by a credential that may only look. Behind [`required`].
pub(crate) async fn writes(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match judge(&app.config.auth, bearer(request.headers())) {
        Credential::Valid(Role::Viewer) if !request.method().is_safe() => {
            Err(ApiError::new(ProblemKind::Forbidden, "the role of this credential may only look"))
        }
        _ => Ok(next.run(request).await),
    }
}

/// Refuses a valid credential whose role may not administer. Behind [`required`].
pub(crate) async fn admin(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    match judge(&app.config.auth, bearer(request.headers())) {
        Credential::Valid(role) if !may_administer(role) => {
            Err(ApiError::new(ProblemKind::Forbidden, "this route needs a role that administers"))
        }
        _ => Ok(next.run(request).await),
    }
}

/// Why a WebSocket handshake is refused, if it is: the origin first, then the credential.
pub(crate) fn handshake(
    auth: &Auth,
    origins: &Origins,
    headers: &HeaderMap,
    protocols: &[String],
) -> Result<(), DisconnectReason> {
    if let Some(origin) = headers.get(header::ORIGIN) {
        // A header that is not text is no origin of ours.
        let allowed = origin.to_str().is_ok_and(|origin| origins.allows(origin)) || !origins.configured();
        if !allowed {
            return Err(DisconnectReason::OriginDenied);
        }
    }
    let offered = protocols.iter().find_map(|protocol| protocol.strip_prefix(BEARER_PROTOCOL));
    let found = match (bearer(headers), offered) {
        (Found::None, Some(encoded)) => match URL_SAFE_NO_PAD.decode(encoded).map(String::from_utf8) {
            Ok(Ok(token)) => Found::Token(token),
            _ => Found::Malformed,
        },
        (found, _) => found,
    };
    match judge(auth, found) {
        Credential::NotNeeded | Credential::Valid(_) => Ok(()),
        Credential::Missing => Err(DisconnectReason::CredentialMissing),
        Credential::Invalid => Err(DisconnectReason::CredentialInvalid),
    }
}

/// What a request brings.
enum Found {
    None,
    Malformed,
    Token(String),
}

fn bearer(headers: &HeaderMap) -> Found {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Found::None };
    let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return Found::Malformed;
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        Found::Token(token.trim().to_owned())
    } else {
        Found::Malformed
    }
}

fn judge(auth: &Auth, found: Found) -> Credential {
    if !auth.required {
        return Credential::NotNeeded;
    }
    match (found, &auth.token) {
        (Found::None, _) => Credential::Missing,
        (Found::Token(token), Some(secret)) if secret.matches(&token) => Credential::Valid(auth.role),
        (Found::Token(_) | Found::Malformed, _) => Credential::Invalid,
    }
}

fn may_administer(role: Role) -> bool {
    match role {
        Role::SuperAdmin | Role::EnterpriseAdmin => true,
        Role::Developer | Role::Operator | Role::Viewer => false,
    }
}

fn unauthorized(detail: &str, challenge: &'static str) -> ApiError {
    ApiError::new(ProblemKind::Unauthorized, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}
