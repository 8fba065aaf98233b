//! The bus: one ordered log per subscription, shared by all nodes that name the same one.
//!
//! Publishers call [`Bus::publish`] and get a place in the log, or a reason. Every node calls
//! [`Bus::follow`] and gets every log from the start of what is left, then what comes, in order. All
//! implementations pass the suite in `bus/conformance.rs`.

pub(crate) mod counts;
pub(crate) mod embedded;
mod follower;
mod mirror;
pub(crate) mod nats;
pub(crate) mod redis;
mod rules;

#[cfg(test)]
pub(crate) mod conformance;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::{Envelope, Epoch, Position, SubscriptionName, Timestamp};

use self::counts::Counts;

use crate::catalog::SubId;
use crate::log::{Entry, ValueKey};

/// No bus call may take longer: an answer after this is a timeout (504), and safe to repeat.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Keys of one subscription at most (CONTRACT section 5).
pub(crate) const STATE_KEYS_MAX: usize = 10_000;

/// Bytes of the values of one subscription at most (CONTRACT section 5).
pub(crate) const STATE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a repeated publication is known as one (CONTRACT section 5).
pub(crate) const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Bytes of a [`Signal`] at most: far more than any that nodes send.
pub(crate) const SIGNAL_BYTES_MAX: usize = 64 * 1024;

/// A boxed future of a bus call.
pub(crate) type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One implementation of the bus. Every call ends within [`CALL_TIMEOUT`].
pub(crate) trait Bus: Send + Sync {
    /// Puts a publication into the log. `Ok` means that the log has stored it; after
    /// [`PublishError::Timeout`] and [`PublishError::Unavailable`] it may or may not have, and asking again
    /// is safe for whatever has a [`Repeat`].
    fn publish(&self, publish: Publish) -> Call<'_, Result<Ack, PublishError>>;

    /// Follows every log: first what is left of each, then what comes.
    fn follow(&self) -> Call<'_, Result<Box<dyn Follow>, Unavailable>>;

    /// Begins more logs; their ids go on where those that the bus has end, and those that it has already are
    /// passed over. Followers are told of each with a [`BusEvent::Reset`] once it was read, which may be
    /// long after this returns.
    fn open(&self, logs: Vec<(SubId, SubscriptionName)>) -> Call<'_, Result<(), Unavailable>>;

    /// Sends a probe that comes back to every follower of this node; one that lags may miss it. It does not
    /// come back while the bus cannot store.
    fn probe(&self, nonce: u64) -> Call<'_, Result<(), Unavailable>>;

    /// Says something to every follower of every node, once and at most once: nothing keeps it for who is
    /// not there. At most [`SIGNAL_BYTES_MAX`].
    fn tell(&self, signal: Signal) -> Call<'_, Result<(), Unavailable>>;

    /// Makes sure that followers have been told of everything that is stored now, and says where that is;
    /// as far as the bus answers in time. Empty where a follower cannot be behind.
    fn catch_up(&self) -> Call<'_, Vec<(SubId, Position)>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// What happened on the way to the broker; none where there is none.
    fn counts(&self) -> Option<&Counts> {
        None
    }

    /// What publishers hand to this bus themselves; none where nobody but a node can. Called once.
    fn intake(&self) -> Option<Box<dyn Intake>>;

    /// Stores what was accepted, then ends: later calls are [`Unavailable`], and followers read what is on
    /// its way and then `None`.
    fn shutdown(&self) -> Call<'_, ()>;

    /// What `health` calls it.
    fn kind(&self) -> &'static str;
}

/// The receiving end of the bus.
pub(crate) trait Follow: Send {
    /// The next thing that happened; `None` when the bus has shut down. Dropping the future before it is
    /// ready loses nothing, so it may stand in a `select!`.
    fn next(&mut self) -> Call<'_, Option<BusEvent>>;
}

/// What a follower is told.
#[derive(Debug, Clone)]
pub(crate) enum BusEvent {
    /// A log as it is now; whatever the follower knew of it is void.
    Reset(Reset),
    /// The next publication of a log. What lies between the last one and this was compacted away.
    Stored(Arc<Stored>),
    /// A probe came back.
    Probe(u64),
    /// A node has said something, this one perhaps.
    Told(Signal),
}

/// What nodes say to each other: JSON that the bus does not look into.
pub(crate) type Signal = Arc<str>;

/// Publications that publishers hand to the bus without asking a node (CONTRACT section 12).
pub(crate) trait Intake: Send {
    /// The next one; `None` when the bus has shut down. Dropping the future before it is ready loses
    /// nothing.
    fn next(&mut self) -> Call<'_, Option<Incoming>>;
}

