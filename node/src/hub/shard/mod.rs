//! A shard: one thread that owns its sockets, its sessions and its own copy of every log.
//!
//! Nothing is locked on the way from the mailbox to a socket. Decisions are made by the pure parts
//! (session, outbox, catch-up, wheel, codec); this is the thin shell around them.

mod audit;
mod batch;
mod drain;
mod env;
mod fan_out;
mod io;
mod lease;
mod local;
mod sessions;
mod uring;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hiveops_proto::control::ControlView;
use hiveops_proto::{
    CloseCode, ConnectionId, DisconnectReason, Epoch, ErrorCode, NodeId, Payload, Timestamp,
};
use mio::{Events, Poll, Token, Waker};
use rustls::ServerConnection;
use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub(crate) use drain::{Hints, Turn};

use super::Ended;
use super::connection::Connection;
use super::frame::Publication;
use super::gauges::Gauges;
use super::registry::{Registration, Registry};
use super::view::View;
use super::wheel::Wheel;
use crate::admission::{Budget, Era};
use crate::auth::Gate;
use crate::bus::Reset;
use crate::catalog::Catalog;
use crate::log::CompactedLog;
use crate::session::{Ending, Request, Setup};
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, Moment};
use crate::ws::{Coding, Inflater};

/// Commands that may wait for a shard; who sends more waits.
const MAILBOX_MAX: usize = 1_024;

/// Commands taken between two looks at the sockets.
const COMMANDS_PER_TURN: usize = 256;

/// Bytes read from one socket at a time; one such buffer per shard.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The waker's token; sessions have the keys of the slab.
const WAKE: Token = Token(usize::MAX);

/// Occurrences and removals leave the logs at least this often.
const EXPIRE_EVERY_MS: u64 = 5_000;

/// What the shards share with the rest of the node.
pub(crate) struct Shared {
    /// The contract at the start; later ones come as commands.
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) node_id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) registry: Registry,
    /// What the node has borrowed of the limits of the cluster.
    pub(crate) budget: Budget,
    /// When each session that is sent off is to come back.
    pub(crate) hints: Hints,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) answers: Box<dyn Answers>,
    /// Whether the bus has lately proved that it delivers; written by the probe.
    pub(crate) bus_live: Arc<AtomicBool>,
    /// Who may come in, and stay.
    pub(crate) gate: Arc<Gate>,
    /// Whether fan-outs may go through io_uring.
    pub(crate) io_uring: bool,
    /// The view at the start; later ones come as commands.
    pub(crate) control: Arc<ControlView>,
}

/// Answers `request_data`; implemented by whoever knows the state.
pub(crate) trait Answers: Send + Sync {
    fn answer(&self, request: &Request<'_>, now: Timestamp) -> Result<Payload, (ErrorCode, String)>;
}

/// A socket that becomes a session, or is refused in a way that its client can see.
pub(crate) struct Admission {
    pub(crate) socket: TcpStream,
    /// What TLS knows of it, when this node ends that.
    pub(crate) tls: Option<Box<ServerConnection>>,
    /// What was read along with the handshake.
    pub(crate) read: Bytes,
    pub(crate) coding: Coding,
    pub(crate) intent: Intent,
    /// The place of those who are worked on; free again when the socket has begun here.
    pub(crate) working: Option<Working>,
}

/// A place among the connections that the node works on at once. Whoever works holds it; it is never asked.
#[derive(Clone)]
pub(crate) struct Working(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

impl From<Arc<OwnedSemaphorePermit>> for Working {
    fn from(permit: Arc<OwnedSemaphorePermit>) -> Self {
        Self(permit)
    }
}

/// What a client is told that gets no session: a reason, and mostly the code that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: DisconnectReason,
    pub(crate) code: CloseCode,
}

impl Refused {
    /// The user has as many connections as allowed: unlike when the cluster is full, coming back does not help.
    pub(crate) const USER_FULL: Self =
        Self { reason: DisconnectReason::ConnectionLimit, code: CloseCode::Forbidden };
}

impl From<DisconnectReason> for Refused {
    fn from(reason: DisconnectReason) -> Self {
        Self { reason, code: reason.close_code() }
    }
}

/// What is to become of a socket.
pub(crate) enum Intent {
    Open(Box<Setup>, Registration),
    Refuse(Refused),
    #[cfg(feature = "echo-endpoint")]
    Echo,
}

/// What a shard is told.
pub(crate) enum Command {
    Admit(Box<Admission>),
    Publish(Arc<Publication>),
    Reset(Arc<Reset>, Arc<[Arc<Publication>]>),
    Control(Arc<ControlView>, Arc<Catalog>),
    /// Sessions may have lost their place.
    Review,
    Disconnect {
        id: ConnectionId,
        ending: Ending,
        /// Whether there was such a session.
        reply: oneshot::Sender<bool>,
    },
    /// Close the books as of now, show them, and say that it is done.
    Audit(oneshot::Sender<()>),
    /// Lose a frame that waits, as a mistake would.
    #[cfg(test)]
    Lose(oneshot::Sender<bool>),
    /// A later one takes the place of an earlier one for those who are left.
    Stop(Stop, Turn),
}

/// How a shard ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) reason: DisconnectReason,
    /// The time over which sessions are sent off. Until its turn comes, a session is served as ever.
    pub(crate) window: Duration,
    /// How long sessions may take to see their notice and close frame.
    pub(crate) linger: Duration,
}

