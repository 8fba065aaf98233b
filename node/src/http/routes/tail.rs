//! `GET /`: a plain page that tails the socket, until the mobile app takes its place, and the files it
//! is made of under `/tail/`.
//!
//! Everything is in the binary and nothing comes from elsewhere, so the policy can be strict: no inline
//! script or style, no other host, and (Trusted Types) no text from a publication that becomes markup.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use hiveops_proto::http::ProblemKind;
use http::HeaderMap;
use http::header::{self, HeaderValue};

use crate::http::problem::ApiError;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const PAGE: &str = include_str!("../../../assets/tail.html");

/// The page's own files: name, media type, text.
const FILES: [(&str, &str, &str); 8] = [
    ("continuity.mjs", SCRIPT, include_str!("../../../assets/continuity.mjs")),
    ("dom.mjs", SCRIPT, include_str!("../../../assets/dom.mjs")),
    ("feed.mjs", SCRIPT, include_str!("../../../assets/feed.mjs")),
    ("log.mjs", SCRIPT, include_str!("../../../assets/log.mjs")),
    ("panels.mjs", SCRIPT, include_str!("../../../assets/panels.mjs")),
    ("reconnect.mjs", SCRIPT, include_str!("../../../assets/reconnect.mjs")),
    ("tail.css", CSS, include_str!("../../../assets/tail.css")),
    ("tail.mjs", SCRIPT, include_str!("../../../assets/tail.mjs")),
];

/// The one image is the icon in the page itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'; connect-src 'self'";

pub(crate) async fn show(headers: HeaderMap) -> Response {
    let mut response = answer(HTML, PAGE);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy(&headers));
    response
}

/// Not every browser takes `'self'` to cover the WebSocket of the same host, so that is named as well.
fn policy(headers: &HeaderMap) -> HeaderValue {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    let named = host.filter(|host| !host.is_empty() && host.bytes().all(plain));
    let named = named.and_then(|host| format!("{POLICY} ws://{host} wss://{host}").parse().ok());
    named.unwrap_or(const { HeaderValue::from_static(POLICY) })
}

pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(file, ..)| *file == name);
    let (_, media_type, text) =
        found.ok_or_else(|| ApiError::new(ProblemKind::NotFound, "the page has no such file"))?;
    Ok(answer(media_type, text))
}

/// A new binary brings new files under the same names, so nobody may keep them unasked.
fn answer(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, text).into_response()
}
