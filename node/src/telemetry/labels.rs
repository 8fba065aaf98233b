//! Closed sets of the values that labels have, where no other module owns them.

/// Why a frame that was queued never left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discarded {
    /// The session was ended for backpressure or abuse.
    Backpressure,
    /// The connection ended first.
    Closed,
}

impl Discarded {
    pub(crate) const ALL: [Self; 2] = [Self::Backpressure, Self::Closed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Backpressure => "backpressure",
            Self::Closed => "closed",
        }
    }
}

/// Why a snapshot was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotReason {
    /// The session joined without a position, or with one that cannot be continued.
    Join,
    /// The log began anew.
    Epoch,
}

impl SnapshotReason {
    pub(crate) const ALL: [Self; 2] = [Self::Join, Self::Epoch];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Epoch => "epoch",
        }
    }
}

/// Why a publication was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Invalid,
    TooLarge,
    StateFull,
    Conflict,
    Timeout,
    Unavailable,
    /// Its publisher has gone before the log answered.
    GivenUp,
}

impl Refusal {
    pub(crate) const ALL: [Self; 7] = [
        Self::Invalid,
        Self::TooLarge,
        Self::StateFull,
        Self::Conflict,
        Self::Timeout,
        Self::Unavailable,
        Self::GivenUp,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::StateFull => "state_full",
            Self::Conflict => "conflict",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::GivenUp => "given_up",
        }
    }
}

/// Why a publication from outside was dropped or repaired (CONTRACT sections 6 and 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Larger than a publication may be.
    TooLarge,
    /// Not a JSON object.
    Json,
    /// No subscription of that name.
    Subscription,
    /// The subscription carries no such message type.
    MessageType,
    /// The data breaks its schema.
    Schema,
    /// The log refused it: a conflict, or no room.
    Refused,
    /// The log could not be reached, and whatever handed it in does not keep it.
    Unavailable,
    /// It found no room to wait in.
    Overflow,
    /// Its correlation id could not be taken over: it got another, and was published.
    CorrelationId,
}

impl Rejected {
    pub(crate) const ALL: [Self; 9] = [
        Self::TooLarge,
        Self::Json,
        Self::Subscription,
        Self::MessageType,
        Self::Schema,
        Self::Refused,
        Self::Unavailable,
        Self::Overflow,
        Self::CorrelationId,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Json => "invalid_json",
            Self::Subscription => "unknown_subscription",
            Self::MessageType => "unknown_message_type",
            Self::Schema => "schema",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Overflow => "overflow",
            Self::CorrelationId => "correlation_id",
        }
    }
}

/// Why a handshake got no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeRefusal {
    Malformed,
    /// No connection by TLS came about, on a node that speaks nothing else.
    Tls,
    Timeout,
    NodeFull,
    AddressFull,
    /// Its peer has too many connections that are not a session.
    AddressWaiting,
    ClusterFull,
    /// The node has not borrowed a place, or not for this user, and does not know that there is none.
    NotLent,
    UserFull,
    Rate,
    Shutdown,
}

impl HandshakeRefusal {
    pub(crate) const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Tls,
        Self::Timeout,
        Self::NodeFull,
        Self::AddressFull,
        Self::AddressWaiting,
        Self::ClusterFull,
        Self::NotLent,
        Self::UserFull,
        Self::Rate,
        Self::Shutdown,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::NodeFull => "node_full",
            Self::AddressFull => "address_full",
            Self::AddressWaiting => "address_waiting",
            Self::ClusterFull => "cluster_full",
            Self::NotLent => "not_lent",
            Self::UserFull => "user_full",
            Self::Rate => "rate",
            Self::Shutdown => "shutdown",
        }
    }
}
