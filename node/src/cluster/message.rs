//! What nodes say to each other, and what of it is believed. Pure.
//!
//! Everything comes over the bus, which looks into nothing. Nodes of another version may say more than this
//! one knows: members that it does not know are passed over, what it cannot use is dropped.

use hiveops_proto::{ConnectionId, CorrelationId, NodeId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::books::NodeBooks;
use super::figures::NodeFigures;
use crate::bus::{SIGNAL_BYTES_MAX, Signal};
use crate::trace::NodeTrace;

/// Characters of an administrator's words that reach the client.
pub(crate) const REASON_CHARS_MAX: usize = 200;

/// Why something that came as a signal is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalDropped {
    /// It, or a part of it, is larger than what nodes say.
    Oversized,
    /// No node says such a thing.
    Malformed,
    /// A later version may say it.
    Unknown,
    /// It comes from one node too many.
    TooManyNodes,
    /// Too many questions wait for this node's answer.
    Overloaded,
}

impl SignalDropped {
    pub(crate) const ALL: [Self; 5] =
        [Self::Oversized, Self::Malformed, Self::Unknown, Self::TooManyNodes, Self::Overloaded];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::TooManyNodes => "too_many_nodes",
            Self::Overloaded => "overloaded",
        }
    }
}

/// One life of a node: two processes never have the same, whatever their node ids are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Incarnation(u64);

