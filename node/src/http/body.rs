//! What a request brings: JSON bodies, path segments and queries, with refusals that say what is wrong.
//!
//! Used by the routes in place of axum's own extractors, whose refusals are plain text. Nothing here knows
//! what a body means.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use hiveops_proto::Payload;
use hiveops_proto::http::ProblemKind;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http_body_util::LengthLimitError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::ApiError;

/// The largest body that any route reads: a batch of a hundred tasks of ordinary size, or a publication of
/// the largest size that the limits allow, with white space.
pub(crate) const BODY_BYTES_MAX: usize = 2 * 1_048_576;

/// Characters of a parser's own words that are taken over.
const DETAIL_CHARS_MAX: usize = 300;

/// A JSON body, in and out.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON body that may be left out.
#[derive(Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

/// A JSON object, kept as its text.
#[derive(Debug)]
pub(crate) struct RawObject(pub(crate) Payload);

/// The parameters of the path.
#[derive(Debug)]
pub(crate) struct Path<T>(pub(crate) T);

/// The query.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&read(request).await?).map(Self)
    }
}

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read(request).await?;
        if body.is_empty() { Ok(Self(T::default())) } else { parse(&body).map(Self) }
    }
}

impl<S: Sync> FromRequest<S> for RawObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        use hiveops_proto::payload::InvalidPayload;
        let body = read(request).await?;
        let text = std::str::from_utf8(&body)
            .map_err(|_| ApiError::new(ProblemKind::BadRequest, "the body is not UTF-8"))?;
        match Payload::parse(text) {
            Ok(payload) => Ok(Self(payload)),
            Err(InvalidPayload::Syntax(error)) => Err(syntax(&error)),
            Err(error) => Err(ApiError::new(ProblemKind::InvalidData, error.to_string())),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::new(ProblemKind::BadRequest, cut(&rejection.body_text()))),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::new(ProblemKind::BadRequest, cut(&rejection.body_text()))),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], body).into_response()
            }
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

/// The whole body, when it may be JSON and is not too large.
async fn read(request: Request) -> Result<Bytes, ApiError> {
    if !may_be_json(request.headers()) {
        let detail = "content-type must be application/json";
        return Err(ApiError::new(ProblemKind::UnsupportedMediaType, detail));
    }
    axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|error| {
        let cause = std::error::Error::source(&error);
        if cause.is_some_and(|cause| cause.is::<LengthLimitError>()) {
            ApiError::new(ProblemKind::TooLarge, format!("the body may have {BODY_BYTES_MAX} bytes"))
        } else {
            ApiError::new(ProblemKind::BadRequest, "the body did not arrive whole")
        }
    })
}

/// A body whose sender does not say what it is, is taken as JSON: `curl -d` is told, a program need not.
fn may_be_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // First whether it is JSON at all: a parser that wants a word and finds a number calls that syntax too.
    serde_json::from_slice::<serde::de::IgnoredAny>(body).map_err(|error| syntax(&error))?;
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::new(ProblemKind::InvalidData, "the body must be a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        wrong_member(&path, &error.into_inner())
    })?;
    deserializer.end().map_err(|error| syntax(&error))?;
    Ok(value)
}

fn wrong_member(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let words = text.split(" at line ").next().unwrap_or_default();
    let detail = if path == "." { words.to_owned() } else { format!("{path}: {words}") };
    ApiError::new(ProblemKind::InvalidData, cut(&detail))
}

