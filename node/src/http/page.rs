//! What the lists and the single things of the REST routes have in common.

use axum::response::AppendHeaders;
use hiveops_proto::Key;
use hiveops_proto::http::ProblemKind;
use http::HeaderName;
use http::header::{self, HeaderValue};
use serde::Serialize;

use super::problem::ApiError;

/// Entries of one page when the caller does not say.
const LIMIT_DEFAULT: usize = 100;

/// Entries of one page at most.
const LIMIT_MAX: usize = 500;

/// Answers a removal; the same object went to the subscribers.
#[derive(Serialize)]
pub(crate) struct Removed {
    id: Key,
    deleted: bool,
}

impl Removed {
    pub(crate) fn new(id: Key) -> Self {
        Self { id, deleted: true }
    }
}

pub(crate) fn limit(wanted: Option<usize>) -> Result<usize, ApiError> {
    match wanted.unwrap_or(LIMIT_DEFAULT) {
        limit if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
        _ => Err(ApiError::new(ProblemKind::BadRequest, format!("limit must be from 1 to {LIMIT_MAX}"))),
    }
}

/// Where the new thing is.
pub(crate) fn location(list: &str, id: &Key) -> AppendHeaders<Option<(HeaderName, HeaderValue)>> {
    let path = format!("{list}/{}", percent_encoded(id.as_str()));
    AppendHeaders(HeaderValue::from_str(&path).ok().map(|value| (header::LOCATION, value)))
}

/// A key may be any text; a path segment may not.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_becomes_one_path_segment() {
        assert_eq!(percent_encoded("a/b ä"), "a%2Fb%20%C3%A4");
        assert_eq!(percent_encoded("t-1.x:y_z~"), "t-1.x:y_z~");
    }
}
