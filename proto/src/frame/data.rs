//! Frames that carry a subscription's state other than by one publication.

use serde::{Deserialize, Serialize};

use crate::id::{CorrelationId, Epoch, Key};
use crate::payload::Payload;
use crate::position::Positions;
use crate::subscription::{MessageType, SubscriptionName};
use crate::timestamp::Timestamp;

/// The latest value of every key of one subscription at one position, or a part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Follows the making of this snapshot, which many sessions may share.
    pub correlation_id: CorrelationId,
    /// When the snapshot was made.
    pub timestamp: Timestamp,
    /// The subscription.
    pub subscription: SubscriptionName,
    /// The life of its log.
    pub epoch: Epoch,
    /// The position that the whole stands for: what comes after it has a greater `seq`.
    pub seq: u64,
    /// The values in the order of their `seq`.
    pub items: Vec<SnapshotItem>,
    /// Which part this is, from 1.
    pub part: u32,
    /// How many parts there are. The value holds once all of them are there.
    pub parts: u32,
}

/// One key's latest value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotItem {
    /// The `type` of the update that set it.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// The key.
    pub key: Key,
    /// The value.
    pub data: Payload,
    /// The publication that set it.
    pub seq: u64,
}

/// Sent after silence: a head beyond the client's position reveals a lost tail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Follows this heartbeat.
    pub correlation_id: CorrelationId,
    /// The node's clock.
    pub timestamp: Timestamp,
    /// The head of each subscription of the session.
    pub positions: Positions,
    /// Whether the node has proved lately that the bus delivers.
    pub live: bool,
}

/// Publications that this session does not get because later values took their place: a known omission,
/// not a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coalesced {
    /// Follows this notice.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// The subscription.
    pub subscription: SubscriptionName,
    /// The life of its log.
    pub epoch: Epoch,
    /// The first one left out.
    pub from_seq: u64,
    /// The last one left out.
    pub to_seq: u64,
    /// How many were left out.
    pub count: u64,
}
