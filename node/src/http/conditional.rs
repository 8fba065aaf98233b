//! Versions as HTTP knows them: `ETag` on what is shown, `If-Match` on what is changed.

use axum::response::{IntoResponse, Response};
use hiveops_proto::http::ProblemKind;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::body::Json;
use super::problem::ApiError;

/// A thing with its version as `ETag`.
pub(crate) fn tagged<T: Serialize>(status: StatusCode, version: u64, value: T) -> Response {
    let mut response = (status, Json(value)).into_response();
    response.headers_mut().insert(header::ETAG, tag(version));
    response
}

/// A thing that was asked for, or nothing when the caller has this version already.
pub(crate) fn fresh<T: Serialize>(headers: &HeaderMap, version: u64, value: T) -> Response {
    let tag = tag(version);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|value| *value == tag);
    if known {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    tagged(StatusCode::OK, version, value)
}

/// The version that `If-Match` names; `*` asks for any.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match quoted.and_then(|digits| digits.parse().ok()) {
        Some(version) => Ok(Some(version)),
        None => Err(ApiError::new(ProblemKind::BadRequest, "If-Match must be one ETag such as \"3\", or *")),
    }
}

fn tag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits in quotes are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_one_strong_tag_or_a_star() {
        let read = |text: &'static str| {
            if_match(&HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(text))]))
        };
        assert_eq!(read("\"3\"").unwrap(), Some(3));
        assert_eq!(read("*").unwrap(), None);
        assert_eq!(if_match(&HeaderMap::new()).unwrap(), None);
        for bad in ["3", "W/\"3\"", "\"x\"", "\"1\", \"2\""] {
            assert!(read(bad).is_err(), "{bad} was accepted");
        }
    }
}
