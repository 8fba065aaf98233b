//! The opening handshake (RFC 6455, section 4.2): whether a request may become a WebSocket, and the
//! values of the response.
//!
//! The HTTP route calls it before it upgrades; which status answers an error is decided there. It knows
//! nothing of credentials, but hands on the subprotocols that may carry one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hiveops_proto::path::SUBPROTOCOL;
use http::header::{
    AsHeaderName, CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Version};
use sha1::{Digest, Sha1};

/// The one version of the protocol, for the `Sec-WebSocket-Version` of a response that refuses another.
pub(crate) const VERSION: HeaderValue = HeaderValue::from_static("13");

/// RFC 6455, 1.3: what the key is joined with.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;
/// Ours and one with a credential are two; whatever comes after the eighth is not looked at.
const PROTOCOLS_MAX: usize = 8;

/// A request that may become a WebSocket.
pub(crate) struct Accepted {
    /// The value of `Sec-WebSocket-Accept`.
    pub(crate) accept: HeaderValue,
    /// The subprotocols that the client offers, in its order. One may be a credential.
    pub(crate) protocols: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("a websocket is opened with GET")]
    Method,
    #[error("a websocket is opened over HTTP/1.1")]
    HttpVersion,
    #[error("the header upgrade does not name websocket")]
    Upgrade,
    #[error("the header connection does not name upgrade")]
    Connection,
    /// To be answered 426 with [`VERSION`].
    #[error("the header sec-websocket-version is not 13")]
    UnsupportedVersion,
    #[error("the header sec-websocket-key is not 16 bytes in base64, exactly once")]
    Key,
}

impl Accepted {
    /// Checks the request.
    pub(crate) fn check(method: &Method, version: Version, headers: &HeaderMap) -> Result<Self, Error> {
        if method != Method::GET {
            return Err(Error::Method);
        }
        if version != Version::HTTP_11 {
            return Err(Error::HttpVersion);
        }
        if !elements(headers, UPGRADE).any(|element| element.eq_ignore_ascii_case("websocket")) {
            return Err(Error::Upgrade);
        }
        if !elements(headers, CONNECTION).any(|element| element.eq_ignore_ascii_case("upgrade")) {
            return Err(Error::Connection);
        }
        if only(headers, SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
            return Err(Error::UnsupportedVersion);
        }
        let key = only(headers, SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or(Error::Key)?;
        let protocols =
            elements(headers, SEC_WEBSOCKET_PROTOCOL).take(PROTOCOLS_MAX).map(str::to_owned).collect();
        Ok(Self { accept: accept_value(key), protocols })
    }

    /// The subprotocol to answer with: ours, when it was offered. A client that offers only others goes
    /// without; that a credential was among them does not make it the protocol.
    pub(crate) fn subprotocol(&self) -> Option<HeaderValue> {
        let offered = self.protocols.iter().any(|protocol| protocol == SUBPROTOCOL);
        offered.then_some(const { HeaderValue::from_static(SUBPROTOCOL) })
    }
}

/// Without the subprotocols: a credential does not belong in a log.
impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("accept", &self.accept).finish_non_exhaustive()
    }
}

/// The elements of a comma list, which may be spread over several lines. A line that is not visible ASCII
/// has none.
fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(name).into_iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

fn is_key(key: &HeaderValue) -> bool {
    let mut decoded = [0; KEY_BYTES + 2];
    STANDARD.decode_slice(key, &mut decoded).is_ok_and(|len| len == KEY_BYTES)
}

fn accept_value(key: &HeaderValue) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    HeaderValue::try_from(STANDARD.encode(digest)).expect("base64 is visible ASCII")
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    /// The request of RFC 6455, section 1.3.
    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (UPGRADE, "websocket"),
            (CONNECTION, "Upgrade"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (SEC_WEBSOCKET_PROTOCOL, "chat, superchat"),
            (SEC_WEBSOCKET_VERSION, "13"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn check(headers: &HeaderMap) -> Result<Accepted, Error> {
        Accepted::check(&Method::GET, Version::HTTP_11, headers)
    }

    #[track_caller]
    fn refused_with(name: HeaderName, values: &[&'static str], error: Error) {
        let mut headers = headers();
        headers.remove(&name);
        for value in values {
            headers.append(&name, HeaderValue::from_static(value));
        }
        assert_eq!(check(&headers).unwrap_err(), error, "{name}: {values:?}");
    }

    #[test]
    fn the_example_of_the_rfc() {
        let accepted = check(&headers()).unwrap();
        assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted.protocols, ["chat", "superchat"]);
        assert_eq!(accepted.subprotocol(), None);
    }

    #[test]
    fn lists_may_have_other_elements_other_case_and_several_lines() {
        let mut headers = headers();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive ,\tUPGRADE"));
        headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
        headers.append(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("hiveops.v1,, other"));
        let accepted = check(&headers).unwrap();
        assert_eq!(accepted.protocols, ["chat", "superchat", "hiveops.v1", "other"]);
        assert_eq!(accepted.subprotocol().unwrap(), SUBPROTOCOL);
    }

    #[test]
    fn only_get_over_http_1_1() {
        let refused = |method, version| Accepted::check(&method, version, &headers()).unwrap_err();
        assert_eq!(refused(Method::POST, Version::HTTP_11), Error::Method);
        assert_eq!(refused(Method::GET, Version::HTTP_10), Error::HttpVersion);
        assert_eq!(refused(Method::GET, Version::HTTP_2), Error::HttpVersion);
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused() {
        refused_with(UPGRADE, &[], Error::Upgrade);
        refused_with(UPGRADE, &["websockets"], Error::Upgrade);
        refused_with(CONNECTION, &[], Error::Connection);
        refused_with(CONNECTION, &["keep-alive"], Error::Connection);
        refused_with(SEC_WEBSOCKET_VERSION, &[], Error::UnsupportedVersion);
        refused_with(SEC_WEBSOCKET_VERSION, &["8"], Error::UnsupportedVersion);
        refused_with(SEC_WEBSOCKET_VERSION, &["13", "13"], Error::UnsupportedVersion);
        refused_with(SEC_WEBSOCKET_KEY, &[], Error::Key);
        refused_with(SEC_WEBSOCKET_KEY, &["dGhlIHNhbXBsZSBub25jZQ"], Error::Key);
        refused_with(SEC_WEBSOCKET_KEY, &["dGhlIHNhbXBsZSBub25jZTE="], Error::Key);
        refused_with(SEC_WEBSOCKET_KEY, &["dGhlIHNhbXBsZSBub25j"], Error::Key);
        refused_with(SEC_WEBSOCKET_KEY, &["not base64 but of 24 by."], Error::Key);
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        refused_with(SEC_WEBSOCKET_KEY, &[key, key], Error::Key);
    }

    #[test]
    fn the_offered_protocols_are_bounded_and_not_in_the_debug_form() {
        let mut headers = headers();
        for _ in 0..100 {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("token.abc"));
        }
        let accepted = check(&headers).unwrap();
        assert_eq!(accepted.protocols.len(), PROTOCOLS_MAX);
        assert!(!format!("{accepted:?}").contains("token"));
    }
}
