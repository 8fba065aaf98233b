//! One WebSocket connection of the load: connects, shakes hands, waits for its first frames, then hands
//! every message to a receiver. It answers pings, so that the server keeps it. The swarm owns it and tells
//! it when its socket is ready; it knows of no other connection.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};

use hiveops_proto::SubscriptionSet;
use mio::net::TcpStream;
use serde::Deserialize;

use crate::clock::Clock;
use crate::failure::Failure;
use crate::inflate::Inflater;
use crate::peer::{Dialect, nats_greeting, nats_messages};
use crate::wire::{Opcode, client_frame, close_reason, next_frame};
use crate::{http, wire};

/// The largest frame that is read: a publication of the largest size that a server can be set to, with room.
pub(crate) const FRAME_MAX: usize = 2 * 1024 * 1024;

/// Bytes that may wait to be written: a few pongs. A server that pings and does not read is broken.
const OUTGOING_MAX: usize = 64 * 1024;

/// The frame after which a session is complete but for its snapshots.
const INITIALIZED: &str = "dashboard_initialized";

/// Gets the messages of every open connection.
pub(crate) trait Receiver {
    /// A text message arrived on `connection`; `at` is the clock just after it was read.
    fn message(&mut self, connection: usize, message: &[u8], at: u64);

    /// The session of `connection` is complete; `recovered` says that it goes on where it asked to.
    fn opened(&mut self, _connection: usize, _recovered: bool, _at: u64) {}
}

/// Drops what it gets.
pub(crate) struct Discard;

impl Receiver for Discard {
    fn message(&mut self, _connection: usize, _message: &[u8], _at: u64) {}
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// TCP is not yet established.
    Connecting,
    /// The handshake was sent.
    Upgrading,
    /// The handshake was answered; the first frames are on their way.
    Opening,
    /// The session is there.
    Open,
    /// We sent a close frame.
    Closing,
    /// It is over, one way or the other.
    Ended,
}

impl Stage {
    fn doing(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Upgrading => "waiting for the handshake's answer",
            Self::Opening => "waiting for dashboard_initialized",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Ended => "ended",
        }
    }
}

/// What every connection of a run asks for.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    /// The request.
    pub(crate) request: Vec<u8>,
    /// Subscriptions that the session must have joined.
    pub(crate) subscriptions: Vec<String>,
    dialect: Dialect,
}

impl Handshake {
    /// `headers` are whole lines.
    pub(crate) fn new(authority: &str, path: &str, headers: &str, subscriptions: Vec<String>) -> Self {
        // The key only has to be 16 bytes of base64: this client trusts the status and checks no digest.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bG9hZHRlc3Qtbm9uY2UtMQ==\r\n{headers}\r\n"
        );
        Self { request: request.into_bytes(), subscriptions, dialect: Dialect::Contract }
    }

    pub(crate) fn speaking(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }
}

/// The members of the first frames that matter here.
#[derive(Deserialize)]
struct FirstFrame {
    #[serde(rename = "type")]
    frame_type: String,
    #[serde(default)]
    subscriptions: SubscriptionSet,
    #[serde(default)]
    recovered: BTreeMap<String, bool>,
}

/// What all connections of a swarm read with.
pub(crate) struct Reading {
    /// Longer than [`FRAME_MAX`].
    pub(crate) scratch: Vec<u8>,
    pub(crate) inflater: Inflater,
    pub(crate) clock: Clock,
    /// Bytes that were read so far.
    pub(crate) bytes: u64,
}

