//! Refusals: the one place where a status is chosen and where a problem document is made. Every response
//! carries the correlation id of its request.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hiveops_proto::CorrelationId;
use hiveops_proto::http::{Problem as Document, ProblemKind};
use hiveops_proto::path::CORRELATION_HEADER;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use super::App;
use crate::replica::ask::Refused;

const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// When a client should try again when there is no quorum, or the queue of hashes is full: an election takes about
/// that long, and the queue does.
const RETRY_SECONDS: u64 = 1;

/// A refusal; the middleware gives it its document.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    refused: Refused,
    retry_after_seconds: Option<u64>,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self::from(Refused::new(kind, detail))
    }

    /// Says when another try makes sense.
    pub(crate) fn retry_after_seconds(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let retry_after_seconds = match refused.kind {
            ProblemKind::NoQuorum | ProblemKind::Busy => Some(RETRY_SECONDS),
            _ => None,
        };
        Self { refused, retry_after_seconds }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = status(self.refused.kind).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The outermost layer.
pub(crate) async fn carry(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let (id, wrong) = match wished(request.headers()) {
        Ok(wished) => (wished.unwrap_or_else(|| Uuid::now_v7().into()), None),
        Err(problem) => (Uuid::now_v7().into(), Some(problem)),
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match wrong {
        Some(problem) => problem.into_response(),
        None => {
            request.extensions_mut().insert(id.clone());
            next.run(request).await
        }
    };
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = problem.or_else(|| bare(&response).map(Problem::from)) {
        let Problem { refused, retry_after_seconds } = problem;
        app.service.metrics.refused(refused.kind);
        match refused.kind {
            ProblemKind::Internal => {
                tracing::error!(correlation_id = %id, %method, path, cause = refused.detail, "request failed");
            }
            kind => tracing::debug!(correlation_id = %id, %method, path, code = %kind, "request refused"),
        }
        response = document(refused, &id);
        if let Some(seconds) = retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
    let value = HeaderValue::from_str(id.as_str()).expect("a correlation id is made of visible ASCII");
    response.headers_mut().insert(CORRELATION, value);
    response
}

fn wished(headers: &HeaderMap) -> Result<Option<CorrelationId>, Problem> {
    let Some(value) = headers.get(CORRELATION) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| CorrelationId::new(text).ok());
    let detail = || format!("{CORRELATION_HEADER} must be {}", CorrelationId::RULE);
    id.map(Some).ok_or_else(|| Problem::new(ProblemKind::BadRequest, detail()))
}

/// What the router or an extractor of a library refused.
fn bare(response: &Response) -> Option<Refused> {
    let plain = response.headers().get(header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|text| text.to_ascii_lowercase().starts_with("text/plain"))
    });
    let status = response.status();
    let kind = match status {
        _ if !plain => return None,
        StatusCode::NOT_FOUND => ProblemKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ProblemKind::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemKind::TooLarge,
        status if status.is_client_error() => ProblemKind::BadRequest,
        status if status.is_server_error() => ProblemKind::Internal,
        _ => return None,
    };
    Some(Refused::new(kind, ""))
}

fn document(refused: Refused, id: &CorrelationId) -> Response {
    let Refused { kind, detail } = refused;
    let detail = (!detail.is_empty() && kind != ProblemKind::Internal).then_some(detail);
    let document = Document {
        problem_type: format!("/problems/{kind}"),
        title: title(kind).to_owned(),
        status: status(kind).as_u16(),
        detail,
        code: kind,
        correlation_id: id.clone(),
        valid_subscriptions: None,
        valid_message_types: None,
        current: None,
    };
    let body = serde_json::to_vec(&document).expect("a problem has only text as keys");
    let mut response = (status(kind), body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    if status(kind) == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn status(kind: ProblemKind) -> StatusCode {
    match kind {
        ProblemKind::Unauthorized
        | ProblemKind::InvalidCredentials
        | ProblemKind::InvalidRefreshToken
        | ProblemKind::RefreshReused => StatusCode::UNAUTHORIZED,
        ProblemKind::LoginThrottled => StatusCode::TOO_MANY_REQUESTS,
        ProblemKind::Forbidden => StatusCode::FORBIDDEN,
        ProblemKind::NotFound => StatusCode::NOT_FOUND,
        ProblemKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ProblemKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ProblemKind::IdempotencyConflict | ProblemKind::VersionConflict | ProblemKind::AlreadyExists => {
            StatusCode::CONFLICT
        }
        ProblemKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemKind::InvalidData | ProblemKind::StateFull => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemKind::NoQuorum | ProblemKind::Busy | ProblemKind::Draining => StatusCode::SERVICE_UNAVAILABLE,
        ProblemKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        // The others are a node's; a replica has no use for them.
        _ => StatusCode::BAD_REQUEST,
    }
}

fn title(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Unauthorized => "The cluster secret is needed",
        ProblemKind::InvalidCredentials => "Email or password is wrong",
        ProblemKind::InvalidRefreshToken => "The login has ended",
        ProblemKind::RefreshReused => "The refresh token was used before",
        ProblemKind::LoginThrottled => "Too many logins were tried",
        ProblemKind::Forbidden => "The request is for somebody else",
        ProblemKind::NotFound => "There is no such path or thing",
        ProblemKind::MethodNotAllowed => "The path has no such method",
        ProblemKind::RequestTimeout => "The request took too long to arrive",
        ProblemKind::IdempotencyConflict => "The idempotency key was used with another request",
        ProblemKind::VersionConflict => "It contradicts what there is just now",
        ProblemKind::AlreadyExists => "It exists already",
        ProblemKind::TooLarge => "The body is too large",
        ProblemKind::InvalidData => "The request makes no sense",
        ProblemKind::StateFull => "There are too many of these",
        ProblemKind::Busy => "Too many logins at once",
        ProblemKind::NoQuorum => "Too few control replicas answer",
        ProblemKind::Draining => "The replica is going away",
        ProblemKind::Internal => "The replica made a mistake",
        _ => "The request is malformed",
    }
}
