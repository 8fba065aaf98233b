//! What a client may send, and the words for what it may not.
//!
//! Parsing is by hand over a JSON object, not derived: every rejection must name the member that is
//! wrong, carry the client's own `correlation_id` when there is one, and keep the phrases that existing
//! clients match.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::code::ErrorCode;
use crate::id::CorrelationId;
use crate::position::{Position, Positions, SEQ_MAX};
use crate::subscription::SubscriptionName;

/// One message from a client to a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientFrame {
    /// Asks for a `pong`.
    Ping(Ping),
    /// Joins subscriptions.
    Subscribe(Subscribe),
    /// Leaves subscriptions.
    Unsubscribe(Unsubscribe),
    /// Asks for data computed from the live state.
    RequestData(RequestData),
    /// Renews the credential of the socket.
    AuthRefresh(AuthRefresh),
}

/// `ping`
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Ping {
    /// Comes back on the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
}

/// `subscribe`
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Subscribe {
    /// Comes back on the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// The names to join; they may be unknown, repeated and in any order.
    pub subscriptions: Vec<String>,
    /// Where the client stands in those that it wants continued.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub since: Positions,
}

/// `unsubscribe`
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Unsubscribe {
    /// Comes back on the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// The names to leave; those that are not joined are tolerated.
    pub subscriptions: Vec<String>,
}

/// `request_data`
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RequestData {
    /// Comes back on the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// What is asked for; it may be unknown.
    pub data_type: String,
    /// Narrows the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Map<String, Value>>,
    /// Comes back on the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// `auth_refresh`
#[derive(Clone, PartialEq, Serialize)]
pub struct AuthRefresh {
    /// Comes back on the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<CorrelationId>,
    /// The new credential.
    pub token: String,
}

/// By hand, so that no token ever reaches a log.
impl std::fmt::Debug for AuthRefresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthRefresh").field("correlation_id", &self.correlation_id).finish_non_exhaustive()
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// The client's own, when it could be read.
    pub correlation_id: Option<CorrelationId>,
}

/// A client's own request id is echoed, so it has a bound.
const REQUEST_ID_MAX: usize = 128;

/// How much of a client's text an error message repeats.
const ECHO_MAX: usize = 64;

impl ClientFrame {
    /// The types a client may send.
    pub const TYPES: &'static [&'static str] =
        &["ping", "subscribe", "unsubscribe", "request_data", "auth_refresh"];

    /// Reads one message.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let value: Value = serde_json::from_str(text).map_err(|_| Rejection {
            code: ErrorCode::InvalidJson,
            message: "Invalid JSON message format".to_owned(),
            correlation_id: None,
        })?;
        let Value::Object(members) = value else {
            return Err(invalid("the message must be a JSON object".to_owned(), None));
        };
        let correlation_id = match members.get("correlation_id") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let id = value.as_str().and_then(|text| CorrelationId::new(text).ok());
                Some(id.ok_or_else(|| {
                    invalid(format!("correlation_id must be {}", CorrelationId::RULE), None)
                })?)
            }
        };
        Self::from_members(members, correlation_id.clone()).map_err(|(code, message)| Rejection {
            code,
            message,
            correlation_id,
        })
    }

    fn from_members(
        mut members: Map<String, Value>,
        correlation_id: Option<CorrelationId>,
    ) -> Result<Self, (ErrorCode, String)> {
        let frame_type = required_text(&mut members, "type")?;
        Ok(match frame_type.as_str() {
            "ping" => Self::Ping(Ping { correlation_id }),
            "subscribe" => Self::Subscribe(Subscribe {
                correlation_id,
                subscriptions: names(&mut members)?,
                since: since(&mut members)?,
            }),
            "unsubscribe" => {
                Self::Unsubscribe(Unsubscribe { correlation_id, subscriptions: names(&mut members)? })
            }
            "request_data" => Self::RequestData(RequestData {
                correlation_id,
                data_type: required_text(&mut members, "data_type")?,
                params: params(&mut members)?,
                request_id: request_id(&mut members)?,
            }),
            "auth_refresh" => Self::AuthRefresh(AuthRefresh {
                correlation_id,
                token: required_text(&mut members, "token")?,
            }),
            other => {
                let message = format!("Unknown message type: {}", shorten(other));
                return Err((ErrorCode::UnknownMessageType, message));
            }
        })
    }

    /// The client's own correlation id.
    pub fn correlation_id(&self) -> Option<&CorrelationId> {
        match self {
            Self::Ping(frame) => frame.correlation_id.as_ref(),
            Self::Subscribe(frame) => frame.correlation_id.as_ref(),
            Self::Unsubscribe(frame) => frame.correlation_id.as_ref(),
            Self::RequestData(frame) => frame.correlation_id.as_ref(),
            Self::AuthRefresh(frame) => frame.correlation_id.as_ref(),
        }
    }
}

