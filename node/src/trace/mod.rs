//! Where an update went: what this node accepted, refused, received and delivered lately, found by
//! `correlation_id`.
//!
//! The publisher and the receive loop put entries into bounded rings, one per subscription, so that a busy
//! subscription does not push an alert out. The shards add to the entries ([`Tally`]) and never wait for who
//! reads. Nothing here knows HTTP or the bus; the cluster carries the questions and answers ([`NodeTrace`]).

mod answer;
mod context;
pub(crate) mod export;
mod origin;
mod report;
mod ring;
mod tally;
mod times;
mod tracer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hiveops_proto::contract::SUBSCRIPTIONS_MAX;
use hiveops_proto::{CorrelationId, Epoch, MessageType, SubscriptionName, Timestamp};
use parking_lot::Mutex;

pub(crate) use answer::NodeTrace;
pub(crate) use context::TraceParent;
pub(crate) use origin::Origin;
pub(crate) use report::Report;
pub(crate) use tally::{Lost, Tally};
pub(crate) use tracer::{About, Published, Publishing, Tracer};

use crate::bus::Stored;
use crate::catalog::{Catalog, SubId};
use crate::per_sub::PerSub;
use crate::time::Clock;
use answer::{Accepted, Received, Refused};
use ring::Ring;

/// Publications that the rings of all subscriptions hold together, of each kind: about 15 MiB of what was
/// received and 6 MiB of what was accepted. Each subscription has an equal share, of six 4,096.
const PUBLICATIONS_MAX: usize = 24_576;

/// Refused publications that are held: there are few of them, or somebody sends nothing else.
const REFUSED_MAX: usize = 1_024;

/// Publications of a subscription that a shard can still credit to a session that is behind: as many as a log
/// keeps occurrences.
pub(crate) const OWED_MAX: usize = 1_024;

/// The rings of a node.
pub(crate) struct Traces {
    clock: Clock,
    /// Every subscription that the node has met.
    names: Arc<PerSub<SubscriptionName>>,
    /// Each lock is held for one entry, or for one look through its ring.
    rings: Box<[Mutex<Rings>]>,
    refused: Mutex<Ring<(CorrelationId, Refused)>>,
    /// None while nothing is traced.
    tracer: Option<Arc<Tracer>>,
}

/// Of one subscription.
struct Rings {
    accepted: Ring<(CorrelationId, Placed)>,
    received: Ring<Arc<Tally>>,
}

/// A publication that this node took in, and its place in the log.
struct Placed {
    message_type: MessageType,
    epoch: Epoch,
    seq: u64,
    accepted: Accepted,
}

/// What the publisher knows of a publication that the log has.
pub(crate) struct Acceptance<'a> {
    pub(crate) correlation_id: &'a CorrelationId,
    pub(crate) sub: SubId,
    pub(crate) message_type: &'a MessageType,
    pub(crate) epoch: &'a Epoch,
    pub(crate) seq: u64,
    pub(crate) duplicate: bool,
    pub(crate) origin: &'a Origin,
    /// When it was accepted, by this node's clock.
    pub(crate) at: Timestamp,
    /// How long the log took to store it.
    pub(crate) stored_within: Duration,
}

/// What the publisher knows of one that it has refused.
pub(crate) struct Refusal<'a> {
    pub(crate) correlation_id: &'a CorrelationId,
    /// As they were given, cut to a bound.
    pub(crate) subscription: &'a str,
    pub(crate) message_type: &'a str,
    pub(crate) reason: &'static str,
    pub(crate) origin: &'a Origin,
    pub(crate) at: Timestamp,
}

impl Traces {
    pub(crate) fn new(catalog: &Catalog, clock: Clock, tracer: Option<Arc<Tracer>>) -> Arc<Self> {
        let now = clock.timestamp();
        let rings = || Mutex::new(Rings { accepted: Ring::new(now), received: Ring::new(now) });
        Arc::new(Self {
            clock,
            names: Arc::clone(catalog.interned()),
            rings: std::iter::repeat_with(rings).take(SUBSCRIPTIONS_MAX).collect(),
            refused: Mutex::new(Ring::new(now)),
            tracer,
        })
    }

    /// What makes spans, where something is traced.
    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_deref()
    }

    /// The log has taken a publication from this node.
    pub(crate) fn accepted(&self, acceptance: &Acceptance<'_>) {
        let placed = Placed {
            message_type: acceptance.message_type.clone(),
            epoch: acceptance.epoch.clone(),
            seq: acceptance.seq,
            accepted: Accepted::new(acceptance),
        };
        let entry = (acceptance.correlation_id.clone(), placed);
        let mut rings = self.rings[acceptance.sub.index()].lock();
        rings.accepted.push(self.clock.timestamp(), entry, self.share());
    }

    /// This node did not publish it.
    pub(crate) fn refused(&self, refusal: &Refusal<'_>) {
        let entry = (refusal.correlation_id.clone(), Refused::new(refusal));
        self.refused.lock().push(self.clock.timestamp(), entry, REFUSED_MAX);
    }

    /// A publication has come from the bus; the shards count on with what this returns.
    pub(crate) fn received(&self, stored: &Stored, received: Instant) -> Arc<Tally> {
        let now = self.clock.timestamp();
        let traced = self.tracer.as_ref().and_then(|tracer| tracer.received(stored)).map(Box::new);
        let tally = Arc::new(Tally::new(stored, received, now, traced));
        let mut rings = self.rings[stored.sub.index()].lock();
        rings.received.push(now, Arc::clone(&tally), self.share());
        tally
    }

    /// What this node knows of a `correlation_id`.
    pub(crate) fn find(&self, id: &CorrelationId) -> NodeTrace {
        let now = self.clock.timestamp();
        let mut found = NodeTrace::empty(self.refused.lock().reaches_back_to(now));
        for (sub, name) in self.names.iter() {
            let mut rings = self.rings[sub.index()].lock();
            let accepted = rings.accepted.entries(now).filter(|(other, _)| other == id);
            let accepted = accepted.map(|(_, placed)| placed.accepted.at(name, placed));
            found.add_accepted(accepted);
            let received = rings.received.entries(now).filter(|tally| tally.correlation_id == *id);
            found.add_received(received.map(|tally| Received::new(name, tally)));
            let accepted = rings.accepted.reaches_back_to(now);
            found.reaches(name, accepted, rings.received.reaches_back_to(now));
        }
        let mut refused = self.refused.lock();
        let entries = refused.entries(now).filter(|(other, _)| other == id);
        found.add_refused(entries.map(|(_, refused)| refused.clone()));
        found
    }

    /// What one subscription may hold.
    fn share(&self) -> usize {
        PUBLICATIONS_MAX / self.names.len().max(1)
    }
}

#[cfg(test)]
mod tests;
