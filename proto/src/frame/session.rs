//! Frames about the session itself: how it begins, what it is told, how it ends.

use serde::{Deserialize, Serialize};

use crate::code::{CloseCode, DisconnectReason};
use crate::contract::ContractVersion;
use crate::id::{ConnectionId, CorrelationId, NodeId};
use crate::position::{Positions, Recovered};
use crate::subscription::SubscriptionSet;
use crate::timestamp::Timestamp;

/// The first frame of every session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionEstablished {
    /// Follows the handshake.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// The name of this session.
    pub connection_id: ConnectionId,
    /// The name that the client wished for and did not get, because a live session holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_connection_id: Option<ConnectionId>,
    /// What the session is subscribed to.
    pub subscriptions: SubscriptionSet,
    /// The node's clock.
    pub server_time: Timestamp,
    /// The node that holds the connection.
    pub node_id: NodeId,
    /// The contract version in force.
    pub contract_version: ContractVersion,
    /// The contract versions that clients may ask for.
    pub supported_versions: Vec<ContractVersion>,
    /// The thresholds that a client must know to behave.
    pub limits: SessionLimits,
}

/// The thresholds of this session; the `limits` endpoint has all of them with their sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Messages per second.
    pub rate_limit_tokens_per_second: u64,
    /// Messages at once.
    pub rate_limit_burst_capacity: u64,
    /// Seconds between two `rate_limited` errors.
    pub rate_limit_notify_cooldown_seconds: u64,
    /// Bytes of one message.
    pub max_inbound_message_bytes: u64,
    /// Subscriptions of this connection.
    pub max_subscriptions_per_connection: u64,
    /// Seconds without a client message.
    pub idle_disconnect_seconds: u64,
    /// Seconds of silence after which the node sends a `heartbeat`.
    pub heartbeat_silence_seconds: u64,
}

/// Follows `connection_established`: what the snapshots and replays after it belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DashboardInitialized {
    /// Follows the handshake.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// What the session is subscribed to.
    pub subscriptions: SubscriptionSet,
    /// The session, as the node knows it.
    pub connection_info: ConnectionInfo,
    /// The contract version in force.
    pub contract_version: ContractVersion,
    /// The head of each subscription joined.
    pub positions: Positions,
    /// For each subscription joined: whether it goes on where `since` left off.
    pub recovered: Recovered,
}

/// What a node knows of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// The name of the session.
    pub connection_id: ConnectionId,
    /// The route it came in by: `dashboard`, `agents`, `coordination`, `tasks` or `system`.
    pub connection_type: String,
    /// When it was accepted.
    pub connected_at: Timestamp,
    /// The node that holds it.
    pub node_id: NodeId,
}

/// The credential runs out soon: send `auth_refresh`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthExpiring {
    /// Follows this notice.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// When the credential ends.
    pub expires_at: Timestamp,
}

/// Answers `auth_refresh`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthRefreshed {
    /// The client's own, when it sent one.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// When the new credential ends.
    pub expires_at: Timestamp,
}

/// The client asked for a contract version that is not supported; it is served all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionWarning {
    /// Follows the handshake.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// What the client asked for.
    pub requested_version: String,
    /// The contract version in force.
    pub current_version: ContractVersion,
    /// The contract versions that clients may ask for.
    pub supported_versions: Vec<ContractVersion>,
    /// Where the way from one version to the next is described.
    pub migration_url: String,
}

/// The last frame before the node closes an established session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DisconnectNotice {
    /// Follows the disconnect into the log.
    pub correlation_id: CorrelationId,
    /// When the frame was made.
    pub timestamp: Timestamp,
    /// Why.
    pub reason: DisconnectReason,
    /// The close code that follows.
    pub code: CloseCode,
    /// How long to wait before connecting again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// More for people: an administrator's words, the limit that was passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
