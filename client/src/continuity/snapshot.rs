//! Puts the parts of a snapshot together. The value holds only once all of them are there, and only when
//! they are parts of one.

use hiveops_proto::Epoch;
use hiveops_proto::frame::{Snapshot, SnapshotItem};

use super::state::KEYS_MAX;

/// The parts that have come so far.
#[derive(Debug)]
pub(super) struct Parts {
    epoch: Epoch,
    seq: u64,
    parts: u32,
    last: u32,
    items: Vec<SnapshotItem>,
}

/// What a part makes of those before it.
pub(super) enum Taken {
    More(Parts),
    Complete(Vec<SnapshotItem>),
    /// It does not follow them.
    Broken,
}

impl Parts {
    /// Adds a part; the first one begins a new snapshot, whatever there was.
    pub(super) fn take(before: Option<Self>, frame: &Snapshot) -> Taken {
        let mut whole = match before {
            _ if frame.part == 1 => Self::begin(frame),
            Some(parts) if parts.is_followed_by(frame) => parts,
            _ => return Taken::Broken,
        };
        whole.last = frame.part;
        // One more than a state takes, so that it knows of those left out; never more, whatever comes.
        let room = (KEYS_MAX + 1).saturating_sub(whole.items.len());
        whole.items.extend(frame.items.iter().take(room).cloned());
        match whole.last.cmp(&whole.parts) {
            std::cmp::Ordering::Less => Taken::More(whole),
            std::cmp::Ordering::Equal => Taken::Complete(whole.items),
            std::cmp::Ordering::Greater => Taken::Broken,
        }
    }

    fn begin(frame: &Snapshot) -> Self {
        Self { epoch: frame.epoch.clone(), seq: frame.seq, parts: frame.parts, last: 0, items: Vec::new() }
    }

    fn is_followed_by(&self, frame: &Snapshot) -> bool {
        self.epoch == frame.epoch
            && self.seq == frame.seq
            && self.parts == frame.parts
            && self.last.checked_add(1) == Some(frame.part)
    }
}
