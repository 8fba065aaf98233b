//! Bodies of HTTP answers that more than one crate reads or writes.

use serde::{Deserialize, Serialize};

use crate::code::words;
use crate::id::{CorrelationId, Epoch};
use crate::subscription::{MessageType, SubscriptionName};
use crate::timestamp::Timestamp;

words! {
    /// What a problem document is about, in one word; its `type` is `/problems/` and this word.
    ProblemKind {
        /// The request itself is malformed: a header, a query, a body that is not JSON.
        BadRequest = "bad_request",
        /// There is no such path or thing.
        NotFound = "not_found",
        /// The path has no such method.
        MethodNotAllowed = "method_not_allowed",
        /// A credential is needed, or the one given is not valid.
        Unauthorized = "unauthorized",
        /// Email or password is wrong, or the user may not come in; which of them is not said.
        InvalidCredentials = "invalid_credentials",
        /// The refresh token is none, or its login has ended.
        InvalidRefreshToken = "invalid_refresh_token",
        /// The refresh token was used before, so somebody has a copy of it: its login has ended.
        RefreshReused = "refresh_reused",
        /// Too many logins of this account, or from this address, were tried lately.
        LoginThrottled = "login_throttled",
        /// The user has as many unused tickets for sockets as one may have.
        TooManyTickets = "too_many_tickets",
        /// The credential does not allow this.
        Forbidden = "forbidden",
        /// The contract in force declares no such subscription.
        UnknownSubscription = "unknown_subscription",
        /// The subscription carries no such message type.
        UnknownMessageType = "unknown_message_type",
        /// The body is JSON, but not what the contract asks for.
        InvalidData = "invalid_data",
        /// The body is too large.
        TooLarge = "too_large",
        /// The same idempotency key was used with other data.
        IdempotencyConflict = "idempotency_conflict",
        /// Somebody else changed the thing first.
        VersionConflict = "version_conflict",
        /// The thing is not in the version that `If-Match` names.
        PreconditionFailed = "precondition_failed",
        /// A thing of that id exists already.
        AlreadyExists = "already_exists",
        /// The subscription holds as many keys or bytes as it may.
        StateFull = "state_full",
        /// The node has as many connections as it may, or they come too fast.
        Overloaded = "overloaded",
        /// So many passwords are being checked that this one would wait too long; it is safe to try again.
        Busy = "busy",
        /// The bus did not answer in time; it is safe to try again.
        BusTimeout = "bus_timeout",
        /// The bus cannot be reached.
        BusUnavailable = "bus_unavailable",
        /// Not every node answered, so that the answer is not known; it is safe to try again.
        ClusterPartial = "cluster_partial",
        /// Too few control replicas answer to decide anything; it is safe to try again.
        NoQuorum = "no_quorum",
        /// The control replica that was asked knows of no leader; it is safe to try again.
        NoLeader = "no_leader",
        /// No control replica can be asked, or none is configured.
        ControlUnavailable = "control_unavailable",
        /// The node goes away.
        Draining = "draining",
        /// The request took too long to arrive.
        RequestTimeout = "request_timeout",
        /// Only a WebSocket handshake makes sense here.
        UpgradeRequired = "upgrade_required",
        /// The body is not JSON by its content type.
        UnsupportedMediaType = "unsupported_media_type",
        /// A bug of ours; the log has the detail under the same `correlation_id`.
        Internal = "internal",
    }
}

/// RFC 9457, with our own members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `/problems/` and the kind.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The kind, for programs.
    pub code: ProblemKind,
    /// Follows the request into the log.
    pub correlation_id: CorrelationId,
    /// The names that would have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_subscriptions: Option<Vec<SubscriptionName>>,
    /// The names that would have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_message_types: Option<Vec<MessageType>>,
    /// The thing as it is now, after a version conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<serde_json::Value>,
}

/// Answers a publication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BroadcastReply {
    /// Always true: what failed is a problem document.
    pub success: bool,
    /// Where it went.
    pub subscription: SubscriptionName,
    /// What it is.
    pub message_type: MessageType,
    /// Sessions of this node that were joined when it replied.
    pub clients_reached: u64,
    /// What `clients_reached` counts: `node`.
    pub scope: String,
    /// Follows the publication.
    pub correlation_id: CorrelationId,
    /// The life of the log.
    pub epoch: Epoch,
    /// The place in the log.
    pub seq: u64,
    /// Whether it was published before and this is that one's place.
    pub duplicate: bool,
    /// When the reply was made.
    pub timestamp: Timestamp,
}