/// Why a shard cannot start, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShardError {
    #[error("cannot start a shard")]
    Start(#[source] std::io::Error),
    #[error("a shard cannot wait for its sockets")]
    Poll(#[source] std::io::Error),
    #[error("a shard panicked")]
    Panicked,
}

/// The sending end of a shard.
#[derive(Clone)]
pub(crate) struct Mailbox {
    commands: mpsc::Sender<Command>,
    /// Whether the shard was woken and has not looked yet; saves a system call per command.
    notified: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Mailbox {
    pub(crate) async fn send(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)?;
        if !self.notified.swap(true, Ordering::AcqRel) {
            // It fails only when the shard is gone, which the next send says.
            let _ = self.waker.wake();
        }
        Ok(())
    }

    /// Ends when the shard takes no more commands.
    pub(crate) async fn ended(&self) {
        self.commands.closed().await;
    }
}

/// A running shard.
pub(crate) struct Handle {
    pub(crate) mailbox: Mailbox,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) thread: JoinHandle<Result<(), ShardError>>,
}

/// A stop that is under way.
struct Stopping {
    stop: Stop,
    plan: drain::Plan<u32>,
    /// When the shard ends, whoever has not gone.
    until: Moment,
}

/// The state of the thread.
struct Shard {
    shared: Arc<Shared>,
    control: Arc<ControlView>,
    catalog: Arc<Catalog>,
    poll: Poll,
    inbox: mpsc::Receiver<Command>,
    notified: Arc<AtomicBool>,
    gauges: Arc<Gauges>,
    connections: Slab<Connection>,
    /// The sessions of each subscription, by its id.
    lists: Vec<Vec<u32>>,
    views: Vec<View>,
    wheel: Wheel<(u32, u32)>,
    generation: u32,
    /// Counts fan-outs, so that one visits each session once.
    stamp: u64,
    buffer: Vec<u8>,
    /// Made when the first compressed message comes.
    inflater: Option<Box<Inflater>>,
    /// Sockets that may have more to read than one turn takes.
    again: Vec<u32>,
    /// Connections that only need to be removed.
    doomed: Vec<u32>,
    outbox_frames: usize,
    expired_at: Moment,
    /// The era of the budget that was looked at last.
    era: Era,
    stopping: Option<Stopping>,
    local: local::Local,
    /// Sends to many sockets at once, where the kernel lets it.
    ring: Option<uring::Ring>,
    /// What became of the sends of a group; kept for its room.
    sent: Vec<uring::Sent>,
}

/// Starts a shard.
pub(super) fn start(index: usize, shared: Arc<Shared>) -> Result<Handle, ShardError> {
    let poll = Poll::new().map_err(ShardError::Start)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(ShardError::Start)?);
    let (commands, inbox) = mpsc::channel(MAILBOX_MAX);
    let notified = Arc::new(AtomicBool::new(false));
    let gauges = Arc::new(Gauges::new());
    let now = shared.clock.moment();
    let mut shard = Shard {
        control: Arc::clone(&shared.control),
        catalog: Arc::clone(&shared.catalog),
        poll,
        inbox,
        notified: Arc::clone(&notified),
        gauges: Arc::clone(&gauges),
        connections: Slab::new(),
        lists: Vec::new(),
        views: Vec::new(),
        wheel: Wheel::new(now),
        generation: 0,
        stamp: 0,
        buffer: vec![0; READ_BUFFER_BYTES],
        inflater: None,
        again: Vec::new(),
        doomed: Vec::new(),
        outbox_frames: 0,
        expired_at: now,
        era: Era::default(),
        stopping: None,
        local: local::Local::new(&shared.metrics),
        ring: None,
        sent: Vec::new(),
        shared,
    };
    shard.make_room();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || shard.run())
        .map_err(ShardError::Start)?;
    Ok(Handle { mailbox: Mailbox { commands, notified, waker }, gauges, thread })
}

impl Shard {
    /// Has a place for every subscription that the node has met. Nobody joins one before its log was read.
    fn make_room(&mut self) {
        for (sub, name) in self.shared.catalog.interned().iter().skip(self.views.len()) {
            let log = CompactedLog::new(Epoch::from_bits(0), 0);
            self.views.push(View::new(sub, name.clone(), log));
            self.lists.push(Vec::new());
        }
    }

