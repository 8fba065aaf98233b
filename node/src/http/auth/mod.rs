//! `/api/auth` and, with the same behaviour, `/api/v1/auth`: logins, which control decides about, and tickets
//! for sockets, which this node gives.
//!
//! A browser gets its tokens as cookies beside the body. A request that brings its credential by a cookie, and
//! changes something, must name the exact origin of a page that may.

mod cookies;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hiveops_proto::access::User;
use hiveops_proto::auth::{Grant, LoginRequest, LogoutRequest, RefreshRequest};
use hiveops_proto::http::ProblemKind;
use hiveops_proto::path;
use hiveops_proto::{CorrelationId, path::REFRESH_COOKIE};
use http::HeaderMap;
use http::header::{CACHE_CONTROL, HeaderValue, SET_COOKIE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::denied;
use super::body::{Json, OptionalJson};
use super::client::ClientAddress;
use super::correlation::Correlation;
use super::problem::ApiError;
use crate::app::App;
use crate::auth::credentials::{self, Found};
use crate::auth::{Denial, LoginRefusal, NoTicket, Principal, RefreshOutcome, TICKET_MS};
use crate::control::{AccountError, Accounts};

/// Bytes of an email address and of a password at most: more is no login, and costs nobody a hash.
const EMAIL_BYTES_MAX: usize = 254;
const PASSWORD_BYTES_MAX: usize = 1_024;

/// When it is worth asking again after no replica could be asked, in seconds: about an election.
const RETRY_SECONDS: u32 = 1;

/// Answers of these routes are for nobody else, and for once.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

type Shared = State<Arc<App>>;

/// What brings its own credential.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route(path::AUTH_LOGIN, post(login))
        .route(path::AUTH_LOGIN_V1, post(login))
        .route(path::AUTH_REFRESH, post(refresh))
        .route(path::AUTH_REFRESH_V1, post(refresh))
        .route(path::AUTH_LOGOUT, post(logout))
        .route(path::AUTH_LOGOUT_V1, post(logout))
        .route(path::AUTH_ME, get(me))
        .route(path::AUTH_ME_V1, get(me))
}

/// What needs one.
pub(super) fn tickets() -> Router<Arc<App>> {
    Router::new().route(path::AUTH_WS_TICKET, post(ticket)).route(path::AUTH_WS_TICKET_V1, post(ticket))
}

/// Without `Debug`: it holds a password.
#[derive(Deserialize)]
struct Login {
    email: String,
    password: String,
}

#[derive(Deserialize, Default)]
struct Refresh {
    refresh_token: Option<String>,
}

#[derive(Serialize)]
struct Refreshed {
    success: bool,
    access_token: String,
    refresh_token: String,
    token_type: String,
    expires_in: u64,
}

async fn login(
    State(app): Shared,
    ClientAddress(client): ClientAddress,
    Correlation(id): Correlation,
    headers: HeaderMap,
    Json(Login { email, password }): Json<Login>,
) -> Result<Response, ApiError> {
    // A page of somebody else's may not log its visitor in as somebody else.
    if !credentials::origin_allowed(&headers, &app.config.origins) {
        return Err(denied(&app, Denial::Origin, &id));
    }
    if email.len() > EMAIL_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
        let detail = format!("email may have {EMAIL_BYTES_MAX} bytes and password {PASSWORD_BYTES_MAX}");
        return Err(ApiError::new(ProblemKind::InvalidData, detail));
    }
    let login = LoginRequest { email, password, address: Some(client.to_string()) };
    let granted = accounts(&app)?.login(&login, &id).await;
    let grant = granted.map_err(|error| {
        let refusal = LoginRefusal::of(&error);
        app.metrics.requests_denied.with_label_values(&[refusal.as_str()]).inc();
        tracing::info!(
            correlation_id = %id,
            reason = refusal.as_str(),
            client = %client,
            node_id = %app.config.node_id,
            "login denied"
        );
        refused(&app, error, &id)
    })?;
    app.metrics.logins.inc();
    tracing::info!(
        correlation_id = %id,
        user = %grant.user.id,
        client = %client,
        node_id = %app.config.node_id,
        "user logged in"
    );
    let cookies = cookies::granted(app.config.profile, &headers, &grant);
    Ok(private(cookies, Json(grant)))
}

async fn refresh(
    State(app): Shared,
    Correlation(id): Correlation,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<Refresh>,
) -> Result<Response, ApiError> {
    let (refresh_token, by_cookie) = brought(&app, &headers, body)
        .and_then(|brought| brought.ok_or(Denial::Missing))
        .map_err(|denial| denied(&app, denial, &id))?;
    let outcome = accounts(&app)?.refresh(&RefreshRequest { refresh_token }, &id).await;
    let label = RefreshOutcome::of(&outcome);
    app.metrics.refreshes.with_label_values(&[label.as_str()]).inc();
    match outcome {
        Ok(grant) => {
            let cookies = cookies::granted(app.config.profile, &headers, &grant);
            let Grant { access_token, refresh_token, token_type, expires_in, user: _ } = grant;
            let body = Refreshed { success: true, access_token, refresh_token, token_type, expires_in };
            Ok(private(cookies, Json(body)))
        }
        Err(error) => {
            let refusal = refused(&app, error, &id);
            // A browser does not bring again what is good for nothing.
            let cookies = if by_cookie && label.is_final() {
                cookies::cleared(app.config.profile, &headers)
            } else {
                Vec::new()
            };
            Ok(private(cookies, refusal))
        }
    }
}

