//! What a message on a channel of publishers says. Pure. Nothing is refused here: whoever checks
//! publications counts the bad ones too.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::bus::{Incoming, IntakeSource};

pub(super) const SYSTEM_EVENTS: &str = "system_events";
pub(super) const PROJECT_INDEX: &str = "project_index:websocket_events";
/// A pattern: the agent's id follows.
pub(super) const AGENT_EVENTS: &str = "agent_events:*";

/// Bytes of a message that are kept. It is far more than any publication may have, so what is cut is
/// refused; it is not looked into.
const KEPT_MAX: usize = 1024 * 1024;

/// Where a message came from, and what that says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus::redis) enum Source {
    SystemEvents,
    AgentEvents,
    ProjectIndex,
    Envelopes { subscription: String },
}

/// The members of an object, as they are written.
type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

pub(super) fn read(source: &Source, mut payload: Vec<u8>) -> Incoming {
    payload.truncate(KEPT_MAX);
    let payload = Bytes::from(payload);
    let members = match payload.len() {
        KEPT_MAX.. => None,
        _ => serde_json::from_slice::<Members<'_>>(&payload).ok(),
    };
    let member = |name: &str| members.as_ref().and_then(|members| members.get(name).copied());
    let plain = |source, subscription: &str, message_type: &str| Incoming {
        source,
        subscription: subscription.to_owned(),
        message_type: message_type.to_owned(),
        payload: payload.clone(),
        correlation_id: member("correlation_id").map(text),
        traceparent: None,
        idempotency_key: None,
        settle: None,
    };
    match source {
        Source::SystemEvents => plain(IntakeSource::RedisSystemEvents, "system", "system_event"),
        Source::AgentEvents => plain(IntakeSource::RedisAgentEvents, "agents", "agent_event"),
        Source::ProjectIndex => {
            let outer = plain(IntakeSource::RedisProjectIndex, "project_index", "project_index_event");
            let Some(members) = &members else { return outer };
            // Without it there is no publication in the message, whatever else is.
            let Some(event) = members.get("event") else {
                return Incoming { payload: Bytes::from_static(b"null"), ..outer };
            };
            let inner = serde_json::from_str::<Members<'_>>(event.get()).ok();
            let correlation_id = inner.and_then(|inner| inner.get("correlation_id").copied().map(text));
            let payload = payload.slice_ref(event.get().as_bytes());
            Incoming { payload, correlation_id: correlation_id.or(outer.correlation_id), ..outer }
        }
        Source::Envelopes { subscription } => {
            let message_type = member("type").map(text).unwrap_or_default();
            let data = member("data").map(|data| payload.slice_ref(data.get().as_bytes()));
            Incoming {
                traceparent: member("traceparent").map(text),
                idempotency_key: member("idempotency_key").map(text),
                payload: data.unwrap_or_else(|| payload.clone()),
                ..plain(IntakeSource::RedisEnvelope, subscription, &message_type)
            }
        }
    }
}

/// A text as it reads, anything else as it is written.
fn text(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(source: &Source, text: &str) -> (String, String, String, Option<String>) {
        let incoming = read(source, text.as_bytes().to_vec());
        let payload = String::from_utf8(incoming.payload.to_vec()).unwrap();
        (incoming.subscription, incoming.message_type, payload, incoming.correlation_id)
    }

    fn expected(
        sub: &str,
        kind: &str,
        payload: &str,
        cause: Option<&str>,
    ) -> (String, String, String, Option<String>) {
        (sub.to_owned(), kind.to_owned(), payload.to_owned(), cause.map(str::to_owned))
    }

    #[test]
    fn plain_channels_carry_the_data_itself() {
        let text = r#"{"a": 1.50, "correlation_id": "c-1"}"#;
        let event = expected("system", "system_event", text, Some("c-1"));
        assert_eq!(parts(&Source::SystemEvents, text), event);
        assert_eq!(parts(&Source::AgentEvents, "{}"), expected("agents", "agent_event", "{}", None));
        let odd = r#"{"correlation_id": {"a":1}}"#;
        assert_eq!(parts(&Source::AgentEvents, odd).3.as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(parts(&Source::SystemEvents, "{").2, "{", "what is no JSON comes as it is");
    }

    #[test]
    fn project_index_carries_an_event() {
        let source = Source::ProjectIndex;
        let event = |payload, cause| expected("project_index", "project_index_event", payload, cause);
        let text = r#"{"event": {"x": [1]}, "correlation_id": "outer"}"#;
        assert_eq!(parts(&source, text), event(r#"{"x": [1]}"#, Some("outer")));
        let inner = r#"{"event":{"correlation_id":"inner"},"correlation_id":"outer"}"#;
        assert_eq!(parts(&source, inner).3.as_deref(), Some("inner"));
        assert_eq!(parts(&source, r#"{"x":1}"#), event("null", None));
        assert_eq!(parts(&source, "[1"), event("[1", None));
    }

    #[test]
    fn an_envelope_says_what_it_is() {
        let source = Source::Envelopes { subscription: "tasks".to_owned() };
        let text = r#"{"type":"task_update","data":{"id":"t\u0031"},"correlation_id":"c","traceparent":"00-1","idempotency_key":7}"#;
        assert_eq!(parts(&source, text), expected("tasks", "task_update", r#"{"id":"t\u0031"}"#, Some("c")));
        let incoming = read(&source, text.as_bytes().to_vec());
        assert_eq!(
            (incoming.traceparent.as_deref(), incoming.idempotency_key.as_deref()),
            (Some("00-1"), Some("7"))
        );
        assert_eq!(parts(&source, "[]"), expected("tasks", "", "[]", None));
    }

    #[test]
    fn what_is_far_too_long_is_cut_and_not_looked_into() {
        let long = format!(r#"{{"correlation_id":"c","x":"{}"}}"#, "x".repeat(KEPT_MAX));
        let incoming = read(&Source::SystemEvents, long.into_bytes());
        assert_eq!((incoming.payload.len(), incoming.correlation_id), (KEPT_MAX, None));
    }
}
