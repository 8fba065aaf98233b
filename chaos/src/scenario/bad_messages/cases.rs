//! The messages, and what must become of each. Pure.

use crate::broker::Bus;

/// Bytes of the largest message.
const HUGE_BYTES: usize = 10 * 1_048_576;

const INVALID: &str = "hiveops_bus_invalid_total";
const TAKEN_IN: &str = "hiveops_bus_taken_in_total";
const BAD_ENTRIES: &str = "hiveops_bus_bad_entries_total";
const RECONNECTS: &str = "hiveops_bus_reconnects_total";

/// One message and its fate.
pub(super) struct Case {
    /// The subject or channel.
    pub(super) place: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) payload: Vec<u8>,
    /// Metric, a part of its labels, and by how much it grows, summed over the nodes.
    pub(super) counted: Vec<(&'static str, &'static str, Growth)>,
    pub(super) arrives: Option<Arrives>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Once: one node takes it.
    Once,
    /// Once in every node.
    Everywhere,
    /// In every node, and more often when it is sent again.
    Some,
}

/// What clients get of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrives {
    /// In the data.
    pub(super) mark: &'static str,
    pub(super) correlation: Correlation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Correlation {
    /// The publisher's.
    Is(&'static str),
    /// Made by the node: there was none.
    Made,
    /// Made by the node, with the publisher's beside it.
    Repaired(&'static str),
}

pub(super) fn cases(bus: Bus) -> Vec<Case> {
    match bus {
        Bus::Nats => nats(),
        Bus::Redis => redis(),
    }
}

/// Dropped, and counted once under this reason.
fn dropped(place: &'static str, message_type: &'static str, payload: &[u8], reason: &'static str) -> Case {
    let headers = if message_type.is_empty() { vec![] } else { vec![("Hiveops-Type", message_type)] };
    let counted = vec![(INVALID, reason, Growth::Once)];
    Case { place, headers, payload: payload.to_vec(), counted, arrives: None }
}

/// Published.
fn good(
    place: &'static str,
    headers: &[(&'static str, &'static str)],
    payload: &str,
    mark: &'static str,
    correlation: Correlation,
) -> Case {
    let mut counted = vec![(TAKEN_IN, "", Growth::Once)];
    if matches!(correlation, Correlation::Repaired(_)) {
        counted.push((INVALID, "correlation_id", Growth::Once));
    }
    let payload = payload.as_bytes().to_vec();
    Case { place, headers: headers.to_vec(), payload, counted, arrives: Some(Arrives { mark, correlation }) }
}

/// Written where only nodes write.
fn forged(place: &'static str, payload: &[u8], counted: (&'static str, Growth)) -> Case {
    let counted = vec![(counted.0, "", counted.1)];
    Case { place, headers: Vec::new(), payload: payload.to_vec(), counted, arrives: None }
}

fn huge() -> Vec<u8> {
    format!("{{\"pad\":\"{}\"}}", "x".repeat(HUGE_BYTES)).into_bytes()
}

fn nats() -> Vec<Case> {
    const TASKS: &str = "hiveops.default.in.tasks";
    const EVENT: &str = "task_event";
    const TYPE: (&str, &str) = ("Hiveops-Type", EVENT);
    const LOG: &str = "hiveops.default.u.tasks.task_event.~chaos";
    let everywhere = (BAD_ENTRIES, Growth::Everywhere);
    let foreign = br#"{"subscription":"agents","type":"agent_event","correlation_id":"x","timestamp":"2026-01-01T00:00:00Z","data":{}}"#;
    vec![
        dropped(TASKS, EVENT, b"{bad", "invalid_json"),
        dropped(TASKS, EVENT, b"[1,2]", "invalid_json"),
        dropped(TASKS, EVENT, b"", "invalid_json"),
        dropped(TASKS, EVENT, &[b'{', 0xff, 0xfe, b'}'], "invalid_json"),
        dropped("hiveops.default.in.alerts", "critical_alert", br#"{"alerts":"none"}"#, "schema"),
        dropped(TASKS, "task_update", br#"{"id":{"a":1}}"#, "schema"),
        dropped("hiveops.default.in.nope", EVENT, b"{}", "unknown_subscription"),
        dropped(TASKS, "nope_event", b"{}", "unknown_message_type"),
        dropped(TASKS, "", b"{}", "unknown_message_type"),
        dropped(TASKS, EVENT, &huge(), "too_large"),
        good(TASKS, &[TYPE], r#"{"mark":"no-id"}"#, "no-id", Correlation::Made),
        good(
            TASKS,
            &[TYPE, ("X-Correlation-ID", "a b")],
            r#"{"mark":"bad-id"}"#,
            "bad-id",
            Correlation::Repaired("a b"),
        ),
        good(TASKS, &[TYPE, ("X-Correlation-ID", "c-1")], r#"{"mark":"id"}"#, "id", Correlation::Is("c-1")),
        forged(LOG, b"{bad", everywhere),
        forged(LOG, b"", everywhere),
        forged(LOG, &huge(), everywhere),
        forged(LOG, foreign, everywhere),
        forged("hiveops.default.u.tasks.Odd", b"{}", everywhere),
        // No log has these: they are passed over.
        Case {
            counted: Vec::new(),
            ..forged("hiveops.default.l.tasks.task_event.~chaos", b"{bad", everywhere)
        },
        Case { counted: Vec::new(), ..forged("hiveops.default.n", b"{bad", everywhere) },
        Case { counted: Vec::new(), ..forged("hiveops.default.n", &huge(), everywhere) },
    ]
}

fn redis() -> Vec<Case> {
    const SYSTEM: &str = "system_events";
    const INDEX: &str = "project_index:websocket_events";
    const TASKS: &str = "hiveops:default:u:tasks";
    const LIVE: &str = "hiveops:{default:tasks}:live";
    let again = (RECONNECTS, Growth::Some);
    vec![
        dropped(SYSTEM, "", b"{bad", "invalid_json"),
        dropped(SYSTEM, "", b"[1,2]", "invalid_json"),
        dropped(SYSTEM, "", b"", "invalid_json"),
        dropped("agent_events:a1", "", b"{bad", "invalid_json"),
        dropped(INDEX, "", br#"{"x":1}"#, "invalid_json"),
        dropped(
            "hiveops:default:u:alerts",
            "",
            br#"{"type":"critical_alert","data":{"alerts":1}}"#,
            "schema",
        ),
        dropped(TASKS, "", br#"{"type":"task_update","data":{"id":{}}}"#, "schema"),
        dropped(TASKS, "", br#"{"type":"nope_event","data":{}}"#, "unknown_message_type"),
        dropped(TASKS, "", b"{}", "unknown_message_type"),
        dropped(SYSTEM, "", &huge(), "too_large"),
        good(SYSTEM, &[], r#"{"mark":"no-id"}"#, "no-id", Correlation::Made),
        good(
            SYSTEM,
            &[],
            r#"{"mark":"bad-id","correlation_id":"a b"}"#,
            "bad-id",
            Correlation::Repaired("a b"),
        ),
        good("agent_events:a1", &[], r#"{"mark":"id","correlation_id":"c-1"}"#, "id", Correlation::Is("c-1")),
        good(
            INDEX,
            &[],
            r#"{"event":{"mark":"index"},"correlation_id":"c-2"}"#,
            "index",
            Correlation::Is("c-2"),
        ),
        good(
            TASKS,
            &[],
            r#"{"type":"task_event","data":{"mark":"task"},"correlation_id":"c-3"}"#,
            "task",
            Correlation::Is("c-3"),
        ),
        // A node cannot know what it missed by it, and connects again.
        forged(LIVE, b"bad", again),
        forged(LIVE, b"S x y z", again),
        forged(LIVE, &huge(), again),
        Case { counted: Vec::new(), ..forged("hiveops:{default}:n", b"{bad", again) },
        Case { counted: Vec::new(), ..forged("hiveops:{default}:n", &huge(), again) },
    ]
}
