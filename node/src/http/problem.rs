//! Refusals of HTTP routes: the one place where a status is chosen, and where a problem document is made.
//!
//! Routes return an [`ApiError`]; it travels in the extensions of an empty response to the middleware in
//! `correlation`, which knows the request's correlation id and makes the document.

use axum::response::{IntoResponse, Response};
use hiveops_proto::http::{Problem, ProblemKind};
use hiveops_proto::{CorrelationId, MessageType, SubscriptionName};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::board::service::{self as board, Wanted};
use crate::bus::PublishError;
use crate::catalog::{Catalog, Invalid};
use crate::publisher::Refused;
use crate::telemetry::Chain;

/// The media type of RFC 9457.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// When a client should try again after the bus was not there, in seconds: about a probe's interval.
const BUS_RETRY_SECONDS: u32 = 1;

/// One refusal of an HTTP route. Boxed, because it travels in the `Err` of everything.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    kind: ProblemKind,
    detail: Option<String>,
    valid_subscriptions: Option<Vec<SubscriptionName>>,
    valid_message_types: Option<Vec<MessageType>>,
    current: Option<serde_json::Value>,
    headers: HeaderMap,
    /// For the log only: what is wrong on our side.
    cause: Option<String>,
}

impl ApiError {
    /// A refusal without a word about this request.
    pub(crate) fn bare(kind: ProblemKind) -> Self {
        Self(Box::new(Parts {
            kind,
            detail: None,
            valid_subscriptions: None,
            valid_message_types: None,
            current: None,
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let mut error = Self::bare(kind);
        error.0.detail = Some(detail.into());
        error
    }

    /// A bug of ours: the cause goes to the log, not to the client.
    pub(crate) fn internal(cause: &dyn std::error::Error) -> Self {
        let mut error = Self::bare(ProblemKind::Internal);
        error.0.cause = Some(Chain(cause).to_string());
        error
    }

    /// A publication was refused; wrong names are answered with the right ones.
    pub(crate) fn refused(refused: Refused, catalog: &Catalog) -> Self {
        let (subscriptions, message_types) = match &refused {
            Refused::Invalid(Invalid::Subscription(_)) => (Some(catalog.names().to_vec()), None),
            Refused::Invalid(Invalid::MessageType { subscription, .. }) => {
                (None, catalog.id(subscription.as_str()).map(|sub| catalog.message_types(sub)))
            }
            _ => (None, None),
        };
        let mut error = Self::from(refused);
        error.0.valid_subscriptions = subscriptions;
        error.0.valid_message_types = message_types;
        error
    }

    /// Shows the thing as it is now.
    #[must_use]
    pub(crate) fn with_current(mut self, current: serde_json::Value) -> Self {
        self.0.current = Some(current);
        self
    }

    /// Adds a header to the response, such as `WWW-Authenticate` or `Allow`.
    #[must_use]
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub(crate) fn retry_after_seconds(self, seconds: u32) -> Self {
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub(crate) fn kind(&self) -> ProblemKind {
        self.0.kind
    }

    /// What is wrong with the request, in words for its sender.
    #[cfg(test)]
    pub(crate) fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The response with its document.
    pub(crate) fn render(self, correlation_id: &CorrelationId) -> Response {
        let Parts { kind, detail, valid_subscriptions, valid_message_types, current, headers, cause: _ } =
            *self.0;
        let problem = Problem {
            problem_type: format!("/problems/{kind}"),
            title: title(kind).to_owned(),
            status: status(kind).as_u16(),
            detail,
            code: kind,
            correlation_id: correlation_id.clone(),
            valid_subscriptions,
            valid_message_types,
            current,
        };
        let body = serde_json::to_vec(&problem).expect("a problem has only text as keys");
        let mut response = (status(kind), headers, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = status(self.0.kind).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Invalid(Invalid::Subscription(_)) => Self::new(ProblemKind::UnknownSubscription, detail),
            Refused::Invalid(Invalid::MessageType { .. }) => {
                Self::new(ProblemKind::UnknownMessageType, detail)
            }
            Refused::Invalid(Invalid::Schema(_) | Invalid::Payload(_)) => {
                Self::new(ProblemKind::InvalidData, detail)
            }
            Refused::TooLarge { .. } => Self::new(ProblemKind::TooLarge, detail),
            Refused::Bus(error) => error.into(),
        }
    }
}

impl From<board::Error> for ApiError {
    fn from(error: board::Error) -> Self {
        let detail = error.to_string();
        match error {
            board::Error::NotFound { .. } => Self::new(ProblemKind::NotFound, detail),
            board::Error::Exists { current, .. } => {
                let mut error = Self::new(ProblemKind::AlreadyExists, detail);
                error.0.current = current.map(|current| *current);
                error
            }
            board::Error::OutOfBounds(_) => Self::new(ProblemKind::InvalidData, detail),
            board::Error::Version { by, current, .. } => {
                let kind = match by {
                    Wanted::Member => ProblemKind::VersionConflict,
                    Wanted::IfMatch => ProblemKind::PreconditionFailed,
                };
                Self::new(kind, detail).with_current(*current)
            }
            board::Error::Gone => Self::new(ProblemKind::IdempotencyConflict, detail),
            board::Error::Contended => Self::new(ProblemKind::VersionConflict, detail),
            board::Error::NotLoaded => {
                Self::new(ProblemKind::BusUnavailable, detail).retry_after_seconds(BUS_RETRY_SECONDS)
            }
            board::Error::Refused(refused) => refused.into(),
            board::Error::Encode(error) => Self::internal(&error),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        let detail = error.to_string();
        match error {
            PublishError::WrongExpected { .. } => Self::new(ProblemKind::VersionConflict, detail),
            PublishError::IdempotencyConflict { .. } => Self::new(ProblemKind::IdempotencyConflict, detail),
            PublishError::StateFull { .. } => Self::new(ProblemKind::StateFull, detail),
            PublishError::Timeout => {
                Self::new(ProblemKind::BusTimeout, format!("{detail}; it is safe to send this again"))
            }
            PublishError::Unavailable(_) => {
                Self::new(ProblemKind::BusUnavailable, detail).retry_after_seconds(BUS_RETRY_SECONDS)
            }
        }
    }
}

/// The status of a kind.
fn status(kind: ProblemKind) -> StatusCode {
    match kind {
        ProblemKind::BadRequest => StatusCode::BAD_REQUEST,
        ProblemKind::Unauthorized
        | ProblemKind::InvalidCredentials
        | ProblemKind::InvalidRefreshToken
        | ProblemKind::RefreshReused => StatusCode::UNAUTHORIZED,
        ProblemKind::LoginThrottled | ProblemKind::TooManyTickets => StatusCode::TOO_MANY_REQUESTS,
        ProblemKind::Forbidden => StatusCode::FORBIDDEN,
        ProblemKind::NotFound => StatusCode::NOT_FOUND,
        ProblemKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ProblemKind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ProblemKind::IdempotencyConflict | ProblemKind::VersionConflict | ProblemKind::AlreadyExists => {
            StatusCode::CONFLICT
        }
        ProblemKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ProblemKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ProblemKind::UnknownSubscription
        | ProblemKind::UnknownMessageType
        | ProblemKind::InvalidData
        | ProblemKind::StateFull => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemKind::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        ProblemKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ProblemKind::Overloaded
        | ProblemKind::Busy
        | ProblemKind::BusUnavailable
        | ProblemKind::ClusterPartial
        | ProblemKind::NoQuorum
        | ProblemKind::NoLeader
        | ProblemKind::ControlUnavailable
        | ProblemKind::Draining => StatusCode::SERVICE_UNAVAILABLE,
        ProblemKind::BusTimeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The kind behind a status that something below our routes chose: the router, a layer, an extractor.
pub(crate) fn kind_of(status: StatusCode) -> ProblemKind {
    match status {
        StatusCode::UNAUTHORIZED => ProblemKind::Unauthorized,
        StatusCode::FORBIDDEN => ProblemKind::Forbidden,
        StatusCode::NOT_FOUND => ProblemKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ProblemKind::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => ProblemKind::RequestTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemKind::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemKind::UnsupportedMediaType,
        StatusCode::TOO_MANY_REQUESTS => ProblemKind::LoginThrottled,
        StatusCode::UNPROCESSABLE_ENTITY => ProblemKind::InvalidData,
        StatusCode::UPGRADE_REQUIRED => ProblemKind::UpgradeRequired,
        StatusCode::SERVICE_UNAVAILABLE => ProblemKind::Overloaded,
        other if other.is_client_error() => ProblemKind::BadRequest,
        _ => ProblemKind::Internal,
    }
}

fn title(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::BadRequest => "The request is malformed",
        ProblemKind::NotFound => "There is no such path or thing",
        ProblemKind::MethodNotAllowed => "The path has no such method",
        ProblemKind::Unauthorized => "A valid credential is needed",
        ProblemKind::InvalidCredentials => "Email or password is wrong",
        ProblemKind::InvalidRefreshToken => "The login has ended",
        ProblemKind::RefreshReused => "The refresh token was used before",
        ProblemKind::LoginThrottled => "Too many logins were tried",
        ProblemKind::TooManyTickets => "Too many tickets are unused",
        ProblemKind::Forbidden => "The credential does not allow this",
        ProblemKind::UnknownSubscription => "Unknown subscription",
        ProblemKind::UnknownMessageType => "Unknown message type",
        ProblemKind::InvalidData => "The body does not fit the contract",
        ProblemKind::TooLarge => "The body is too large",
        ProblemKind::IdempotencyConflict => "The idempotency key was used with other data",
        ProblemKind::VersionConflict => "Somebody else changed it first",
        ProblemKind::PreconditionFailed => "It is not in the version that If-Match names",
        ProblemKind::AlreadyExists => "It exists already",
        ProblemKind::StateFull => "The subscription is full",
        ProblemKind::Overloaded => "The node is at its limit",
        ProblemKind::Busy => "Too many logins at once",
        ProblemKind::BusTimeout => "The bus did not answer in time",
        ProblemKind::BusUnavailable => "The bus is not available",
        ProblemKind::ClusterPartial => "Not every node of the cluster answered",
        ProblemKind::NoQuorum => "Too few control replicas answer",
        ProblemKind::NoLeader => "The control plane has no leader just now",
        ProblemKind::ControlUnavailable => "No control replica can be asked",
        ProblemKind::Draining => "The node is going away",
        ProblemKind::RequestTimeout => "The request took too long to arrive",
        ProblemKind::UpgradeRequired => "Only a WebSocket handshake is served here",
        ProblemKind::UnsupportedMediaType => "The body must be JSON",
        ProblemKind::Internal => "The node made a mistake",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Unavailable;

    #[test]
    fn a_bare_status_of_ours_leads_back_to_a_kind_of_the_same_status() {
        for kind in ProblemKind::ALL {
            let back = status(kind_of(status(*kind)));
            // Only the conflicts, 412 and 504 are never chosen below our routes.
            let chosen_by_us_only = matches!(status(*kind).as_u16(), 409 | 412 | 504);
            assert!(chosen_by_us_only || back == status(*kind), "{kind}");
        }
    }

    #[test]
    fn an_unavailable_bus_says_when_to_try_again() {
        let error = ApiError::from(PublishError::Unavailable(Unavailable { reason: "x".to_owned() }));
        let response = error.render(&CorrelationId::new("c1").unwrap());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let catalog = crate::board::testing::catalog();
        let refused = |subscription: &str, message_type: &str| {
            let data = hiveops_proto::Payload::parse("{}").unwrap();
            let invalid = catalog.check(subscription, message_type, &data).unwrap_err();
            ApiError::refused(invalid.into(), &catalog)
        };
        let error = refused("nope", "x");
        assert_eq!(error.kind(), ProblemKind::UnknownSubscription);
        assert_eq!(error.0.valid_subscriptions.as_deref(), Some(catalog.names()));
        let error = refused("tasks", "x");
        assert_eq!(error.kind(), ProblemKind::UnknownMessageType);
        let types: Vec<_> = error.0.valid_message_types.iter().flatten().map(MessageType::as_str).collect();
        assert_eq!(types, ["task_event", "task_update"]);
    }
}