    fn run(mut self) -> Result<(), ShardError> {
        self.ring = self.open_ring();
        let mut events = Events::with_capacity(1_024);
        let mut more = false;
        loop {
            let timeout =
                if more || !self.again.is_empty() { Some(Duration::ZERO) } else { self.until_next() };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.map_err(ShardError::Poll)?,
            }
            // The thread may have stood still for long: nobody is served on a lease that has run out.
            self.look_at_lease();
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.on_ready(event);
            }
            self.read_again();
            self.look_at_lease();
            more = self.take_commands();
            self.tick();
            self.send_off();
            self.sweep();
            self.show_gauges();
            if self.is_finished() {
                self.close_books();
                self.close_mailbox();
                return Ok(());
            }
        }
    }

    /// Made by the thread that uses it, as the kernel asks.
    fn open_ring(&self) -> Option<uring::Ring> {
        if !self.shared.io_uring {
            return None;
        }
        match uring::Ring::new() {
            Ok(ring) => Some(ring),
            Err(error) => {
                tracing::info!(error = %error, "io_uring cannot be used, sockets are written to one by one");
                None
            }
        }
    }

    /// How long nothing will be due.
    fn until_next(&self) -> Option<Duration> {
        let now = self.now();
        let expire = self.expired_at.plus_millis(EXPIRE_EVERY_MS);
        let due = self.wheel.next_due().map_or(expire, |due| due.min(expire));
        let due = self.stopping.as_ref().map_or(due, |stopping| {
            let next = stopping.plan.next_due().unwrap_or(stopping.until);
            due.min(next).min(stopping.until)
        });
        let due = self.shared.budget.good_until().map_or(due, |until| due.min(until));
        Some(Duration::from_millis(due.millis_since(now)))
    }

    fn now(&self) -> Moment {
        self.shared.clock.moment()
    }

    /// Takes what is in the mailbox; true when there may be more.
    fn take_commands(&mut self) -> bool {
        // A swap and not a store: a sender that still sees `true` does not wake this thread, so everything
        // that it sent before it looked must be visible to the reads below.
        self.notified.swap(false, Ordering::AcqRel);
        let mut batch = Vec::new();
        for _ in 0..COMMANDS_PER_TURN {
            match self.inbox.try_recv() {
                Ok(Command::Publish(publication)) => {
                    batch.push(publication);
                    if batch.len() == fan_out::BATCH_MAX {
                        self.fan_out(&batch);
                        batch.clear();
                    }
                }
                Ok(other) => {
                    // What came before is seen as it was then.
                    self.fan_out(&batch);
                    batch.clear();
                    self.serve(other);
                }
                Err(mpsc::error::TryRecvError::Empty) => {
                    self.fan_out(&batch);
                    return false;
                }
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.fan_out(&batch);
                    if self.stopping.is_none() {
                        let reason = DisconnectReason::ServerShutdown;
                        let stop = Stop { reason, window: Duration::ZERO, linger: Duration::ZERO };
                        self.begin_stop(stop, Turn::ALONE);
                    }
                    return false;
                }
            }
        }
        self.fan_out(&batch);
        true
    }

    fn serve(&mut self, command: Command) {
        match command {
            Command::Publish(publication) => self.fan_out(&[publication]),
            Command::Admit(admission) => self.admit(*admission),
            Command::Reset(reset, entries) => self.reset(&reset, &entries),
            Command::Control(view, catalog) => self.set_control(view, catalog),
            Command::Review => self.review(),
            Command::Disconnect { id, ending, reply } => {
                let found = self.disconnect(&id, ending);
                // Who asked may have gone away meanwhile.
                let _ = reply.send(found);
            }
            Command::Audit(reply) => {
                self.show_books();
                // Who asked may have waited long enough.
                let _ = reply.send(());
            }
            #[cfg(test)]
            Command::Lose(reply) => {
                let _ = reply.send(self.lose_one());
            }
            Command::Stop(stop, turn) => self.begin_stop(stop, turn),
        }
    }

    /// Removes what has ended.
    fn sweep(&mut self) {
        while let Some(key) = self.doomed.pop() {
            self.remove(key);
        }
    }

    fn show_gauges(&mut self) {
        self.gauges.set_outbox_frames(self.outbox_frames);
        self.local.flush(|| self.shared.clock.timestamp());
    }

    /// Nothing comes after this. Publications that are still in the mailbox have no session to go to.
    fn close_mailbox(&mut self) {
        self.inbox.close();
        while let Ok(command) = self.inbox.try_recv() {
            if let Command::Publish(publication) = command {
                publication.walked();
            }
        }
    }

    fn is_finished(&self) -> bool {
        let ended = |stopping: &Stopping| self.connections.is_empty() || self.now() >= stopping.until;
        self.stopping.as_ref().is_some_and(ended)
    }
}

#[cfg(test)]
mod tests;