async fn logout(
    State(app): Shared,
    Correlation(id): Correlation,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson<Refresh>,
) -> Result<Response, ApiError> {
    let denied = |denial| denied(&app, denial, &id);
    let logout = match brought(&app, &headers, body).map_err(denied)? {
        Some((token, _)) => LogoutRequest { refresh_token: Some(token), family: None },
        None => {
            let claims = verified(&app, &headers).map_err(denied)?;
            LogoutRequest { refresh_token: None, family: Some(claims.sid) }
        }
    };
    accounts(&app)?.logout(&logout, &id).await.map_err(|error| refused(&app, error, &id))?;
    Ok(private(cookies::cleared(app.config.profile, &headers), Json(json!({ "success": true }))))
}

async fn me(
    State(app): Shared,
    Correlation(id): Correlation,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let claims = verified(&app, &headers).map_err(|denial| denied(&app, denial, &id))?;
    match accounts(&app)?.user(&claims.sub, &id).await {
        Ok(user) => Ok(private(Vec::new(), Json::<User>(user))),
        // Control has never heard of whom it issued a token for: that token is nobody's.
        Err(AccountError::Refused { kind: ProblemKind::NotFound, .. }) => {
            Err(denied(&app, Denial::Invalid, &id))
        }
        Err(error) => Err(refused(&app, error, &id)),
    }
}

async fn ticket(
    State(app): Shared,
    Extension(principal): Extension<Principal>,
    Correlation(id): Correlation,
) -> Result<Response, ApiError> {
    let ticket = app.gate().issue_ticket(principal).map_err(|none| no_ticket(&app, none, &id))?;
    let body: Value = json!({
        "ticket": ticket,
        "expires_in": TICKET_MS / 1_000,
        // Only this node knows it.
        "node_id": app.config.node_id,
    });
    Ok(private(Vec::new(), Json(body)))
}

/// Nobody gets a ticket just now, or this user does not; counted and logged.
fn no_ticket(app: &App, none: NoTicket, id: &CorrelationId) -> ApiError {
    app.metrics.requests_denied.with_label_values(&[none.as_str()]).inc();
    tracing::info!(
        correlation_id = %id,
        reason = none.as_str(),
        node_id = %app.config.node_id,
        "ticket refused"
    );
    let (kind, detail, wait_ms) = match none {
        NoTicket::User { retry_after_ms } => {
            let detail = "this user has too many unused tickets: use them, wait, or use another carrier";
            (ProblemKind::TooManyTickets, detail, retry_after_ms)
        }
        NoTicket::Node { retry_after_ms } => {
            let detail = "too many tickets are out: try again, or use another carrier";
            (ProblemKind::Overloaded, detail, retry_after_ms)
        }
    };
    // Rounded up, so that whoever waits for so long has waited long enough.
    let seconds = u32::try_from(wait_ms.div_ceil(1_000)).unwrap_or(RETRY_SECONDS).max(RETRY_SECONDS);
    ApiError::new(kind, detail).retry_after_seconds(seconds)
}

/// The refresh token of a request, and whether a browser brought it by itself.
fn brought(app: &App, headers: &HeaderMap, body: Refresh) -> Result<Option<(String, bool)>, Denial> {
    // A page of a sibling host needs nobody's leave to send a body without a type, and the answer sets cookies:
    // its visitor would go on in another login.
    if !credentials::origin_allowed(headers, &app.config.origins) {
        return Err(Denial::Origin);
    }
    if let Some(token) = body.refresh_token {
        return Ok(Some((token, false)));
    }
    let Some(token) = credentials::cookie(headers, REFRESH_COOKIE)? else { return Ok(None) };
    if !credentials::is_from_listed_page(headers, &app.config.origins) {
        return Err(Denial::Origin);
    }
    Ok(Some((token, true)))
}

/// Whose access token the request brings.
fn verified(app: &App, headers: &HeaderMap) -> Result<hiveops_proto::access::AccessClaims, Denial> {
    match credentials::of_header(headers) {
        Found::Token(token) => app.gate().verify(&token).map(|vouched| vouched.claims),
        Found::Refused(denial) => Err(denial),
        Found::None | Found::Ticket(_) => Err(Denial::Missing),
    }
}

fn accounts(app: &App) -> Result<&Accounts, ApiError> {
    app.accounts.as_ref().ok_or_else(|| {
        let detail = "this node has no control plane, which knows the users: set HIVEOPS_CONTROL";
        ApiError::new(ProblemKind::ControlUnavailable, detail)
    })
}

/// What control decided, or that it could not.
fn refused(app: &App, error: AccountError, id: &CorrelationId) -> ApiError {
    tracing::info!(
        correlation_id = %id,
        reason = %error,
        node_id = %app.config.node_id,
        "control refused a login, a refresh or a logout"
    );
    match error {
        AccountError::Refused { kind, detail, retry_after_seconds } => {
            let refusal = match detail {
                Some(detail) => ApiError::new(kind, detail),
                None => ApiError::bare(kind),
            };
            let refusal = match retry_after_seconds {
                Some(seconds) => refusal.retry_after_seconds(seconds),
                None => refusal,
            };
            let bearer = HeaderValue::from_static("Bearer");
            refusal.with_header(http::header::WWW_AUTHENTICATE, bearer)
        }
        AccountError::Unavailable(_) => {
            let detail = "no control replica can be asked just now: try again";
            ApiError::new(ProblemKind::ControlUnavailable, detail).retry_after_seconds(RETRY_SECONDS)
        }
    }
}

/// An answer that nobody keeps, with its cookies.
fn private(cookies: Vec<HeaderValue>, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}
