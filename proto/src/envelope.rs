//! One message on the bus: a publication before the log has given it a place.

use serde::{Deserialize, Serialize};

use crate::id::{CorrelationId, IdempotencyKey};
use crate::payload::Payload;
use crate::subscription::{MessageType, SubscriptionName};
use crate::timestamp::Timestamp;

/// What a publisher hands to the bus, and what the log stores beside the position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where it goes.
    pub subscription: SubscriptionName,
    /// What it is.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// The publisher's, or made when it came in.
    pub correlation_id: CorrelationId,
    /// The publisher's own, when it could not be taken over as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_correlation_id: Option<String>,
    /// When the first node accepted it.
    pub timestamp: Timestamp,
    /// The publisher's own name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// W3C trace context of the publisher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// What is published.
    pub data: Payload,
}
