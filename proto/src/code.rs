//! The closed sets of the wire: error codes, close codes and the reasons of a disconnect.
//!
//! Each is an enum, and a number or text only at the socket or in a label. Adding a variant breaks the
//! build wherever somebody has to decide what it means.

use serde::{Deserialize, Serialize};

/// Declares a closed set of words that is also a metric label.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// Every member of the set.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word on the wire and in labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What an `error` or `data_error` frame says went wrong.
    ErrorCode {
        /// The message is not JSON.
        InvalidJson = "invalid_json",
        /// The message is JSON, but not one of the contract's messages: the text names the field.
        InvalidMessage = "invalid_message",
        /// The contract has no client message of that `type`.
        UnknownMessageType = "unknown_message_type",
        /// The contract in force declares no such subscription.
        UnknownSubscription = "unknown_subscription",
        /// The connection would hold more subscriptions than it may.
        TooManySubscriptions = "too_many_subscriptions",
        /// The role of this connection may not do that.
        Forbidden = "forbidden",
        /// The message is larger than the inbound limit and was not read.
        MessageTooLarge = "message_too_large",
        /// Messages come faster than the inbound rate; this one was dropped.
        RateLimited = "rate_limited",
        /// The contract has no such `data_type`.
        UnknownDataType = "unknown_data_type",
        /// The data exists, but cannot be had just now: try again.
        DataUnavailable = "data_unavailable",
        /// A bug of ours; the log has the detail under the same `correlation_id`.
        Internal = "internal",
    }
}

words! {
    /// Why a session ended: the `reason` of a notice and of a close frame, and a metric label.
    DisconnectReason {
        /// No client message for the idle limit.
        IdleTimeout = "idle_timeout",
        /// No answer to a protocol ping.
        HeartbeatTimeout = "heartbeat_timeout",
        /// The outbox refused too many frames in a row.
        Backpressure = "backpressure",
        /// The node is going away in an orderly manner.
        Draining = "draining",
        /// An administrator ended the session.
        Admin = "admin",
        /// The credential expired and was not renewed.
        TokenExpired = "token_expired",
        /// The credential was revoked.
        Revoked = "revoked",
        /// The session kept sending faster than the limit.
        RateLimitAbuse = "rate_limit_abuse",
        /// A credential is needed and there was none.
        CredentialMissing = "credential_missing",
        /// The credential is not a valid one.
        CredentialInvalid = "credential_invalid",
        /// Pages of this origin may not connect.
        OriginDenied = "origin_denied",
        /// The cluster or the user has as many connections as allowed.
        ConnectionLimit = "connection_limit",
        /// The node could not renew its share of a cluster-wide limit.
        LeaseLost = "lease_lost",
        /// The peer broke the WebSocket protocol.
        ProtocolError = "protocol_error",
        /// The peer sent a binary message.
        BinaryUnsupported = "binary_unsupported",
        /// The peer sent text that is not UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// The peer sent a message over the hard cap.
        MessageTooBig = "message_too_big",
        /// A bug of ours.
        InternalError = "internal_error",
        /// The peer closed the connection properly.
        ClientClosed = "client_closed",
        /// The connection broke, or ended without a close frame.
        ClientGone = "client_gone",
        /// The node stopped without waiting.
        ServerShutdown = "server_shutdown",
    }
}

/// The close codes that HiveOps sends. What a client should do with each is in `docs/protocol.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// Done; also an administrator's disconnect.
    Normal,
    /// The node stops at once: reconnect.
    GoingAway,
    /// The peer broke RFC 6455.
    Protocol,
    /// Binary messages are not part of the contract.
    Unsupported,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// Abuse: the inbound rate was exceeded without end.
    Policy,
    /// A frame or message over the hard cap.
    TooBig,
    /// A bug of ours: reconnect with backoff.
    Internal,
    /// The node drains: reconnect after the hint.
    Restart,
    /// Overload or backpressure: reconnect with backoff.
    TryAgainLater,
    /// The credential is missing, invalid or expired: renew it, then reconnect.
    Unauthorized,
    /// The origin or the permission: do not reconnect without a human.
    Forbidden,
    /// Idle for too long, or no answer to a ping.
    Idle,
}

impl CloseCode {
    /// Every code that we send.
    pub const ALL: &'static [Self] = &[
        Self::Normal,
        Self::GoingAway,
        Self::Protocol,
        Self::Unsupported,
        Self::InvalidUtf8,
        Self::Policy,
        Self::TooBig,
        Self::Internal,
        Self::Restart,
        Self::TryAgainLater,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Idle,
    ];

    /// The number on the wire.
    pub fn as_u16(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::InvalidUtf8 => 1007,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::TryAgainLater => 1013,
            Self::Unauthorized => 4401,
            Self::Forbidden => 4403,
            Self::Idle => 4408,
        }
    }

    /// The code behind a number from the wire, when it is one of ours.
    pub fn from_u16(code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_u16() == code)
    }
}

impl Serialize for CloseCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.as_u16())
    }
}

impl<'de> Deserialize<'de> for CloseCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = u16::deserialize(deserializer)?;
        Self::from_u16(code)
            .ok_or_else(|| serde::de::Error::custom(format!("{code} is not a close code of ours")))
    }
}

impl DisconnectReason {
    /// The close code that goes with the reason.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Admin | Self::ClientClosed => CloseCode::Normal,
            Self::ClientGone | Self::ServerShutdown => CloseCode::GoingAway,
            Self::ProtocolError => CloseCode::Protocol,
            Self::BinaryUnsupported => CloseCode::Unsupported,
            Self::InvalidUtf8 => CloseCode::InvalidUtf8,
            Self::RateLimitAbuse => CloseCode::Policy,
            Self::MessageTooBig => CloseCode::TooBig,
            Self::InternalError => CloseCode::Internal,
            Self::Draining => CloseCode::Restart,
            Self::Backpressure | Self::ConnectionLimit | Self::LeaseLost => CloseCode::TryAgainLater,
            Self::CredentialMissing | Self::CredentialInvalid | Self::TokenExpired | Self::Revoked => {
                CloseCode::Unauthorized
            }
            Self::OriginDenied => CloseCode::Forbidden,
            Self::IdleTimeout | Self::HeartbeatTimeout => CloseCode::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_read_back() {
        let mut seen = std::collections::HashSet::new();
        for code in ErrorCode::ALL {
            assert!(seen.insert(code.as_str()));
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
        }
    }

    #[test]
    fn close_codes_are_unique_and_read_back() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_u16(code.as_u16()), Some(*code));
        }
        assert_eq!(CloseCode::from_u16(1005), None);
    }

    #[test]
    fn every_reason_fits_a_close_frame() {
        for reason in DisconnectReason::ALL {
            assert!(reason.as_str().len() <= 123 && reason.close_code().as_u16() >= 1000);
        }
    }
}
