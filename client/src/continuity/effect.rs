//! What the continuity rules say is to be done about a frame. The vectors spell these as JSON.

use hiveops_proto::frame::{ClientFrame, SnapshotItem, Subscribe};
use hiveops_proto::{Epoch, Positions, SubscriptionName};
use serde::Serialize;

/// One thing to do, or to know, because of a frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Effect {
    /// Hand the frame to the caller.
    Deliver,
    /// The frame tells nothing new; ignore it.
    Duplicate {
        /// The subscription.
        subscription: SubscriptionName,
    },
    /// The subscription is being mended or has not begun; what the frame tells will come again.
    Withheld {
        /// The subscription.
        subscription: SubscriptionName,
    },
    /// The frame is of a subscription that is not joined (any more); ignore it.
    Stray {
        /// The subscription.
        subscription: SubscriptionName,
    },
    /// Values that do not come because later ones took their place. The position has moved on.
    Omitted {
        /// The subscription.
        subscription: SubscriptionName,
        /// The first one left out.
        from: u64,
        /// The last one left out.
        to: u64,
    },
    /// Publications are missing; a `Resubscribe` follows.
    Gap {
        /// The subscription.
        subscription: SubscriptionName,
        /// The first one that is missing.
        from: u64,
        /// The last one known to be missing.
        to: u64,
    },
    /// Send `subscribe` for these subscriptions with these positions.
    Resubscribe {
        /// Where to go on; [`super::NOWHERE`] as the epoch asks for a snapshot.
        since: Positions,
    },
    /// A part of a snapshot came and is kept; there are more.
    SnapshotPart {
        /// The subscription.
        subscription: SubscriptionName,
        /// Which part.
        part: u32,
        /// Of how many.
        parts: u32,
    },
    /// A snapshot is complete: the state of the subscription has been replaced.
    Snapshot {
        /// The subscription.
        subscription: SubscriptionName,
        /// The life of its log.
        epoch: Epoch,
        /// The position that the snapshot stands for.
        seq: u64,
        /// Every value; the vectors check them as the state.
        #[serde(skip)]
        items: Vec<SnapshotItem>,
    },
    /// The log began a new life; the snapshot that says so follows.
    EpochChanged {
        /// The subscription.
        subscription: SubscriptionName,
        /// The life that is over.
        from: Epoch,
        /// The one that began.
        to: Epoch,
    },
    /// The node does not count the subscription to this session (any more); its state is gone.
    Left {
        /// The subscription.
        subscription: SubscriptionName,
    },
}

impl Effect {
    /// The message that a `Resubscribe` asks for.
    pub fn subscribe(since: Positions) -> ClientFrame {
        let subscriptions = since.keys().map(ToString::to_string).collect();
        ClientFrame::Subscribe(Subscribe { correlation_id: None, subscriptions, since })
    }
}
