//! Why a connection failed, and which setting would help. The swarm counts equal ones together, so that a
//! thousand refusals are one line.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use hiveops_proto::{CloseCode, DisconnectReason};

/// The end of a connection that this tool did not want to end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// The kernel said no.
    Socket { doing: &'static str, error: String },
    /// The handshake was answered with something other than 101.
    Status(u16),
    /// The server closed the session.
    Closed { code: Option<u16>, reason: String },
    /// The connection ended without a close frame.
    Gone { while_doing: &'static str },
    /// The server sent what this client cannot measure.
    Protocol(&'static str),
    /// The session is not subscribed to what it asked for.
    NotJoined { missing: String },
    /// It took too long.
    Deadline { while_doing: &'static str },
}

impl Failure {
    pub(crate) fn socket(doing: &'static str, error: &io::Error) -> Self {
        Self::Socket { doing, error: error.to_string() }
    }

    /// What the person at the keyboard can do about it.
    fn advice(&self) -> Option<String> {
        match self {
            Self::Status(503) => Some(format!(
                "the server takes no more connections: raise {}, {} or {}, or its file limit (ulimit -n)",
                setting("max_connections_per_node"),
                setting("max_connections_per_address"),
                setting("handshake_rate_per_second"),
            )),
            Self::Status(401) => Some("the server wants a credential: --token-file".to_owned()),
            Self::Status(404) => Some("is this the path of a WebSocket route (--url)?".to_owned()),
            Self::Closed { code: Some(code), reason } => {
                CloseCode::from_u16(*code).and_then(|code| close_advice(code, reason))
            }
            Self::Socket { .. } | Self::Status(_) | Self::Closed { code: None, .. } | Self::Gone { .. } => {
                None
            }
            Self::Protocol(_) | Self::NotJoined { .. } => None,
            Self::Deadline { .. } => Some("more time: --timeout-seconds".to_owned()),
        }
    }
}

fn close_advice(code: CloseCode, reason: &str) -> Option<String> {
    match code {
        CloseCode::TryAgainLater if reason == DisconnectReason::Backpressure.as_str() => Some(format!(
            "this client did not read as fast as was published: lower the load, or raise {} and {}",
            setting("outbox_frames_max"),
            setting("outbox_bytes_max"),
        )),
        CloseCode::TryAgainLater => Some(format!("raise {}", setting("max_connections_total"))),
        CloseCode::Unauthorized => Some("the server wants a credential: --token-file".to_owned()),
        CloseCode::Forbidden => {
            Some(format!("if the reason is a limit, raise {}", setting("max_connections_per_user")))
        }
        CloseCode::Idle => Some(format!("raise {}", setting("idle_disconnect_seconds"))),
        CloseCode::Normal
        | CloseCode::GoingAway
        | CloseCode::Protocol
        | CloseCode::Unsupported
        | CloseCode::InvalidUtf8
        | CloseCode::Policy
        | CloseCode::TooBig
        | CloseCode::Internal
        | CloseCode::Restart => None,
    }
}

/// The environment name of a limit: the contract's rule.
fn setting(limit: &str) -> String {
    format!("WS_{}", limit.to_ascii_uppercase())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { doing, error } => write!(f, "{doing}: {error}")?,
            Self::Status(status) => write!(f, "handshake answered with HTTP {status}")?,
            Self::Closed { code: Some(code), reason } => write!(f, "closed by the server: {code} {reason}")?,
            Self::Closed { code: None, .. } => f.write_str("closed by the server without a code")?,
            Self::Gone { while_doing } => write!(f, "connection ended while {while_doing}")?,
            Self::Protocol(what) => f.write_str(what)?,
            Self::NotJoined { missing } => write!(f, "the server did not subscribe it to `{missing}`")?,
            Self::Deadline { while_doing } => write!(f, "deadline passed while {while_doing}")?,
        }
        match self.advice() {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

/// Failures by cause. The causes are few: what varies per connection is not part of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failures(BTreeMap<Failure, u64>);

impl Failures {
    /// Different causes that are kept apart; a server that sends random reasons is not our memory's problem.
    const CAUSES_MAX: usize = 32;

    pub(crate) fn add(&mut self, failure: Failure) {
        let full = self.0.len() >= Self::CAUSES_MAX && !self.0.contains_key(&failure);
        let cause = if full { Failure::Protocol("other causes") } else { failure };
        *self.0.entry(cause).or_default() += 1;
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// One line per cause, on the error stream.
    pub(crate) fn print(&self) {
        for (cause, count) in &self.0 {
            eprintln!("failed: {count} connections: {cause}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_is_advised_exists() {
        let failures = [
            Failure::Status(503),
            Failure::Closed { code: Some(1013), reason: "connection_limit".to_owned() },
            Failure::Closed { code: Some(1013), reason: "backpressure".to_owned() },
            Failure::Closed { code: Some(4403), reason: "connection_limit".to_owned() },
            Failure::Closed { code: Some(4408), reason: "idle_timeout".to_owned() },
        ];
        for failure in failures {
            let advice = failure.advice().unwrap();
            let words = advice.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let names: Vec<&str> = words.filter_map(|word| word.strip_prefix("WS_")).collect();
            assert!(!names.is_empty(), "{advice}");
            for name in names {
                assert!(hiveops_proto::Limits::spec(&name.to_lowercase()).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn equal_failures_are_one_line_and_the_kinds_are_bounded() {
        let mut failures = Failures::default();
        for code in 0..100 {
            failures.add(Failure::Status(503));
            failures.add(Failure::Closed { code: Some(code), reason: String::new() });
        }
        assert_eq!(failures.total(), 200);
        assert!(failures.0.len() <= Failures::CAUSES_MAX + 1);
    }
}
