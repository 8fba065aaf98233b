//! The end of a connection, so that the peer really receives our close frame.
//!
//! Closing a socket with unread input makes the kernel send a reset, and a reset may overtake and discard
//! the close frame on its way to a peer that is still sending. So once our close frame is written we only
//! shut our direction, and go on reading and discarding, for a bounded time and amount, until the peer
//! has closed. The shard owns the socket and the timer; it tells this machine what happened and does what
//! it says.

use std::time::Duration;

use bytes::Bytes;

use super::{Caps, Incoming, Parser, close_frame, empty_close_frame};

/// How long a closing connection may stay, from the moment it begins to close. A peer that reads at all
/// has our frame by then.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(5);
/// What is read and discarded meanwhile: more than both kernels' default buffers hold (4 MiB to send,
/// 6 MiB to receive), so that a peer which only reads after it has written gets there.
pub(crate) const DISCARD_BYTES_MAX: usize = 16 << 20;

/// Nothing that comes while closing is kept or too big; only a close frame matters.
const CAPS: Caps = Caps { soft: 0, hard: usize::MAX };

/// What began the closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// We end the connection; the peer's answer is still to come.
    Ours,
    /// The peer's close frame arrived and is being answered.
    PeerClose,
    /// The peer broke the protocol, so that what follows cannot be understood.
    Violation,
}

/// What happened to a closing connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The last byte of our close frame was taken by the socket.
    CloseWritten,
    /// The peer's close frame arrived.
    PeerClose,
    /// So many bytes arrived and were discarded.
    Bytes(usize),
    /// The peer sends no more.
    Eof,
    /// [`LINGER_MAX`] is over.
    DeadlinePassed,
}

/// What the shard does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Go on: write what is left, read what comes.
    KeepReading,
    /// Shut down the sending direction of the socket, then go on reading.
    ShutdownWrite,
    /// Close the socket.
    Drop,
}

#[derive(Debug)]
pub(crate) struct Closing {
    close_written: bool,
    eof: bool,
    /// Whether the peer's close frame is worth looking for.
    listening: bool,
    discarded_bytes: usize,
}

impl Closing {
    pub(crate) fn new(cause: Cause) -> Self {
        let listening = match cause {
            Cause::Ours => true,
            Cause::PeerClose | Cause::Violation => false,
        };
        Self { close_written: false, eof: false, listening, discarded_bytes: 0 }
    }

    /// Looks for the peer's close frame in what was read, and discards it. `parser` is the connection's:
    /// the peer may have been in the middle of a message.
    pub(crate) fn read(&mut self, parser: &mut Parser, mut input: &mut [u8]) -> Action {
        let len = input.len();
        while self.listening {
            match parser.next(&mut input, &CAPS) {
                Ok(Some(Incoming::Close { .. })) => {
                    self.listening = false;
                    if self.handle(Event::PeerClose) == Action::Drop {
                        return Action::Drop;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => self.listening = false,
            }
        }
        self.handle(Event::Bytes(len))
    }

    pub(crate) fn handle(&mut self, event: Event) -> Action {
        match event {
            Event::CloseWritten => {
                self.close_written = true;
                if self.eof { Action::Drop } else { Action::ShutdownWrite }
            }
            // After our frame, it is the answer: the peer has read ours. Before, the two have crossed,
            // and the peer is told the end of our side like any other.
            Event::PeerClose if self.close_written => Action::Drop,
            Event::PeerClose => Action::KeepReading,
            Event::Bytes(len) => {
                self.discarded_bytes = self.discarded_bytes.saturating_add(len);
                if self.discarded_bytes > DISCARD_BYTES_MAX { Action::Drop } else { Action::KeepReading }
            }
            Event::Eof => {
                self.eof = true;
                // A peer that closed one direction may still read our frame in the other.
                if self.close_written { Action::Drop } else { Action::KeepReading }
            }
            Event::DeadlinePassed => Action::Drop,
        }
    }
}

/// The answer to a peer's close frame: its own code, or none where it gave none.
pub(crate) fn answer(code: Option<u16>) -> Bytes {
    match code {
        Some(code) => close_frame(code, ""),
        None => empty_close_frame(),
    }
}