/// The first characters of a client's text, for an error message.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(ECHO_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn invalid(message: String, correlation_id: Option<CorrelationId>) -> Rejection {
    Rejection { code: ErrorCode::InvalidMessage, message, correlation_id }
}

fn wrong(member: &str, rule: &str) -> (ErrorCode, String) {
    (ErrorCode::InvalidMessage, format!("{member} must be {rule}"))
}

fn required_text(members: &mut Map<String, Value>, member: &str) -> Result<String, (ErrorCode, String)> {
    match members.remove(member) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(wrong(member, "a string")),
        None => Err((ErrorCode::InvalidMessage, format!("{member} is missing"))),
    }
}

fn names(members: &mut Map<String, Value>) -> Result<Vec<String>, (ErrorCode, String)> {
    const RULE: &str = "a list of names";
    let Some(value) = members.remove("subscriptions") else {
        return Err((ErrorCode::InvalidMessage, "subscriptions is missing".to_owned()));
    };
    let Value::Array(items) = value else { return Err(wrong("subscriptions", RULE)) };
    items
        .into_iter()
        .map(|item| match item {
            Value::String(name) => Ok(name),
            _ => Err(wrong("subscriptions", RULE)),
        })
        .collect()
}

fn since(members: &mut Map<String, Value>) -> Result<Positions, (ErrorCode, String)> {
    const RULE: &str = "an object of {epoch, seq} by subscription";
    match members.remove("since") {
        None | Some(Value::Null) => Ok(Positions::new()),
        Some(Value::Object(positions)) => positions
            .into_iter()
            // A position in something that is no subscription cannot be continued; the join itself says so.
            .filter_map(|(name, position)| Some((SubscriptionName::new(&name).ok()?, position)))
            .map(|(name, position)| match serde_json::from_value::<Position>(position) {
                Ok(position) if position.seq <= SEQ_MAX => Ok((name, position)),
                _ => Err(wrong("since", RULE)),
            })
            .collect(),
        Some(_) => Err(wrong("since", RULE)),
    }
}

fn params(members: &mut Map<String, Value>) -> Result<Option<Map<String, Value>>, (ErrorCode, String)> {
    match members.remove("params") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(params)) => Ok(Some(params)),
        Some(_) => Err(wrong("params", "an object")),
    }
}

fn request_id(members: &mut Map<String, Value>) -> Result<Option<String>, (ErrorCode, String)> {
    match members.remove("request_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) if id.len() <= REQUEST_ID_MAX => Ok(Some(id)),
        Some(_) => Err(wrong("request_id", "a string of at most 128 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(text: &str) -> Rejection {
        ClientFrame::parse(text).expect_err(text)
    }

    #[test]
    fn malformed_messages_keep_the_phrases_that_clients_match() {
        assert_eq!(rejected("{").message, "Invalid JSON message format");
        assert_eq!(rejected("{").code, ErrorCode::InvalidJson);
        let unknown = rejected(r#"{"type":"dance","correlation_id":"c1"}"#);
        assert_eq!(unknown.message, "Unknown message type: dance");
        assert_eq!(unknown.correlation_id.unwrap().as_str(), "c1");
        assert_eq!(rejected(&format!(r#"{{"type":"{}"}}"#, "x".repeat(65))).message.chars().count(), 22 + 65);
    }

    #[test]
    fn wrong_members_are_named() {
        for (text, message) in [
            ("[]", "the message must be a JSON object"),
            ("{}", "type is missing"),
            (r#"{"type":1}"#, "type must be a string"),
            (r#"{"type":"subscribe"}"#, "subscriptions is missing"),
            (r#"{"type":"subscribe","subscriptions":"tasks"}"#, "subscriptions must be a list of names"),
            (r#"{"type":"unsubscribe","subscriptions":[1]}"#, "subscriptions must be a list of names"),
            (
                r#"{"type":"subscribe","subscriptions":[],"since":{"tasks":{"epoch":"E","seq":1}}}"#,
                "since must be an object of {epoch, seq} by subscription",
            ),
            (r#"{"type":"request_data"}"#, "data_type is missing"),
            (r#"{"type":"request_data","data_type":"x","params":[]}"#, "params must be an object"),
            (r#"{"type":"auth_refresh"}"#, "token is missing"),
            (
                r#"{"type":"ping","correlation_id":"a b"}"#,
                "correlation_id must be 1 to 128 characters of A-Z a-z 0-9 . _ : -",
            ),
        ] {
            let rejection = rejected(text);
            assert_eq!(
                (rejection.code, rejection.message.as_str()),
                (ErrorCode::InvalidMessage, message),
                "{text}"
            );
        }
    }

    #[test]
    fn members_that_nobody_knows_are_ignored() {
        assert_eq!(ClientFrame::parse(r#"{"type":"ping","x":1}"#), Ok(ClientFrame::Ping(Ping::default())));
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let frame = ClientFrame::parse(r#"{"type":"auth_refresh","token":"s3cret"}"#).unwrap();
        assert!(!format!("{frame:?}").contains("s3cret"));
    }
}