/// One connection. The socket is closed when it ends.
pub(crate) struct Connection {
    socket: Option<TcpStream>,
    stage: Stage,
    /// The beginning of what has not arrived whole.
    partial: Vec<u8>,
    /// What the socket did not take yet.
    outgoing: Vec<u8>,
    /// How many bytes may still be read; no limit when there is none.
    allowance: Option<usize>,
    /// Whether the session went on where it asked to.
    recovered: bool,
    /// Whether the server may compress.
    deflate: bool,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket: Some(socket), stage: Stage::Connecting, ..Self::ended() }
    }

    /// One that never was, so that the numbers of the others stay.
    pub(crate) fn ended() -> Self {
        Self {
            socket: None,
            stage: Stage::Ended,
            partial: Vec::new(),
            outgoing: Vec::new(),
            allowance: None,
            recovered: false,
            deflate: false,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn recovered(&self) -> bool {
        self.recovered
    }

    /// What has arrived and was not read; without end for one that is over, so that nobody waits for it.
    pub(crate) fn unread_bytes(&self) -> io::Result<usize> {
        let Some(socket) = &self.socket else { return Ok(usize::MAX) };
        Ok(usize::try_from(rustix::io::ioctl_fionread(socket)?).unwrap_or(usize::MAX))
    }

    /// From now on, reads at most so many bytes more; without a number, all there is. What is there already
    /// makes no new notice, so that the caller reads after this.
    pub(crate) fn allow(&mut self, bytes: Option<usize>) {
        self.allowance = bytes;
    }

    /// Ends it at once, without a word to the server.
    pub(crate) fn end(&mut self) {
        *self = Self::ended();
    }

    /// Why it is not where it should be when time is up.
    pub(crate) fn overdue(&self) -> Failure {
        Failure::Deadline { while_doing: self.stage.doing() }
    }

    /// The socket takes bytes: goes on connecting, or writes what waits.
    pub(crate) fn writable(&mut self, handshake: &Handshake) -> Result<(), Failure> {
        if self.stage != Stage::Connecting {
            return self.flush();
        }
        let Some(socket) = &self.socket else { return Ok(()) };
        if let Ok(Some(error)) | Err(error) = socket.take_error() {
            return Err(Failure::socket("connecting", &error));
        }
        match socket.peer_addr() {
            Ok(_) => {
                self.stage = Stage::Upgrading;
                self.send(&handshake.request)
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            Err(error) => Err(Failure::socket("connecting", &error)),
        }
    }

    /// Begins a proper close.
    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        self.stage = Stage::Closing;
        self.send(&client_frame(Opcode::Close, &hiveops_proto::CloseCode::Normal.as_u16().to_be_bytes()))
    }

    /// Reads all there is and may be. `ending` says that the peer has closed its side, so that the end must be
    /// read as well. `deliver` gets each message and the clock just after the read that completed it.
    pub(crate) fn readable(
        &mut self,
        reading: &mut Reading,
        ending: bool,
        handshake: &Handshake,
        mut deliver: impl FnMut(&[u8], u64),
    ) -> Result<(), Failure> {
        let Reading { scratch, inflater, clock, bytes: total } = reading;
        loop {
            let Some(socket) = &mut self.socket else { return Ok(()) };
            let held = self.partial.len();
            scratch[..held].copy_from_slice(&self.partial);
            let end = self.allowance.map_or(scratch.len(), |bytes| scratch.len().min(held + bytes));
            if end == held {
                return Ok(());
            }
            let count = match socket.read(&mut scratch[held..end]) {
                Ok(0) => return self.ended_by_peer(),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if self.stage == Stage::Closing => return self.ended_by_peer(),
                Err(error) => return Err(Failure::socket("reading", &error)),
            };
            *total += count as u64;
            if let Some(allowance) = &mut self.allowance {
                *allowance -= count;
            }
            let full = held + count == end;
            let bytes = &scratch[..held + count];
            let at = clock.nanos();
            let used = self.take(bytes, handshake, inflater, &mut |message| deliver(message, at))?;
            self.keep(&bytes[used..]);
            // The notices are edge-triggered. A read that did not fill the buffer has emptied the socket,
            // and what comes later is a new edge; only the end may already be behind it.
            if !full && !ending {
                return Ok(());
            }
        }
    }

    fn ended_by_peer(&mut self) -> Result<(), Failure> {
        let stage = self.stage;
        self.end();
        match stage {
            Stage::Closing | Stage::Ended => Ok(()),
            stage => Err(Failure::Gone { while_doing: stage.doing() }),
        }
    }

    /// Keeps the beginning of a frame; an idle connection holds no memory.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
    }

    /// Takes every whole frame from `bytes`, and says how many bytes that were.
    fn take(
        &mut self,
        bytes: &[u8],
        handshake: &Handshake,
        inflater: &mut Inflater,
        deliver: &mut impl FnMut(&[u8]),
    ) -> Result<usize, Failure> {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            let Some((head, body_at)) = http::split_head(bytes) else {
                let endless = bytes.len() > http::HEAD_MAX;
                return if endless {
                    Err(Failure::Protocol("the handshake's answer does not end"))
                } else {
                    Ok(0)
                };
            };
            match http::status(head) {
                Some(101) if handshake.dialect == Dialect::Nchan => self.stage = Stage::Open,
                Some(101) => self.stage = Stage::Opening,
                Some(status) => return Err(Failure::Status(status)),
                None => return Err(Failure::Protocol("the handshake was not answered in HTTP")),
            }
            self.deflate = http::header(head, "sec-websocket-extensions")
                .is_some_and(|extensions| extensions.starts_with("permessage-deflate"));
            used = body_at;
        }
        while let Some((frame, length)) = next_frame(&bytes[used..], FRAME_MAX).map_err(Failure::Protocol)? {
            self.frame(frame, handshake, inflater, deliver)?;
            used += length;
            if self.stage == Stage::Ended {
                return Ok(bytes.len());
            }
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        frame: wire::Frame<'_>,
        handshake: &Handshake,
        inflater: &mut Inflater,
        deliver: &mut impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        match (frame.opcode, self.stage) {
            (Opcode::Text, Stage::Opening) => self.first_frame(frame.payload, handshake),
            (Opcode::Text, _) => {
                deliver(frame.payload);
                Ok(())
            }
            (Opcode::Deflated, _) if !self.deflate => {
                Err(Failure::Protocol("the peer compresses without having been asked"))
            }
            (Opcode::Deflated, stage) => {
                let text = inflater.text(frame.payload, FRAME_MAX).map_err(Failure::Protocol)?;
                if stage == Stage::Opening {
                    return self.first_frame(text, handshake);
                }
                deliver(text);
                Ok(())
            }
            (Opcode::Binary, stage) if handshake.dialect == Dialect::Nats => {
                if stage == Stage::Opening {
                    return self.first_nats_frame(frame.payload, handshake);
                }
                let whole = nats_messages(frame.payload, deliver);
                if whole { Ok(()) } else { Err(Failure::Protocol("a message of NATS came in pieces")) }
            }
            (Opcode::Binary, _) => Err(Failure::Protocol("the peer sent a binary frame")),
            (Opcode::Ping, _) => self.send(&client_frame(Opcode::Pong, frame.payload)),
            (Opcode::Pong, _) => Ok(()),
            (Opcode::Close, Stage::Closing) => {
                self.end();
                Ok(())
            }
            (Opcode::Close, _) => {
                let (code, reason) = close_reason(frame.payload);
                Err(Failure::Closed { code, reason })
            }
        }
    }

    /// `INFO` is answered with the subscriptions, and `PONG` says that they are there.
    fn first_nats_frame(&mut self, payload: &[u8], handshake: &Handshake) -> Result<(), Failure> {
        if payload.starts_with(b"INFO ") {
            let greeting = nats_greeting(&handshake.subscriptions);
            // The longest short frame has 125 bytes: a piece per frame, the protocol does not mind.
            for piece in greeting.as_bytes().chunks(125) {
                self.send(&client_frame(Opcode::Binary, piece))?;
            }
        }
        if payload.starts_with(b"-ERR") {
            return Err(Failure::Protocol("the NATS server refused the subscription"));
        }
        if payload.windows(4).any(|word| word == b"PONG") {
            self.stage = Stage::Open;
        }
        Ok(())
    }

    fn first_frame(&mut self, payload: &[u8], handshake: &Handshake) -> Result<(), Failure> {
        let frame: FirstFrame = serde_json::from_slice(payload)
            .map_err(|_| Failure::Protocol("one of the first frames is not a frame of the contract"))?;
        if frame.frame_type != INITIALIZED {
            return Ok(());
        }
        let missing = handshake.subscriptions.iter().find(|name| !frame.subscriptions.contains(name));
        match missing {
            Some(missing) => Err(Failure::NotJoined { missing: missing.clone() }),
            None => {
                self.stage = Stage::Open;
                self.recovered = !frame.recovered.is_empty() && frame.recovered.values().all(|whole| *whole);
                Ok(())
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.outgoing.len() + bytes.len() > OUTGOING_MAX {
            return Err(Failure::Protocol("the server does not read what it is sent"));
        }
        self.outgoing.extend_from_slice(bytes);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while !self.outgoing.is_empty() {
            match socket.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What the server said before it went is still to be read, and tells more.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(Failure::socket("writing", &error)),
            }
        }
        self.outgoing = Vec::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_waited_for_is_one_of_the_contract() {
        assert!(hiveops_proto::ServerFrame::FIXED_TYPES.contains(&INITIALIZED));
    }
}
