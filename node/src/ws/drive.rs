//! Runs a byte stream through the parser in given pieces and records what comes of it.
//!
//! For the tests and the fuzz target, which compare outcomes; nothing in the node calls it.

use std::borrow::Cow;

use super::{Caps, Incoming, Parser, ProtocolError};

/// What a stream comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) incoming: Vec<Incoming<'static>>,
    pub(crate) error: Option<ProtocolError>,
}

/// What parsing it held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) max_bytes: usize,
    pub(crate) last_bytes: usize,
}

/// Cuts `stream` by `piece_lens`, used over and over, and parses until the end or the first error. An
/// empty list or a zero leaves the rest in one piece.
pub(crate) fn drive(stream: &[u8], piece_lens: &[usize], caps: &Caps) -> (Outcome, Held) {
    let mut parser = Parser::new();
    let mut outcome = Outcome { incoming: Vec::new(), error: None };
    let mut held = Held::default();
    let mut rest = stream.to_vec();
    let mut rest = rest.as_mut_slice();
    let mut lens = piece_lens.iter().cycle();
    while !rest.is_empty() && outcome.error.is_none() {
        let len = lens.next().copied().filter(|&len| len > 0).unwrap_or(rest.len()).min(rest.len());
        let (mut piece, tail) = rest.split_at_mut(len);
        rest = tail;
        while outcome.error.is_none() {
            match parser.next(&mut piece, caps) {
                Ok(Some(incoming)) => outcome.incoming.push(owned(incoming)),
                Ok(None) => break,
                Err(error) => outcome.error = Some(error),
            }
            held.max_bytes = held.max_bytes.max(parser.held_bytes());
        }
        assert!(outcome.error.is_some() || piece.is_empty(), "a piece is always taken whole");
        held.last_bytes = parser.held_bytes();
        held.max_bytes = held.max_bytes.max(held.last_bytes);
    }
    (outcome, held)
}

fn owned(incoming: Incoming<'_>) -> Incoming<'static> {
    match incoming {
        Incoming::Text(text) => Incoming::Text(Cow::Owned(text.into_owned())),
        Incoming::Binary(bytes) => Incoming::Binary(Cow::Owned(bytes.into_owned())),
        Incoming::Ping(bytes) => Incoming::Ping(Cow::Owned(bytes.into_owned())),
        Incoming::Pong => Incoming::Pong,
        Incoming::Compressed { kind, payload } => {
            Incoming::Compressed { kind, payload: Cow::Owned(payload.into_owned()) }
        }
        Incoming::Close { code, reason } => Incoming::Close { code, reason: Cow::Owned(reason.into_owned()) },
        Incoming::TooLarge { kind, bytes } => Incoming::TooLarge { kind, bytes },
    }
}
