//! The WebSocket codec (RFC 6455): a strict parser and an encoder over bytes, the checks of the opening
//! handshake, and the machine of the closing one.
//!
//! The shard calls the parser, the encoder and the closing machine; the HTTP route calls the handshake.
//! Nothing here knows sockets, clocks or what a message means.

#[cfg(test)]
pub(crate) mod client;
pub(crate) mod closing;
mod control;
pub(crate) mod deflate;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod drive;
mod encode;
mod frame;
pub(crate) mod handshake;
mod message;
mod parser;

use std::borrow::Cow;

use hiveops_proto::DisconnectReason;

pub(crate) use deflate::{Coding, Inflater};
#[cfg(feature = "echo-endpoint")]
pub(crate) use encode::binary_frame;
pub(crate) use encode::{close_frame, empty_close_frame, ping_frame, pong_frame, text_frame};
pub(crate) use message::Kind;
pub(crate) use parser::Parser;

/// How large a message may be. Both come from the limits in force and may change between two calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caps {
    /// A larger message is read past without being kept, and reported as [`Incoming::TooLarge`].
    pub(crate) soft: usize,
    /// A frame or message over it is [`ProtocolError::TooBig`] as soon as a header says so.
    pub(crate) hard: usize,
    /// Whether messages may come compressed. The caps then hold for what they inflate to as well.
    pub(crate) deflate: bool,
}

/// What a client sent. The bytes are borrowed from the read buffer when the frame lay in it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    Text(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    /// At most 125 bytes, to be sent back in a pong.
    Ping(Cow<'a, [u8]>),
    Pong,
    /// A message that has yet to be inflated.
    Compressed {
        kind: Kind,
        payload: Cow<'a, [u8]>,
    },
    /// What follows it is not for the parser: the session is closing.
    Close {
        /// Always one that a peer may send; `None` when the frame was empty.
        code: Option<u16>,
        reason: Cow<'a, str>,
    },
    /// A message over the soft cap has been read past.
    TooLarge {
        kind: Kind,
        bytes: u64,
    },
}

/// Why the connection cannot go on. The parser is of no use afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("websocket protocol violated: {0}")]
    Protocol(&'static str),
    #[error("text that is not UTF-8")]
    InvalidUtf8,
    #[error("a frame or message over the hard size limit")]
    TooBig,
}

impl ProtocolError {
    /// Why the session ends, from which its close code follows.
    pub(crate) fn reason(self) -> DisconnectReason {
        match self {
            Self::Protocol(_) => DisconnectReason::ProtocolError,
            Self::InvalidUtf8 => DisconnectReason::InvalidUtf8,
            Self::TooBig => DisconnectReason::MessageTooBig,
        }
    }
}