/// Who says something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Speaker {
    pub(crate) node_id: NodeId,
    pub(crate) incarnation: Incarnation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) from: Speaker,
    pub(super) say: Say,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Say {
    /// Renews the node's lease.
    Here(Here),
    /// Ends it.
    Leaving,
    /// To every other node.
    Ask(Ask),
    /// To one node; the others hear it because a bus tells everybody.
    Answer(Answer),
    /// A later version says something else.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Here {
    /// The node goes away; its sessions are still there.
    pub(super) draining: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask {
    /// The asker's own number for it.
    pub(super) id: u64,
    pub(super) what: Question,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Question {
    /// The node's figures.
    Stats,
    /// What became of publications on it.
    Audit,
    /// End a session, if it is there.
    Disconnect(Disconnect),
    /// Whether a name is free that the asker is about to give to a session.
    Claim { connection_id: ConnectionId },
    /// What became of whatever has this id.
    Trace { correlation_id: CorrelationId },
    #[serde(other)]
    Unknown,
}

/// An administrator's wish to end a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disconnect {
    pub(crate) connection_id: ConnectionId,
    /// Words for the client.
    pub(crate) reason: Option<String>,
    pub(crate) correlation_id: CorrelationId,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Whose question it is.
    pub(super) to: Incarnation,
    pub(super) id: u64,
    pub(super) reply: Reply,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Reply {
    Stats(Box<NodeFigures>),
    Audit(Box<NodeBooks>),
    Disconnect {
        /// Whether the session was there; it has been ended then.
        found: bool,
    },
    Claim {
        /// Whether the name is another session's.
        taken: bool,
    },
    Trace(Box<NodeTrace>),
    #[serde(other)]
    Unknown,
}

impl Incarnation {
    /// Another one each time.
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4().as_u64_pair().1)
    }

    #[cfg(test)]
    pub(super) const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// Not 16 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("incarnation must be 16 hexadecimal digits")]
pub(crate) struct NoIncarnation;

impl TryFrom<String> for Incarnation {
    type Error = NoIncarnation;
    fn try_from(text: String) -> Result<Self, NoIncarnation> {
        let digits = Some(text).filter(|text| text.len() == 16 && !text.starts_with('+'));
        digits.and_then(|text| u64::from_str_radix(&text, 16).ok()).map(Self).ok_or(NoIncarnation)
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        format!("{:016x}", incarnation.0)
    }
}

impl Message {
    /// The text for the bus.
    pub(super) fn write(&self) -> Signal {
        serde_json::to_string(self).expect("every key of a message is text").into()
    }

    /// Checks everything about a signal that can be checked without knowing who is there.
    pub(super) fn read(signal: &str) -> Result<Self, SignalDropped> {
        if signal.len() > SIGNAL_BYTES_MAX {
            return Err(SignalDropped::Oversized);
        }
        let message: Self = serde_json::from_str(signal).map_err(|_| SignalDropped::Malformed)?;
        match &message.say {
            Say::Unknown
            | Say::Ask(Ask { what: Question::Unknown, .. })
            | Say::Answer(Answer { reply: Reply::Unknown, .. }) => Err(SignalDropped::Unknown),
            Say::Ask(Ask { what: Question::Disconnect(Disconnect { reason: Some(words), .. }), .. })
                if words.chars().count() > REASON_CHARS_MAX =>
            {
                Err(SignalDropped::Oversized)
            }
            Say::Answer(Answer { reply: Reply::Stats(figures), .. }) if !figures.is_bounded() => {
                Err(SignalDropped::Oversized)
            }
            Say::Answer(Answer { reply: Reply::Trace(trace), .. }) if !trace.is_bounded() => {
                Err(SignalDropped::Oversized)
            }
            Say::Answer(Answer { reply: Reply::Audit(books), .. }) if !books.is_bounded() => {
                Err(SignalDropped::Oversized)
            }
            Say::Here(_) | Say::Leaving | Say::Ask(_) | Say::Answer(_) => Ok(message),
        }
    }
}

impl Reply {
    /// Whether no other answer can change what the asker does.
    pub(super) fn decides(&self) -> bool {
        match self {
            Self::Disconnect { found: yes } | Self::Claim { taken: yes } => *yes,
            Self::Stats(_) | Self::Trace(_) | Self::Audit(_) | Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::{books, figures, speaker};

    fn ask(what: Question) -> Message {
        Message { from: speaker("n1", 1), say: Say::Ask(Ask { id: 7, what }) }
    }

    fn trace() -> NodeTrace {
        NodeTrace::empty(hiveops_proto::Timestamp::from_millis(7))
    }

    fn check(text: &str, dropped: SignalDropped) {
        assert_eq!(Message::read(text).unwrap_err(), dropped, "{text:.200}");
    }

    #[test]
    fn what_is_written_is_read() {
        let disconnect = Disconnect {
            connection_id: ConnectionId::new("me").unwrap(),
            reason: Some("\u{1F41D}".repeat(REASON_CHARS_MAX)),
            correlation_id: CorrelationId::new("c-1").unwrap(),
        };
        let to = Incarnation::from_number(u64::MAX);
        let answer = |reply| Say::Answer(Answer { to, id: u64::MAX, reply });
        let from = speaker("n1", 1);
        for message in [
            Message { from: from.clone(), say: Say::Here(Here { draining: true }) },
            Message { from: from.clone(), say: Say::Leaving },
            ask(Question::Stats),
            ask(Question::Audit),
            ask(Question::Disconnect(disconnect)),
            ask(Question::Claim { connection_id: ConnectionId::new("me").unwrap() }),
            ask(Question::Trace { correlation_id: CorrelationId::new("c-1").unwrap() }),
            Message { from: from.clone(), say: answer(Reply::Trace(Box::new(trace()))) },
            Message { from: from.clone(), say: answer(Reply::Stats(Box::new(figures(3)))) },
            Message { from: from.clone(), say: answer(Reply::Audit(Box::new(books(-1)))) },
            Message { from: from.clone(), say: answer(Reply::Disconnect { found: true }) },
            Message { from, say: answer(Reply::Claim { taken: false }) },
        ] {
            assert_eq!(Message::read(&message.write()), Ok(message));
        }
    }

    #[test]
    fn a_message_looks_on_the_bus_as_other_versions_know_it() {
        let text = r#"{"from":{"node_id":"n1","incarnation":"0000000000000001"},"say":{"type":"ask","id":7,"what":{"kind":"claim","connection_id":"me"}}}"#;
        let claim = ask(Question::Claim { connection_id: ConnectionId::new("me").unwrap() });
        assert_eq!(&*claim.write(), text);
        let longer = text.replace(r#""id":7"#, r#""id":7,"later":[1]"#);
        assert_eq!(Message::read(&longer), Ok(claim));
    }

    #[test]
    fn what_cannot_be_used_is_dropped_for_a_reason() {
        let from = r#"{"from":{"node_id":"n1","incarnation":"0000000000000001"},"say":"#;
        for text in ["", "{}", "[]", "7", "{\"from\":1}"] {
            check(text, SignalDropped::Malformed);
        }
        check(&format!("{from}{{\"type\":\"here\"}}}}"), SignalDropped::Malformed);
        check(&from.replace("n1", "a b"), SignalDropped::Malformed);
        for incarnation in ["1", "+000000000000001", "000000000000000g"] {
            let text = format!("{from}{{\"type\":\"leaving\"}}}}").replace("0000000000000001", incarnation);
            check(&text, SignalDropped::Malformed);
        }
        check(&format!("{from}{{\"type\":\"sing\",\"song\":1}}}}"), SignalDropped::Unknown);
        check(
            &format!("{from}{{\"type\":\"ask\",\"id\":1,\"what\":{{\"kind\":\"x\"}}}}}}"),
            SignalDropped::Unknown,
        );
        check(&"x".repeat(SIGNAL_BYTES_MAX + 1), SignalDropped::Oversized);
        let disconnect = Disconnect {
            connection_id: ConnectionId::new("me").unwrap(),
            reason: Some("x".repeat(REASON_CHARS_MAX + 1)),
            correlation_id: CorrelationId::new("c-1").unwrap(),
        };
        check(&ask(Question::Disconnect(disconnect)).write(), SignalDropped::Oversized);
    }
}
