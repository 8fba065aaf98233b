//! Bytes between the sockets and the pure parts.

use std::io::ErrorKind;
use std::time::Instant;

use hiveops_proto::{DisconnectReason, SubscriptionName};
use mio::event::Event as Readiness;

use super::Shard;
use super::env::Env;
use super::local::Reckoning;
use crate::hub::connection::{Connection, Role};
use crate::hub::frame::SealedFrame;
use crate::hub::outbox::{Item, Omission, Room};
use crate::session::{Ending, Event, Session};
use crate::ws::closing::{self, Cause};
use crate::ws::{self, Caps, Incoming, Inflater, ProtocolError};
use hiveops_proto::frame::Coalesced;

/// Reads of one socket per turn: a peer that sends without end waits for the others.
const READS_PER_TURN: usize = 4;

/// Largest message of the echo endpoint: the conformance suite sends 16 MiB.
#[cfg(feature = "echo-endpoint")]
const ECHO_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one message from a peer leads to, beyond what its session decides.
enum Step {
    Nothing,
    Pong(Vec<u8>),
    /// The peer closes.
    PeerClose(Option<u16>),
    #[cfg(feature = "echo-endpoint")]
    Echo(bytes::Bytes),
}

impl Shard {
    pub(super) fn on_ready(&mut self, event: &Readiness) {
        let key = event.token().0 as u32;
        if event.is_writable() {
            self.on_writable(key);
        }
        let at_end = event.is_read_closed() || event.is_error();
        if event.is_readable() || at_end {
            self.read(key, at_end);
        }
    }

    fn on_writable(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        match connection.socket.flush() {
            Ok(()) => self.flush(key),
            Err(_) => self.doom(key, DisconnectReason::ClientGone),
        }
    }

    /// What TLS has taken from a socket before it came here is no readiness of it.
    pub(super) fn read_taken(&mut self, key: u32) {
        if self.connections.get(key as usize).is_some_and(|connection| !connection.socket.gives_all()) {
            self.read(key, true);
        }
    }

    /// Goes on with the sockets that had more than one turn takes.
    pub(super) fn read_again(&mut self) {
        for key in std::mem::take(&mut self.again) {
            if let Some(connection) = self.connections.get_mut(key as usize) {
                connection.again = false;
            }
            // Whether the peer had ended was said with a readiness that has been used up.
            self.read(key, true);
        }
    }

