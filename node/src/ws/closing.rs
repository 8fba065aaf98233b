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
/// The same when the node has lost its share of a limit of the cluster. Control lends it again half a lease
/// later, 5 s; by then everybody has gone, whatever the timers cost.
pub(crate) const LINGER_LEASE_LOST: Duration = Duration::from_secs(3);
/// What is read and discarded meanwhile: more than both kernels' default buffers hold (4 MiB to send,
/// 6 MiB to receive), so that a peer which only reads after it has written gets there.
pub(crate) const DISCARD_BYTES_MAX: usize = 16 << 20;

/// Nothing that comes while closing is kept or too big, compressed or not; only a close frame matters.
const CAPS: Caps = Caps { soft: 0, hard: usize::MAX, deflate: true };

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::client::{CLOSE, TEXT, frame};

    const MASK: [u8; 4] = [1, 2, 3, 4];

    #[track_caller]
    fn check(cause: Cause, steps: &[(Event, Action)]) {
        let mut closing = Closing::new(cause);
        for (event, action) in steps {
            assert_eq!(closing.handle(*event), *action, "{event:?}");
        }
    }

    #[test]
    fn our_close_ends_with_the_answer() {
        check(
            Cause::Ours,
            &[
                (Event::Bytes(100), Action::KeepReading),
                (Event::CloseWritten, Action::ShutdownWrite),
                (Event::Bytes(100), Action::KeepReading),
                (Event::PeerClose, Action::Drop),
            ],
        );
    }

    #[test]
    fn the_peers_close_is_answered_and_its_end_awaited() {
        check(
            Cause::PeerClose,
            &[
                (Event::CloseWritten, Action::ShutdownWrite),
                (Event::Bytes(5), Action::KeepReading),
                (Event::Eof, Action::Drop),
            ],
        );
    }

    #[test]
    fn a_close_that_crosses_ours_is_no_proof_that_ours_arrived() {
        check(
            Cause::Ours,
            &[
                (Event::PeerClose, Action::KeepReading),
                (Event::CloseWritten, Action::ShutdownWrite),
                (Event::Eof, Action::Drop),
            ],
        );
    }

    #[test]
    fn a_peer_that_closed_one_direction_still_gets_our_frame() {
        check(Cause::Ours, &[(Event::Eof, Action::KeepReading), (Event::CloseWritten, Action::Drop)]);
    }

    #[test]
    fn neither_time_nor_bytes_go_on_for_ever() {
        check(Cause::Violation, &[(Event::DeadlinePassed, Action::Drop)]);
        check(
            Cause::Violation,
            &[
                (Event::CloseWritten, Action::ShutdownWrite),
                (Event::Bytes(DISCARD_BYTES_MAX), Action::KeepReading),
                (Event::Bytes(1), Action::Drop),
            ],
        );
    }

    #[test]
    fn the_peers_close_is_found_behind_what_it_was_still_sending() {
        let message = frame(TEXT, &[b'a'; 300], MASK);
        let (begun, rest) = message.split_at(100);
        let mut parser = Parser::new();
        let caps = Caps { soft: 1_000, hard: 4_000, deflate: false };
        assert_eq!(parser.next(&mut begun.to_vec().as_mut_slice(), &caps), Ok(None));

        let mut closing = Closing::new(Cause::Ours);
        assert_eq!(closing.handle(Event::CloseWritten), Action::ShutdownWrite);
        assert_eq!(closing.read(&mut parser, &mut rest.to_vec()), Action::KeepReading);
        let large = frame(TEXT, &vec![0xFF; 1 << 20], MASK);
        assert_eq!(closing.read(&mut parser, &mut large.clone()), Action::KeepReading);
        assert_eq!(parser.held_bytes(), 0);
        assert_eq!(closing.read(&mut parser, &mut frame(CLOSE, b"", MASK)), Action::Drop);
    }

    #[test]
    fn after_a_violation_nothing_is_understood_but_it_is_still_read() {
        let mut closing = Closing::new(Cause::Violation);
        let mut parser = Parser::new();
        assert_eq!(closing.handle(Event::CloseWritten), Action::ShutdownWrite);
        assert_eq!(closing.read(&mut parser, &mut frame(CLOSE, b"", MASK)), Action::KeepReading);
        let mut closing = Closing::new(Cause::Ours);
        assert_eq!(closing.handle(Event::CloseWritten), Action::ShutdownWrite);
        assert_eq!(closing.read(&mut parser, &mut [0xFF; 50]), Action::KeepReading);
        assert_eq!(closing.read(&mut parser, &mut frame(CLOSE, b"", MASK)), Action::KeepReading);
    }

    #[test]
    fn the_answer_repeats_the_code_or_is_as_empty_as_the_question() {
        assert_eq!(*answer(Some(1001)), *b"\x88\x02\x03\xE9");
        assert_eq!(*answer(None), *b"\x88\x00");
    }
}
