//! Frames that answer what a client sent.

use serde::{Deserialize, Serialize};

use crate::code::{ErrorCode, words};
use crate::id::CorrelationId;
use crate::payload::Payload;
use crate::position::{Positions, Recovered};
use crate::subscription::SubscriptionSet;
use crate::timestamp::Timestamp;

/// Answers `subscribe` and `unsubscribe`, always.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionUpdated {
    /// The client's own, when it sent one.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// Everything the session is subscribed to now.
    pub subscriptions: SubscriptionSet,
    /// The head of each of them.
    pub positions: Positions,
    /// For each newly joined one: whether it goes on where `since` left off.
    pub recovered: Recovered,
}

/// Answers `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// The client's own, when it sent one.
    pub correlation_id: CorrelationId,
    /// The node's clock.
    pub timestamp: Timestamp,
    /// The head of each subscription of the session.
    pub positions: Positions,
    /// Whether the node has proved lately that the bus delivers.
    pub live: bool,
}

words! {
    /// What `request_data` can ask for.
    DataType {
        /// The agents and how many are in which status.
        AgentStatus = "agent_status",
        /// Success rate and trend of the tasks.
        CoordinationMetrics = "coordination_metrics",
        /// How the tasks lie: by status, by agent.
        TaskDistribution = "task_distribution",
        /// Bus, control and nodes.
        SystemHealth = "system_health",
    }
}

/// Answers `request_data`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataResponse {
    /// The client's own, when it sent one.
    pub correlation_id: CorrelationId,
    /// When the data was read.
    pub timestamp: Timestamp,
    /// What was asked for.
    pub data_type: DataType,
    /// The answer; its members depend on `data_type`.
    pub data: Payload,
    /// The client's, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Answers `request_data` when there is no data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataError {
    /// The client's own, when it sent one.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// What was asked for, known or not.
    pub data_type: String,
    /// For people.
    pub error: String,
    /// For programs.
    pub code: ErrorCode,
    /// The client's, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Something the client sent was not done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// The client's own, when it sent one.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// For people; begins with the phrase that existing clients match.
    pub message: String,
    /// For programs.
    pub code: ErrorCode,
    /// When it is worth trying again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