    /// Reads what is there. `at_end` says that the peer may have ended: its end is no further readiness
    /// when it came together with the last bytes, so it must be read for.
    fn read(&mut self, key: u32, at_end: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for turn in 0..=READS_PER_TURN {
            let Some(connection) = self.connections.get_mut(key as usize) else { break };
            if connection.gone.is_some() {
                break;
            }
            if turn == READS_PER_TURN {
                // Once, however often it is read meanwhile, or it would get more and more turns.
                if !std::mem::replace(&mut connection.again, true) {
                    self.again.push(key);
                }
                break;
            }
            match connection.socket.read(&mut buffer) {
                Ok(0) => {
                    self.on_eof(key);
                    break;
                }
                Ok(count) => {
                    self.local.bytes_received.inc_by(count as u64);
                    self.consume(key, &mut buffer[..count]);
                    // Less than the buffer holds: what comes next is another readiness.
                    let gives_all = |it: &Connection| it.socket.gives_all();
                    let all = self.connections.get(key as usize).is_some_and(gives_all);
                    if count < buffer.len() && !at_end && all {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.on_socket_error(key, &error);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// The socket is of no use any more; only TLS finds something to be invalid, and says so to who writes as well.
    fn on_socket_error(&mut self, key: u32, error: &std::io::Error) {
        let reason = match error.kind() {
            ErrorKind::InvalidData => DisconnectReason::ProtocolError,
            _ => DisconnectReason::ClientGone,
        };
        if reason == DisconnectReason::ProtocolError
            && let Some(session) = self.connections.get_mut(key as usize).and_then(Connection::session)
        {
            tracing::info!(connection_id = %session.connection_id(), error = %error, "peer broke tls");
        }
        self.doom(key, reason);
    }

    fn on_eof(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        match &mut connection.role {
            Role::Closing(closing) => {
                let action = closing.handle(closing::Event::Eof);
                self.obey(key, action);
            }
            _ => self.doom(key, DisconnectReason::ClientGone),
        }
    }

    /// Takes bytes that were read before the socket came here.
    pub(super) fn consume_bytes(&mut self, key: u32, read: &[u8]) {
        if !read.is_empty() {
            self.local.bytes_received.inc_by(read.len() as u64);
            let mut copy = read.to_vec();
            self.consume(key, &mut copy);
        }
    }

    fn consume(&mut self, key: u32, bytes: &mut [u8]) {
        let mut input = bytes;
        loop {
            let Some(connection) = self.connections.get_mut(key as usize) else { return };
            if connection.gone.is_some() {
                return;
            }
            let Connection { parser, role, coding, .. } = connection;
            if let Role::Closing(closing) = role {
                let action = closing.read(parser, input);
                return self.obey(key, action);
            }
            let caps = caps(role, *coding, &self.control.limits);
            match parser.next(&mut input, &caps) {
                Ok(None) => return,
                Ok(Some(Incoming::Compressed { kind, payload })) => {
                    self.on_compressed(key, kind, &payload, &caps);
                }
                Ok(Some(incoming)) => self.on_incoming(key, incoming),
                Err(error) => self.on_violation(key, error),
            }
        }
    }

    /// A message of a few bytes may inflate to as much as the hard cap; one that is to be dropped for its
    /// rate is not inflated at all.
    fn on_compressed(&mut self, key: u32, kind: ws::Kind, payload: &[u8], caps: &Caps) {
        let now = self.now();
        let session = self.connections.get_mut(key as usize).and_then(Connection::session);
        if session.is_some_and(|session| session.is_over_rate(&self.control.limits, now)) {
            return self.on_incoming(key, Incoming::TooLarge { kind, bytes: payload.len() as u64 });
        }
        let mut inflater = self.inflater.take().unwrap_or_else(|| Box::new(Inflater::new()));
        match inflater.message(kind, payload, caps) {
            Ok(incoming) => self.on_incoming(key, incoming),
            Err(error) => self.on_violation(key, error),
        }
        self.inflater = Some(inflater);
    }

    fn on_incoming(&mut self, key: u32, incoming: Incoming<'_>) {
        let mut actions = Vec::new();
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.tell_sent();
        let Connection { role, pending, .. } = connection;
        let env = Env::of(&self.shared, (&self.control, &self.catalog), &self.views, pending.as_deref());
        let step = match role {
            Role::Session(session) => {
                match &incoming {
                    Incoming::Text(text) => {
                        self.local.received.inc();
                        self.local.bytes_in.observe(text.len() as f64);
                    }
                    Incoming::TooLarge { bytes, .. } => {
                        self.local.received.inc();
                        self.local.bytes_in.observe(*bytes as f64);
                    }
                    Incoming::Binary(_)
                    | Incoming::Compressed { .. }
                    | Incoming::Ping(_)
                    | Incoming::Pong
                    | Incoming::Close { .. } => {}
                }
                session_step(session, incoming, &env, &mut actions)
            }
            Role::Closing(..) => Step::Nothing,
            #[cfg(feature = "echo-endpoint")]
            Role::Echo => echo_step(incoming, connection.coding),
        };
        match step {
            Step::Nothing => self.apply(key, actions, None),
            Step::Pong(payload) => self.apply(key, actions, Some(&payload)),
            Step::PeerClose(code) => {
                self.close_with(key, DisconnectReason::ClientClosed, closing::answer(code), Cause::PeerClose);
            }
            #[cfg(feature = "echo-endpoint")]
            Step::Echo(frame) => {
                self.send_echo(key, frame);
            }
        }
    }

    #[cfg(feature = "echo-endpoint")]
    fn send_echo(&mut self, key: u32, frame: bytes::Bytes) {
        let now = self.now();
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.pending().outbox.push_close(frame, now);
        }
        self.flush(key);
    }

    fn on_violation(&mut self, key: u32, error: ProtocolError) {
        let reason = error.reason();
        if let Some(session) = self.connections.get_mut(key as usize).and_then(Connection::session) {
            tracing::info!(
                connection_id = %session.connection_id(),
                error = %error,
                "peer broke the websocket protocol"
            );
        }
        let frame = ws::close_frame(reason.close_code().as_u16(), reason.as_str());
        self.close_with(key, reason, frame, Cause::Violation);
    }

    /// Does what a closing connection needs.
    fn obey(&mut self, key: u32, action: closing::Action) {
        match action {
            closing::Action::KeepReading => {}
            closing::Action::ShutdownWrite => {
                if let Some(connection) = self.connections.get_mut(key as usize)
                    && connection.socket.shut_down_write().is_err()
                {
                    self.doom(key, DisconnectReason::ClientGone);
                }
            }
            closing::Action::Drop => self.doom(key, DisconnectReason::ClientGone),
        }
    }

    pub(super) fn on_close_deadline(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if let Role::Closing(closing) = &mut connection.role {
            let action = closing.handle(closing::Event::DeadlinePassed);
            self.obey(key, action);
        }
    }

    /// Writes what waits, feeding in what joined subscriptions lack, until the socket takes no more.
    pub(super) fn flush(&mut self, key: u32) {
        loop {
            if !self.feed(key) {
                return;
            }
            let shared = &self.shared;
            let views = &self.views;
            let Some(connection) = self.connections.get_mut(key as usize) else { return };
            let Some(pending) = connection.pending.as_mut() else { return };
            if pending.outbox.is_empty() {
                break;
            }
            pending.outbox.prepare(|omission| notice(&omission, shared, views));
            let slices = pending.outbox.slices();
            let due: usize = slices.iter().map(|slice| slice.len()).sum();
            let written = connection.socket.write(&slices);
            drop(slices);
            let written = match written {
                Ok(written) => written,
                Err(error) => return self.on_socket_error(key, &error),
            };
            self.on_written(key, written, due);
            if written < due {
                break;
            }
        }
        self.recount(key);
    }

    /// Moves what is missing into the outbox; false when there is nothing to write to any more.
    fn feed(&mut self, key: u32) -> bool {
        let (room, now) = (Room::of(&self.control.limits), self.shared.clock.moment());
        let Some(connection) = self.connections.get_mut(key as usize) else { return false };
        if connection.gone.is_some() {
            return false;
        }
        connection.tell_sent();
        let Connection { pending, live, role, .. } = connection;
        let Some(pending) = pending else { return false };
        let books = &mut self.local.books;
        let feeding = pending.feed(live, &self.views, (room, now), |sub| books.fed(sub));
        if feeding.placed
            && let Role::Session(session) = role
        {
            session.sent(now);
        }
        if feeding.lost {
            // What the session lacks has left the log: it would miss it without a word.
            let detail = "what was to follow is no longer kept".to_owned();
            let ending = Ending::with_detail(DisconnectReason::Backpressure, detail);
            self.handle(key, Event::Disconnect(ending));
            return false;
        }
        true
    }

    /// The socket took `written` of the `due` bytes that it was given.
    fn on_written(&mut self, key: u32, written: usize, due: usize) {
        let now = self.shared.clock.moment();
        let time = Reckoning { wall: self.shared.clock.timestamp(), begun: Instant::now() };
        let local = &mut self.local;
        local.bytes_sent.inc_by(written as u64);
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let coding = connection.coding;
        let Some(pending) = connection.pending.as_mut() else { return };
        pending.outbox.advance(written, |item, queued_at| {
            if let Item::Frame(frame) = item {
                local.sent.inc();
                local.bytes_out.observe(frame.bytes(coding).len() as f64);
                frame.left(time.begun);
                if item.due().is_some() {
                    local.reached(frame, 1, time.age(frame, time.begun), time.begun);
                }
            }
            local.outbox_wait.observe(now.millis_since(queued_at) as f64 / 1_000.0);
        });
        let was_blocked = std::mem::replace(&mut pending.blocked, written < due);
        // What a socket takes at once says nothing of its peer: the kernel took it.
        if written > 0
            && was_blocked
            && let Some(session) = connection.session()
        {
            session.progressed(now);
        }
    }

    /// Brings the count of waiting frames up to date, frees an outbox that is done, and notices when the
    /// close frame has left.
    pub(super) fn recount(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let Some(pending) = connection.pending.as_mut() else { return };
        pending.outbox.count_replaced(|sub| self.local.books.coalesced(sub));
        self.outbox_frames = self.outbox_frames + pending.outbox.frames() - pending.counted;
        pending.counted = pending.outbox.frames();
        if !pending.is_done() {
            return;
        }
        connection.pending = None;
        if let Role::Closing(closing) = &mut connection.role {
            let action = closing.handle(closing::Event::CloseWritten);
            self.obey(key, action);
        }
    }
}

fn caps(role: &Role, coding: ws::Coding, limits: &hiveops_proto::Limits) -> Caps {
    let deflate = coding.is_deflate();
    let count = |value| usize::try_from(value).unwrap_or(usize::MAX);
    match role {
        Role::Session(_) | Role::Closing(..) => {
            let (soft, hard) = (limits.max_inbound_message_bytes, limits.max_inbound_hard_bytes);
            Caps { soft: count(soft), hard: count(hard), deflate }
        }
        #[cfg(feature = "echo-endpoint")]
        Role::Echo => Caps { soft: ECHO_BYTES_MAX, hard: ECHO_BYTES_MAX, deflate },
    }
}

fn session_step(
    session: &mut Session,
    incoming: Incoming<'_>,
    env: &Env<'_>,
    actions: &mut Vec<crate::session::Action>,
) -> Step {
    match incoming {
        Incoming::Text(text) => session.handle(Event::Text(&text), env, actions),
        Incoming::Binary(_) => session.handle(Event::Binary, env, actions),
        // A binary message is refused for what it is, whatever its size.
        Incoming::TooLarge { kind: ws::Kind::Binary, .. } => session.handle(Event::Binary, env, actions),
        Incoming::TooLarge { kind: ws::Kind::Text, .. } => session.handle(Event::TooLarge, env, actions),
        // It was inflated before it came here.
        Incoming::Compressed { .. } => {}
        Incoming::Pong => session.handle(Event::Pong, env, actions),
        Incoming::Ping(payload) => {
            session.handle(Event::Ping, env, actions);
            return Step::Pong(payload.into_owned());
        }
        Incoming::Close { code, .. } => return Step::PeerClose(code),
    }
    Step::Nothing
}

#[cfg(feature = "echo-endpoint")]
fn echo_step(incoming: Incoming<'_>, coding: ws::Coding) -> Step {
    // The suite takes for granted that what it sent compressed comes back compressed, however small.
    let echo = |frame| Step::Echo(ws::deflate::deflated_anyhow(&frame, coding).unwrap_or(frame));
    match incoming {
        Incoming::Text(text) => echo(ws::text_frame(text.as_bytes())),
        Incoming::Binary(bytes) => echo(ws::binary_frame(&bytes)),
        Incoming::Compressed { .. } => Step::Nothing,
        Incoming::Ping(payload) => Step::Echo(ws::pong_frame(&payload)),
        Incoming::Pong | Incoming::TooLarge { .. } => Step::Nothing,
        Incoming::Close { code, .. } => Step::PeerClose(code),
    }
}

/// The frame that tells a session what it does not get.
fn notice(omission: &Omission, shared: &super::Shared, views: &[crate::hub::view::View]) -> SealedFrame {
    let subscription: SubscriptionName = shared.catalog.name(omission.sub).clone();
    let frame = Coalesced {
        correlation_id: shared.clock.correlation_id(),
        timestamp: shared.clock.timestamp(),
        subscription,
        epoch: views[omission.sub.index()].position().epoch,
        from_seq: omission.from_seq,
        to_seq: omission.to_seq,
        count: omission.to_seq + 1 - omission.from_seq,
    };
    SealedFrame::seal_of(omission.sub, &frame.into())
}
