//! What one node says of a `correlation_id`: to its own route, and to the other nodes. Pure.

use std::collections::BTreeMap;

use hiveops_proto::contract::SUBSCRIPTIONS_MAX;
use hiveops_proto::{Epoch, MessageType, SubscriptionName, Timestamp};
use serde::{Deserialize, Serialize};

use super::origin::{By, Source};
use super::{Acceptance, Lost, Placed, Refusal, Tally};

/// Entries of each kind in one answer at most: more than one request causes by far, and together they fit
/// into what nodes may say to each other.
pub(crate) const ENTRIES_MAX: usize = 24;

/// Bytes of a name that nobody has checked, and of a reason.
const TEXT_BYTES_MAX: usize = 64;

/// One node's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeTrace {
    pub(crate) accepted: Vec<AcceptedAt>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) received: Vec<Received>,
    /// Entries that the answer has no room for.
    pub(crate) left_out: u64,
    pub(crate) oldest: Oldest,
}

/// How far the rings of a node reach back: everything since then is in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Oldest {
    /// The latest of the times below: what is younger than this is in every ring.
    pub(crate) all: Timestamp,
    pub(crate) refused: Timestamp,
    /// For each subscription what was accepted, and what was received and delivered.
    pub(crate) subscriptions: BTreeMap<SubscriptionName, Reach>,
}

/// Of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    pub(crate) accepted: Timestamp,
    pub(crate) received: Timestamp,
}

/// A publication that the node took in and that the log has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) at: Timestamp,
    pub(crate) source: Source,
    pub(crate) by: By,
    /// The log knew it already, and gave its first place again.
    pub(crate) duplicate: bool,
    /// How long the log took to store it.
    pub(crate) stored_within_ms: f64,
}

/// The same, with its place in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AcceptedAt {
    pub(crate) place: Place,
    pub(crate) accepted: Accepted,
}

/// A publication's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) subscription: SubscriptionName,
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) message_type: MessageType,
}

/// One that the node did not publish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) at: Timestamp,
    pub(crate) source: Source,
    pub(crate) by: By,
    /// As they were given; they may be names that nobody knows.
    pub(crate) subscription: String,
    pub(crate) message_type: String,
    pub(crate) reason: String,
}

/// A publication that the node got from the bus and fanned out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) place: Place,
    /// By the clock of the node that accepted it.
    pub(crate) published_at: Timestamp,
    pub(crate) deliveries: Deliveries,
}

/// What became of it there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deliveries {
    /// By this node's clock.
    pub(crate) received_at: Timestamp,
    /// From one clock to the other.
    pub(crate) bus_ms: u64,
    pub(crate) recipients: u64,
    pub(crate) enqueued: u64,
    pub(crate) delivered: u64,
    pub(crate) replayed: u64,
    pub(crate) coalesced: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) pending: u64,
    /// From the node's receipt to the socket; none before the first delivery.
    pub(crate) delivery_ms: Option<DeliveryTimes>,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeliveryTimes {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl NodeTrace {
    pub(crate) fn empty(refused: Timestamp) -> Self {
        let oldest = Oldest { all: refused, refused, subscriptions: BTreeMap::new() };
        Self { accepted: Vec::new(), refused: Vec::new(), received: Vec::new(), left_out: 0, oldest }
    }

    pub(super) fn add_accepted(&mut self, entries: impl Iterator<Item = AcceptedAt>) {
        self.left_out += fill(&mut self.accepted, entries);
    }

    pub(super) fn add_received(&mut self, entries: impl Iterator<Item = Received>) {
        self.left_out += fill(&mut self.received, entries);
    }

    pub(super) fn add_refused(&mut self, entries: impl Iterator<Item = Refused>) {
        self.left_out += fill(&mut self.refused, entries);
    }

    pub(super) fn reaches(&mut self, name: &SubscriptionName, accepted: Timestamp, received: Timestamp) {
        self.oldest.all = self.oldest.all.max(accepted).max(received);
        self.oldest.subscriptions.insert(name.clone(), Reach { accepted, received });
    }

    /// Whether it has the size of what a node says.
    pub(crate) fn is_bounded(&self) -> bool {
        let is_short = |text: &str| text.len() <= TEXT_BYTES_MAX;
        let lengths = [self.accepted.len(), self.refused.len(), self.received.len()];
        lengths.iter().all(|length| *length <= ENTRIES_MAX)
            && self.oldest.subscriptions.len() <= SUBSCRIPTIONS_MAX
            && self.refused.iter().all(|refused| {
                is_short(&refused.subscription)
                    && is_short(&refused.message_type)
                    && is_short(&refused.reason)
            })
            && self.received.iter().all(|received| {
                let dropped = &received.deliveries.dropped;
                dropped.len() <= ENTRIES_MAX && dropped.keys().all(|reason| is_short(reason))
            })
    }
}

/// Adds what there is room for, and says how many that leaves out.
fn fill<T>(to: &mut Vec<T>, entries: impl Iterator<Item = T>) -> u64 {
    let mut left_out = 0;
    for entry in entries {
        if to.len() < ENTRIES_MAX {
            to.push(entry);
        } else {
            left_out += 1;
        }
    }
    left_out
}

impl Accepted {
    pub(super) fn new(acceptance: &Acceptance<'_>) -> Self {
        Self {
            at: acceptance.at,
            source: acceptance.origin.source,
            by: acceptance.origin.by.clone(),
            duplicate: acceptance.duplicate,
            stored_within_ms: acceptance.stored_within.as_micros() as f64 / 1_000.0,
        }
    }

    pub(super) fn at(&self, name: &SubscriptionName, placed: &Placed) -> AcceptedAt {
        let place = Place {
            subscription: name.clone(),
            epoch: placed.epoch.clone(),
            seq: placed.seq,
            message_type: placed.message_type.clone(),
        };
        AcceptedAt { place, accepted: self.clone() }
    }
}

impl Refused {
    pub(super) fn new(refusal: &Refusal<'_>) -> Self {
        Self {
            at: refusal.at,
            source: refusal.origin.source,
            by: refusal.origin.by.clone(),
            subscription: short(refusal.subscription),
            message_type: short(refusal.message_type),
            reason: refusal.reason.to_owned(),
        }
    }
}

/// As much of a text as there is room for.
fn short(text: &str) -> String {
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or(0)].to_owned()
}

impl Received {
    pub(super) fn new(name: &SubscriptionName, tally: &Tally) -> Self {
        let (counts, times) = (tally.counts(), tally.times());
        let ms = |us: u32| f64::from(us) / 1_000.0;
        let times = times.quantile_us(0.5).zip(times.quantile_us(0.99)).map(|(p50, p99)| DeliveryTimes {
            p50: ms(p50),
            p99: ms(p99),
            max: ms(times.max_us()),
        });
        let dropped = Lost::ALL.iter().zip(counts.lost).filter(|(_, count)| *count > 0);
        let place = Place {
            subscription: name.clone(),
            epoch: tally.epoch.clone(),
            seq: tally.seq,
            message_type: tally.message_type.clone(),
        };
        let deliveries = Deliveries {
            received_at: tally.received_at,
            bus_ms: tally.received_at.millis_since(tally.published_at),
            recipients: counts.recipients.into(),
            enqueued: counts.enqueued.into(),
            delivered: counts.delivered.into(),
            replayed: counts.replayed.into(),
            coalesced: counts.coalesced.into(),
            dropped: dropped.map(|(why, count)| (why.as_str().to_owned(), count.into())).collect(),
            pending: counts.pending().into(),
            delivery_ms: times,
        };
        Self { place, published_at: tally.published_at, deliveries }
    }
}
