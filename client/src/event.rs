//! What a [`Client`](crate::Client) tells its caller.

use std::time::Duration;

use hiveops_proto::frame::{ConnectionEstablished, SnapshotItem};
use hiveops_proto::{Epoch, Position, ServerFrame, SubscriptionName};

/// One thing that happened, in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session began: the first one, or one after a reconnect.
    Connected {
        /// The first frame of the session.
        frame: Box<ConnectionEstablished>,
    },
    /// A frame to act upon. Publications come in the order of their `seq`, none of them twice; answers
    /// and notices come as they are. Snapshots, coalesced notices and what repeats do not come as frames.
    Frame(ServerFrame),
    /// Publications are missing. The client has asked for them already; nothing of this subscription is
    /// delivered until a replay or a snapshot has mended it.
    Gap {
        /// The subscription.
        subscription: SubscriptionName,
        /// The first `seq` that is missing.
        from: u64,
        /// The last `seq` known to be missing.
        to: u64,
    },
    /// Publications that do not come because later values took their place: nothing is wrong.
    Omitted {
        /// The subscription.
        subscription: SubscriptionName,
        /// The first `seq` left out.
        from: u64,
        /// The last `seq` left out.
        to: u64,
    },
    /// A snapshot is complete and has replaced the state of the subscription.
    Snapshot {
        /// The subscription.
        subscription: SubscriptionName,
        /// What the snapshot stands for.
        position: Position,
        /// The latest value of every key, in the order of `seq`.
        items: Vec<SnapshotItem>,
    },
    /// The subscription's log began a new life; a snapshot follows.
    EpochChanged {
        /// The subscription.
        subscription: SubscriptionName,
        /// The life that is over.
        from: Epoch,
        /// The one that began.
        to: Epoch,
    },
    /// A message that this build does not know or cannot read. It was ignored.
    Unknown {
        /// Its `type`, when there is one.
        frame_type: Option<String>,
        /// Why it could not be read.
        error: String,
    },
    /// The connection ended, or could not be made.
    Disconnected {
        /// The close code, when the node sent one.
        code: Option<u16>,
        /// The node's reason, or what went wrong.
        reason: String,
        /// When the client will come back by itself; `None`: not at all, see [`crate::Client::stopped`].
        retry_in: Option<Duration>,
    },
}
