//! A shard's own copy of one subscription's log, and the frames that a joining session gets from it.

use std::sync::Arc;

use hiveops_proto::frame::{Snapshot, SnapshotItem};
use hiveops_proto::{CorrelationId, Position, SubscriptionName, Timestamp};

use super::frame::{Publication, SealedFrame};
use crate::bus::Reset;
use crate::catalog::SubId;
use crate::log::CompactedLog;

/// Frames of one replay at most (CONTRACT section 5); beyond it the snapshot is the better answer.
const REPLAY_FRAMES_MAX: usize = 300;

/// Bytes of one replay at most (CONTRACT section 5).
const REPLAY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of one part of a snapshot at most (CONTRACT section 4), less the frame's own members.
const PART_BYTES_MAX: usize = 256 * 1024 - 1_024;

/// What a JSON item of a snapshot takes besides its key and its data.
const ITEM_OVERHEAD: usize = 128;

/// One subscription on one shard.
pub(crate) struct View {
    sub: SubId,
    name: SubscriptionName,
    log: CompactedLog<Arc<Publication>>,
    /// The snapshot at a head; sessions that join at the same head share it.
    snapshot: Option<(u64, Arc<[SealedFrame]>)>,
}

impl View {
    /// A log that nothing is known of yet.
    pub(crate) fn new(sub: SubId, name: SubscriptionName, log: CompactedLog<Arc<Publication>>) -> Self {
        Self { sub, name, log, snapshot: None }
    }

    /// The log is another one now, or was read anew.
    pub(crate) fn reset(&mut self, reset: &Reset, entries: &[Arc<Publication>]) {
        let entries = entries.iter().cloned();
        self.log = CompactedLog::restore(reset.epoch.clone(), reset.head, reset.floor, entries);
        self.snapshot = None;
    }

    pub(crate) fn append(&mut self, publication: &Arc<Publication>) {
        self.log.append(Arc::clone(publication));
        self.snapshot = None;
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.log.expire(now);
    }

    pub(crate) fn sub(&self) -> SubId {
        self.sub
    }

    pub(crate) fn head(&self) -> u64 {
        self.log.head()
    }

    pub(crate) fn position(&self) -> Position {
        self.log.position()
    }

    /// Whether `since` can be continued within the bounds of a replay.
    pub(crate) fn can_continue(&self, since: &Position) -> bool {
        let Some(rest) = self.log.since(since) else { return false };
        let (mut frames, mut bytes) = (0, 0);
        for publication in rest {
            frames += 1;
            // The length of the live frame: the mark of a replay adds a few bytes.
            bytes += publication.live().len();
            if frames > REPLAY_FRAMES_MAX || bytes > REPLAY_BYTES_MAX {
                return false;
            }
        }
        true
    }

    /// What follows `seq`, marked `replayed`. The caller has asked [`View::can_continue`].
    pub(crate) fn replay_after(&self, seq: u64) -> Vec<SealedFrame> {
        let rest = self.log.after(seq).into_iter().flatten();
        rest.map(|publication| publication.replay().clone()).collect()
    }

    /// Up to `max` live frames after `seq`; none when something in between is gone.
    pub(crate) fn live_after(&self, seq: u64, max: usize) -> Option<Vec<SealedFrame>> {
        let rest = self.log.after(seq)?;
        Some(rest.take(max).map(|publication| publication.live().clone()).collect())
    }

    /// The whole state, in parts.
    pub(crate) fn snapshot(
        &mut self,
        now: Timestamp,
        new_id: impl Fn() -> CorrelationId,
    ) -> Arc<[SealedFrame]> {
        let head = self.log.head();
        if let Some((at, frames)) = &self.snapshot
            && *at == head
        {
            return Arc::clone(frames);
        }
        let parts = self.parts();
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let correlation_id = new_id();
        let frames: Arc<[SealedFrame]> = (1..)
            .zip(parts)
            .map(|(part, items)| {
                let frame = Snapshot {
                    correlation_id: correlation_id.clone(),
                    timestamp: now,
                    subscription: self.name.clone(),
                    epoch: self.log.epoch().clone(),
                    seq: head,
                    items,
                    part,
                    parts: count,
                };
                SealedFrame::seal_of(self.sub, &frame.into())
            })
            .collect();
        self.snapshot = Some((head, Arc::clone(&frames)));
        frames
    }

    /// The items of the state, cut into parts; one empty part when there are none.
    fn parts(&self) -> Vec<Vec<SnapshotItem>> {
        let mut parts = vec![Vec::new()];
        let mut bytes = 0;
        for publication in self.log.values() {
            let stored = publication.stored();
            let Some(value) = &stored.key else { continue };
            let data = stored.envelope.data.clone();
            // A key may double in length when it is escaped.
            let size = data.as_str().len() + 2 * value.key.as_str().len() + ITEM_OVERHEAD;
            if bytes + size > PART_BYTES_MAX && bytes > 0 {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += size;
            let item = SnapshotItem {
                message_type: value.message_type.clone(),
                key: value.key.clone(),
                data,
                seq: stored.seq,
            };
            if let Some(part) = parts.last_mut() {
                part.push(item);
            }
        }
        parts
    }
}