/// Where the text stops being JSON; what stands there may be a secret.
fn syntax(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    ApiError::new(ProblemKind::BadRequest, format!("the body is not JSON at line {line}, column {column}"))
}

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use hiveops_proto::board::{AgentHeartbeat, TaskBatch, TaskCreation};

    fn request(content_type: Option<&str>, body: impl Into<Body>) -> Request {
        let mut request = Request::builder().method("POST").uri("/");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        request.body(body.into()).unwrap()
    }

    async fn refusal<T: DeserializeOwned>(
        content_type: Option<&str>,
        body: impl Into<Body>,
    ) -> (ProblemKind, String) {
        let Err(error) = Json::<T>::from_request(request(content_type, body), &()).await else {
            panic!("was accepted")
        };
        (error.kind(), error.detail().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn json_that_is_not_an_object_or_has_a_wrong_member_is_invalid_data() {
        for body in [r#"["t1","a title"]"#, "7", r#""text""#, "null"] {
            let (kind, detail) = refusal::<TaskCreation>(None, body).await;
            assert_eq!((kind, detail.as_str()), (ProblemKind::InvalidData, "the body must be a JSON object"));
        }
        let (kind, detail) = refusal::<TaskCreation>(None, r#"{"title":"t","priority":7}"#).await;
        assert_eq!(kind, ProblemKind::InvalidData);
        assert!(detail.starts_with("priority: "), "{detail}");
        let (kind, _) = refusal::<TaskCreation>(None, "[1,").await;
        assert_eq!(kind, ProblemKind::BadRequest);
    }

    #[tokio::test]
    async fn a_content_type_other_than_json_is_refused_and_none_is_not() {
        for good in [None, Some("application/json; charset=utf-8"), Some("application/merge-patch+JSON")] {
            assert!(Json::<TaskCreation>::from_request(request(good, r#"{"title":"x"}"#), &()).await.is_ok());
        }
        let (kind, _) = refusal::<TaskCreation>(Some("text/plain"), "{}").await;
        assert_eq!(kind, ProblemKind::UnsupportedMediaType);
    }

    #[tokio::test]
    async fn bad_syntax_is_placed_and_not_repeated() {
        for bad in ["", "{\"title\": s3cret}", "{\"title\":\"x\"} s3cret", "{\"title\":\"x\\q\"}"] {
            let (kind, detail) = refusal::<TaskCreation>(None, bad).await;
            assert_eq!(kind, ProblemKind::BadRequest, "{bad}");
            assert!(detail.contains("at line 1, column") && !detail.contains("s3cret"), "{detail}");
        }
    }

    #[tokio::test]
    async fn a_wrong_member_is_named_with_its_path() {
        let batch = r#"{"operations":[{"op":"delete","correlation_id":"c","id":""}]}"#;
        let (kind, detail) = refusal::<TaskBatch>(None, batch).await;
        assert_eq!(kind, ProblemKind::InvalidData);
        assert!(detail.starts_with("operations[0]") && detail.contains("key must be"), "{detail}");
        let (_, detail) = refusal::<TaskCreation>(None, r#"{"title":7}"#).await;
        assert!(detail.starts_with("title: invalid type"), "{detail}");
        let (_, detail) = refusal::<TaskCreation>(None, r#"{"titel":"x"}"#).await;
        assert!(detail.contains("unknown field `titel`"), "{detail}");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_too_large_before_it_is_parsed() {
        let (kind, _) = refusal::<TaskCreation>(None, " ".repeat(BODY_BYTES_MAX + 1)).await;
        assert_eq!(kind, ProblemKind::TooLarge);
    }

    #[tokio::test]
    async fn an_optional_body_may_be_left_out() {
        let beat = OptionalJson::<AgentHeartbeat>::from_request(request(None, ""), &()).await.unwrap();
        assert_eq!(beat.0, AgentHeartbeat::default());
    }

    #[tokio::test]
    async fn a_raw_object_keeps_its_text_and_refuses_everything_else() {
        let RawObject(payload) =
            RawObject::from_request(request(None, r#" {"n":1.50} "#), &()).await.unwrap();
        assert_eq!(payload.as_str(), r#"{"n":1.50}"#);
        let refused = |body: &'static str| async move {
            RawObject::from_request(request(None, body), &()).await.unwrap_err().kind()
        };
        assert_eq!(refused("[1]").await, ProblemKind::InvalidData);
        assert_eq!(refused("{").await, ProblemKind::BadRequest);
    }
}
