//! Every request has a correlation id, every response carries it, and every refusal is a problem document.
//!
//! [`layered`] makes it the outermost layer of the router. Handlers take the id with the [`Correlation`]
//! extractor.

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hiveops_proto::CorrelationId;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::path::CORRELATION_HEADER;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::problem::{ApiError, kind_of};
use crate::time::Clock;

/// `X-Correlation-ID` as the header map spells it.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-correlation-id");

/// The request's correlation id.
#[derive(Debug, Clone)]
pub(crate) struct Correlation(pub(crate) CorrelationId);

/// The middleware.
pub(crate) async fn carry(State(clock): State<Clock>, mut request: Request, next: Next) -> Response {
    let (id, refused) = match wished(request.headers()) {
        Ok(Some(id)) => (id, None),
        Ok(None) => (clock.correlation_id(), None),
        Err(error) => (clock.correlation_id(), Some(error)),
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = match refused {
        Some(error) => error.into_response(),
        None => {
            request.extensions_mut().insert(Correlation(id.clone()));
            next.run(request).await
        }
    };
    let mut response = explain(response, &id, &method, &path);
    let value = HeaderValue::from_str(id.as_str()).expect("a correlation id is made of visible ASCII");
    response.headers_mut().insert(HEADER, value);
    response
}

/// The id that the request brings.
fn wished(headers: &HeaderMap) -> Result<Option<CorrelationId>, ApiError> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| CorrelationId::new(text).ok());
    match id {
        Some(id) => Ok(Some(id)),
        None => {
            let detail = format!("{CORRELATION_HEADER} must be {}", CorrelationId::RULE);
            Err(ApiError::new(ProblemKind::BadRequest, detail))
        }
    }
}

/// Gives a refusal its document, whoever refused.
fn explain(mut response: Response, id: &CorrelationId, method: &Method, path: &str) -> Response {
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if is_bare(&response) => bare(&response),
        None => {
            let status = response.status().as_u16();
            tracing::debug!(correlation_id = %id, %method, path, status, "request served");
            return response;
        }
    };
    match error.kind() {
        ProblemKind::Internal => {
            let cause = error.cause().unwrap_or("unknown");
            tracing::error!(correlation_id = %id, %method, path, cause, "request failed");
        }
        kind => tracing::debug!(correlation_id = %id, %method, path, code = %kind, "request refused"),
    }
    let mut document = error.render(id);
    let own = document.headers().clone();
    for (name, value) in response.headers() {
        let describes_old_body = [header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name);
        // Several of one name, such as cookies, are all kept.
        if !describes_old_body && !own.contains_key(name) {
            document.headers_mut().append(name, value.clone());
        }
    }
    document
}

/// Whether the router, a layer or an extractor of a library refused: its body is plain text or nothing.
fn is_bare(response: &Response) -> bool {
    let status = response.status();
    let plain = response.headers().get(header::CONTENT_TYPE).is_none_or(|value| {
        value.to_str().is_ok_and(|text| text.to_ascii_lowercase().starts_with("text/plain"))
    });
    (status.is_client_error() || status.is_server_error()) && plain
}

/// The libraries' own texts may repeat what was sent, so they are not taken over.
fn bare(response: &Response) -> ApiError {
    ApiError::bare(kind_of(response.status()))
}

impl<S: Sync> FromRequestParts<S> for Correlation {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| ApiError::internal(&MissingLayer))
    }
}

/// The router was put together wrongly.
#[derive(Debug, thiserror::Error)]
#[error("the correlation layer is missing from this route")]
struct MissingLayer;

/// Puts the layer around a router: the last thing that is done to it.
pub(crate) fn layered(router: axum::Router, clock: Clock) -> axum::Router {
    router.layer(axum::middleware::from_fn_with_state(clock, carry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use hiveops_proto::http::Problem;
    use tower::ServiceExt;

    fn app() -> Router {
        let router = Router::new()
            .route("/id", get(|Correlation(id): Correlation| async move { id.to_string() }))
            .route("/full", get(|| async { ApiError::new(ProblemKind::StateFull, "full") }))
            .route("/own", get(|| async { (http::StatusCode::SERVICE_UNAVAILABLE, axum::Json("draining")) }))
            .route("/panic", get(panics))
            .layer(tower_http::catch_panic::CatchPanicLayer::new());
        layered(router, Clock::start())
    }

    async fn panics() -> &'static str {
        panic!("a bug")
    }

    async fn call(method: &str, path: &str, id: Option<&str>) -> (u16, HeaderMap, String) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(id) = id {
            request = request.header("X-Correlation-ID", id);
        }
        let response = app().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), 65_536).await.unwrap();
        (status, headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_valid_id_is_used_and_returned() {
        let (status, headers, body) = call("GET", "/id", Some("my:id-1")).await;
        assert_eq!((status, body.as_str()), (200, "my:id-1"));
        assert_eq!(headers[HEADER], "my:id-1");
    }

    #[tokio::test]
    async fn without_an_id_one_is_made() {
        let (_, headers, body) = call("GET", "/id", None).await;
        assert_eq!(headers[HEADER], body.as_str());
        assert_eq!(body.len(), 36);
    }

    #[tokio::test]
    async fn an_invalid_id_is_a_problem_with_a_made_one() {
        let (status, headers, body) = call("GET", "/id", Some("not an id")).await;
        let problem: Problem = serde_json::from_str(&body).unwrap();
        assert_eq!((status, problem.code), (400, ProblemKind::BadRequest));
        assert_eq!(headers[HEADER], problem.correlation_id.as_str());
        assert!(problem.detail.unwrap().contains("X-Correlation-ID must be"));
    }

    #[tokio::test]
    async fn every_refusal_is_a_problem_document_with_the_id_of_the_request() {
        for (method, path, status, code) in [
            ("GET", "/full", 422, ProblemKind::StateFull),
            ("GET", "/nowhere", 404, ProblemKind::NotFound),
            ("POST", "/id", 405, ProblemKind::MethodNotAllowed),
            ("GET", "/panic", 500, ProblemKind::Internal),
        ] {
            let (found, headers, body) = call(method, path, Some("c1")).await;
            let problem: Problem = serde_json::from_str(&body).unwrap();
            assert_eq!((found, problem.status, problem.code), (status, status, code), "{path}");
            assert_eq!(problem.correlation_id.as_str(), "c1");
            assert_eq!(headers[header::CONTENT_TYPE], super::super::problem::PROBLEM_JSON);
            assert_eq!(headers.contains_key(header::ALLOW), status == 405);
        }
    }

    #[tokio::test]
    async fn a_route_may_answer_an_error_status_with_a_body_of_its_own() {
        let (status, _, body) = call("GET", "/own", None).await;
        assert_eq!((status, body.as_str()), (503, "\"draining\""));
    }
}
