//! Every WebSocket message of the contract, one struct each.
//!
//! [`ServerFrame`] is what a node sends, [`ClientFrame`] what it reads. The tag is the member `type`; for
//! publications it is the message type that the contract version declares, so that one struct serves all
//! of them. Members that a reader does not know are ignored.

mod client;
mod data;
mod publication;
mod reply;
mod session;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

pub use client::{AuthRefresh, ClientFrame, Ping, Rejection, RequestData, Subscribe, Unsubscribe};
pub use data::{Coalesced, Heartbeat, Snapshot, SnapshotItem};
pub use publication::Publication;
pub use reply::{DataError, DataResponse, DataType, ErrorFrame, Pong, SubscriptionUpdated};
pub use session::{
    AuthExpiring, AuthRefreshed, ConnectionEstablished, ConnectionInfo, DashboardInitialized,
    DisconnectNotice, SessionLimits, VersionWarning,
};

/// Declares the frames whose `type` is fixed, and how they are told apart.
macro_rules! server_frames {
    ($($variant:ident = $tag:literal,)+) => {
        /// One message from a node to a client.
        #[derive(Debug, Clone, PartialEq)]
        pub enum ServerFrame {
            $(#[doc = concat!("`", $tag, "`")] $variant($variant),)+
            /// `*_update`, `*_event` and `critical_alert`.
            Publication(Publication),
        }

        impl ServerFrame {
            /// The `type` of every frame but the publications.
            pub const FIXED_TYPES: &'static [&'static str] = &[$($tag,)+];

            /// The `type` of this frame.
            pub fn frame_type(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $tag,)+
                    Self::Publication(frame) => frame.message_type.as_str(),
                }
            }

            /// The correlation id of this frame: each has one.
            pub fn correlation_id(&self) -> &crate::CorrelationId {
                match self {
                    $(Self::$variant(frame) => &frame.correlation_id,)+
                    Self::Publication(frame) => &frame.correlation_id,
                }
            }
        }

        impl Serialize for ServerFrame {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                #[derive(Serialize)]
                #[serde(tag = "type")]
                enum Tagged<'a> { $(#[serde(rename = $tag)] $variant(&'a $variant),)+ }
                match self {
                    $(Self::$variant(frame) => Tagged::$variant(frame).serialize(serializer),)+
                    Self::Publication(frame) => frame.serialize(serializer),
                }
            }
        }

        // Two steps instead of serde's internal tag: that one buffers the members, and a `Payload` needs
        // the text itself.
        impl<'de> Deserialize<'de> for ServerFrame {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let raw = Box::<RawValue>::deserialize(deserializer)?;
                let head: Head = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
                match head.frame_type.as_str() {
                    $($tag => serde_json::from_str(raw.get()).map(Self::$variant).map_err(D::Error::custom),)+
                    other if crate::MessageKind::of_type(other).is_some() => {
                        serde_json::from_str(raw.get()).map(Self::Publication).map_err(D::Error::custom)
                    }
                    other => Err(D::Error::custom(format!("unknown frame type `{other}`"))),
                }
            }
        }

        $(impl From<$variant> for ServerFrame {
            fn from(frame: $variant) -> Self {
                Self::$variant(frame)
            }
        })+
    };
}

server_frames! {
    ConnectionEstablished = "connection_established",
    DashboardInitialized = "dashboard_initialized",
    Snapshot = "snapshot",
    SubscriptionUpdated = "subscription_updated",
    Pong = "pong",
    Heartbeat = "heartbeat",
    Coalesced = "coalesced",
    DataResponse = "data_response",
    DataError = "data_error",
    ErrorFrame = "error",
    AuthExpiring = "auth_expiring",
    AuthRefreshed = "auth_refreshed",
    VersionWarning = "version_warning",
    DisconnectNotice = "disconnect_notice",
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    frame_type: String,
}

impl From<Publication> for ServerFrame {
    fn from(frame: Publication) -> Self {
        Self::Publication(frame)
    }
}

/// For `skip_serializing_if`: a flag that is only written when it is set.
fn is_false(flag: &bool) -> bool {
    !flag
}
