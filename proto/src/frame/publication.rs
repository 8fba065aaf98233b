//! A publication as a client sees it.

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::id::{CorrelationId, Epoch};
use crate::payload::Payload;
use crate::subscription::{MessageType, SubscriptionName};
use crate::timestamp::Timestamp;

/// `*_update`, `*_event` or `critical_alert`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// The message type that the contract declares for the subscription.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// The publisher's, or made when it came in.
    pub correlation_id: CorrelationId,
    /// The publisher's own, when it could not be taken over as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_correlation_id: Option<String>,
    /// When it was published.
    pub timestamp: Timestamp,
    /// The subscription.
    pub subscription: SubscriptionName,
    /// The life of its log.
    pub epoch: Epoch,
    /// Its place in the log.
    pub seq: u64,
    /// The place before it; a client that stands elsewhere has missed something.
    pub prev_seq: u64,
    /// Whether it was sent again because the client asked with `since`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub replayed: bool,
    /// What was published.
    pub data: Payload,
}