/// A publication as its publisher wrote it: nothing of it has been checked.
pub(crate) struct Incoming {
    /// Where it came in, for metrics and logs.
    pub(crate) source: IntakeSource,
    pub(crate) subscription: String,
    pub(crate) message_type: String,
    /// The `data`, or what should be it.
    pub(crate) payload: bytes::Bytes,
    pub(crate) correlation_id: Option<String>,
    pub(crate) traceparent: Option<String>,
    /// The publisher's own name for it, or one that the bus made so that a second delivery is known.
    pub(crate) idempotency_key: Option<String>,
    /// Hears what became of it, where the bus keeps it until then.
    pub(crate) settle: Option<Settle>,
}

/// Tells the bus what became of an [`Incoming`].
pub(crate) type Settle = Box<dyn FnOnce(Settled) -> Call<'static, ()> + Send + Sync>;

/// What became of an [`Incoming`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The log has it.
    Stored,
    /// It will never be stored.
    Refused,
    /// It could not be stored just now: it is to come again.
    Later,
}

/// The ways in beside HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntakeSource {
    /// `hiveops.<namespace>.in.<subscription>`
    NatsIn,
    /// `hiveops:<namespace>:u:<subscription>`
    RedisEnvelope,
    /// `system_events`
    RedisSystemEvents,
    /// `agent_events:<id>`
    RedisAgentEvents,
    /// `project_index:websocket_events`
    RedisProjectIndex,
}

impl IntakeSource {
    pub(crate) const ALL: [Self; 5] = [
        Self::NatsIn,
        Self::RedisEnvelope,
        Self::RedisSystemEvents,
        Self::RedisAgentEvents,
        Self::RedisProjectIndex,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NatsIn => "nats_in",
            Self::RedisEnvelope => "redis_envelope",
            Self::RedisSystemEvents => "redis_system_events",
            Self::RedisAgentEvents => "redis_agent_events",
            Self::RedisProjectIndex => "redis_project_index",
        }
    }
}

/// What is left of a log.
#[derive(Debug, Clone)]
pub(crate) struct Reset {
    pub(crate) sub: SubId,
    pub(crate) epoch: Epoch,
    pub(crate) head: u64,
    pub(crate) floor: u64,
    pub(crate) entries: Vec<Arc<Stored>>,
}

/// A checked publication on its way to the log.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) sub: SubId,
    pub(crate) key: Option<ValueKey>,
    pub(crate) removes: bool,
    pub(crate) envelope: Envelope,
    pub(crate) expect: Expect,
    pub(crate) repeat: Repeat,
}

/// A condition on the key's value at the moment of storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Whatever it is.
    Any,
    /// There is none.
    Absent,
    /// It was set by this publication.
    Seq(u64),
}

/// How a repeated publication is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It is not: each is its own.
    Never,
    /// By the name that its publisher gave it.
    Key(IdempotencyKey),
    /// By subscription, type, correlation id and data.
    Content,
}

/// A publication with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) sub: SubId,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) key: Option<ValueKey>,
    pub(crate) removes: bool,
    pub(crate) envelope: Envelope,
}

/// The log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    /// Whether this is the place of an earlier, equal one.
    pub(crate) duplicate: bool,
}

/// Why a publication is not in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    /// The key's value is not the expected one; `actual` set it, 0 when there is none.
    #[error("the key was changed by publication {actual}")]
    WrongExpected { actual: u64 },
    #[error("the idempotency key was used before with other data, by publication {seq}")]
    IdempotencyConflict { seq: u64 },
    #[error(
        "the subscription holds {keys} keys and {bytes} bytes, and may hold {STATE_KEYS_MAX} and {STATE_BYTES_MAX}"
    )]
    StateFull { keys: usize, bytes: usize },
    #[error("the bus did not answer in time")]
    Timeout,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The bus cannot be reached, or has shut down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bus is not available: {reason}")]
pub(crate) struct Unavailable {
    pub(crate) reason: String,
}

impl Entry for Arc<Stored> {
    fn seq(&self) -> u64 {
        self.seq
    }
    fn key(&self) -> Option<&ValueKey> {
        self.key.as_ref()
    }
    fn removes(&self) -> bool {
        self.removes
    }
    fn published_at(&self) -> Timestamp {
        self.envelope.timestamp
    }
    fn size(&self) -> usize {
        self.envelope.data.as_str().len()
    }
}
