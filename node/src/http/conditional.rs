//! Versions as HTTP knows them: `ETag` on what is shown, `If-Match` on what is changed.

use axum::response::{IntoResponse, Response};
use hiveops_proto::http::ProblemKind;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::body::Json;
use super::problem::ApiError;

/// Of the digest that is a document's tag: enough that two do not meet.
const TAG_BYTES: usize = 16;

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

/// A document that changes now and then: whoever has it asks again with its `ETag`.
pub(crate) fn document(
    headers: &HeaderMap,
    media_type: &'static str,
    cache: HeaderValue,
    body: Vec<u8>,
) -> Response {
    let digest = Sha256::digest(&body);
    let tag: String = digest.iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("digits in quotes are visible ASCII");
    let cached = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, cache)];
    if knows(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, cached).into_response();
    }
    (cached, [(header::CONTENT_TYPE, media_type)], body).into_response()
}

/// Whether `If-None-Match` names the tag, in a list or by a star; for this a weak tag is as good as a strong one.
fn knows(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes())
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
    fn a_document_is_sent_again_only_to_who_does_not_have_it() {
        let show = |known: Option<&str>, body: &str| {
            let known = known.map(|text| (header::IF_NONE_MATCH, HeaderValue::from_str(text).unwrap()));
            let cache = HeaderValue::from_static("max-age=1");
            document(&HeaderMap::from_iter(known), "application/json", cache, body.as_bytes().to_vec())
        };
        let first = show(None, "{}");
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!((first.status(), tag.len()), (StatusCode::OK, 2 + 2 * TAG_BYTES));
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            assert_eq!(show(Some(&known), "{}").status(), StatusCode::NOT_MODIFIED, "{known}");
        }
        assert_eq!(show(Some(&tag), "[]").status(), StatusCode::OK);
    }

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
