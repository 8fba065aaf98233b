//! What became of one publication on this node: counts that the shards write while they work.
//!
//! The frame of a publication carries its tally, so whoever delivers, replaces or discards a frame adds to it
//! without looking anything up, without a lock and without allocating: atomic additions, one for each group of
//! sockets that took the frame together. Every session that was joined when a shard fanned the publication out
//! is a recipient, and ends up as exactly one of delivered, coalesced or lost, or is still pending.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hiveops_proto::{CorrelationId, Epoch, MessageType, Timestamp};

use super::times::Times;
use super::tracer::Traced;
use crate::bus::Stored;

/// Why a recipient did not get a publication, and gets no later value in its place either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It was ended because it did not keep up.
    Backpressure,
    /// Its connection ended first.
    Closed,
    /// It left the subscription first.
    Unsubscribed,
    /// The log was read anew, and a snapshot took the place of what waited.
    Reset,
}

impl Lost {
    pub(crate) const ALL: [Self; 4] = [Self::Backpressure, Self::Closed, Self::Unsubscribed, Self::Reset];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Backpressure => "backpressure",
            Self::Closed => "closed",
            Self::Unsubscribed => "unsubscribed",
            Self::Reset => "reset",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Backpressure => 0,
            Self::Closed => 1,
            Self::Unsubscribed => 2,
            Self::Reset => 3,
        }
    }
}

/// One publication on one node. The shards share it with the ring that is searched.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) correlation_id: CorrelationId,
    pub(crate) message_type: MessageType,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    /// When the node that accepted it did so, by that node's clock.
    pub(crate) published_at: Timestamp,
    /// When this node got it from the bus, by its own clock.
    pub(crate) received_at: Timestamp,
    received: Instant,
    recipients: AtomicU32,
    enqueued: AtomicU32,
    delivered: AtomicU32,
    replayed: AtomicU32,
    coalesced: AtomicU32,
    lost: [AtomicU32; Lost::ALL.len()],
    times: Times,
    /// Its spans; none for what is not sampled, or while nothing is traced.
    traced: Option<Box<Traced>>,
}

/// The counts at one moment. The shards go on meanwhile, so while something is pending the numbers may be a
/// few sessions apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) recipients: u32,
    /// Of them, those whose socket did not take it at once: it went to their outbox.
    pub(crate) enqueued: u32,
    pub(crate) delivered: u32,
    /// Sessions that came back later and were sent it as a part of a replay; they are no recipients.
    pub(crate) replayed: u32,
    pub(crate) coalesced: u32,
    pub(crate) lost: [u32; Lost::ALL.len()],
}

impl Counts {
    /// What is still waiting.
    pub(crate) fn pending(&self) -> u32 {
        let settled = self.delivered.saturating_add(self.coalesced);
        let settled = self.lost.iter().fold(settled, |sum, lost| sum.saturating_add(*lost));
        self.recipients.saturating_sub(settled)
    }
}

impl Tally {
    pub(crate) fn new(
        stored: &Stored,
        received: Instant,
        received_at: Timestamp,
        traced: Option<Box<Traced>>,
    ) -> Self {
        let envelope = &stored.envelope;
        Self {
            correlation_id: envelope.correlation_id.clone(),
            message_type: envelope.message_type.clone(),
            epoch: stored.epoch.clone(),
            seq: stored.seq,
            published_at: envelope.timestamp,
            received_at,
            received,
            recipients: AtomicU32::new(0),
            enqueued: AtomicU32::new(0),
            delivered: AtomicU32::new(0),
            replayed: AtomicU32::new(0),
            coalesced: AtomicU32::new(0),
            lost: Default::default(),
            times: Times::default(),
            traced,
        }
    }

    /// A shard begins to fan it out to so many sessions.
    pub(crate) fn due_to(&self, sessions: usize) {
        add(&self.recipients, u32::try_from(sessions).unwrap_or(u32::MAX));
    }

    /// It waits in a recipient's outbox.
    pub(crate) fn enqueued(&self) {
        add(&self.enqueued, 1);
    }

    /// The sockets of so many recipients had taken all of it by `at`.
    pub(crate) fn delivered(&self, sessions: u64, at: Instant) {
        let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        let took = self.elapsed(at);
        add(&self.delivered, sessions);
        self.times.observe(took, sessions);
        if let Some(traced) = &self.traced {
            traced.delivery(took, sessions);
        }
    }

    /// A session that came back was sent it again, or for the first time.
    pub(crate) fn replayed(&self) {
        add(&self.replayed, 1);
    }

    /// A recipient gets a later value of the same key instead.
    pub(crate) fn coalesced(&self) {
        add(&self.coalesced, 1);
    }

    pub(crate) fn lost(&self, why: Lost) {
        add(&self.lost[why.index()], 1);
    }

    /// It is in the mailboxes of all shards.
    pub(crate) fn handed_over(&self) {
        if let Some(traced) = &self.traced {
            let about = (&self.correlation_id, &self.message_type);
            traced.handed_over(about, self.seq, self.received.elapsed());
        }
    }

    /// One shard has been through all its sessions with it.
    pub(crate) fn walked(&self) {
        if let Some(traced) = &self.traced {
            let about = (&self.correlation_id, &self.message_type);
            traced.walked(about, self.received.elapsed(), || self.counts());
        }
    }

    /// From the node's receipt to `at`.
    fn elapsed(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.received)
    }

    pub(crate) fn counts(&self) -> Counts {
        let get = |count: &AtomicU32| count.load(Ordering::Acquire);
        // What is settled is read first: it never exceeds the recipients that are read after it, since whoever
        // sees that a session was settled sees that it was counted before.
        let (delivered, replayed, coalesced) =
            (get(&self.delivered), get(&self.replayed), get(&self.coalesced));
        let lost = Lost::ALL.map(|why| get(&self.lost[why.index()]));
        let (enqueued, recipients) = (get(&self.enqueued), get(&self.recipients));
        Counts { recipients, enqueued, delivered, replayed, coalesced, lost }
    }

    pub(crate) fn times(&self) -> &Times {
        &self.times
    }
}

/// Whoever reads it afterwards ([`Tally::counts`]) also reads what its shard has added before: a shard counts its
/// recipients first. On x86 that costs nothing, elsewhere next to nothing.
fn add(count: &AtomicU32, more: u32) {
    count.fetch_add(more, Ordering::Release);
}
