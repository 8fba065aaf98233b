//! A shard's own copy of one subscription's log, and the frames that a joining session gets from it.

use std::collections::VecDeque;
use std::sync::Arc;

use hiveops_proto::frame::{Snapshot, SnapshotItem};
use hiveops_proto::{CorrelationId, Position, SubscriptionName, Timestamp};

use super::frame::{Publication, SealedFrame};
use crate::bus::Reset;
use crate::catalog::SubId;
use crate::log::CompactedLog;
use crate::trace::{OWED_MAX, Tally};

/// Frames of one replay at most (CONTRACT section 5); beyond it the snapshot is the better answer.
const REPLAY_FRAMES_MAX: usize = 300;

/// Bytes of one replay at most (CONTRACT section 5).
const REPLAY_BYTES_MAX: usize = 1024 * 1024;

/// What marks a frame of a replay, and its live form lacks.
const REPLAY_MARK_BYTES: usize = r#","replayed":true"#.len();

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
    /// Those of the last publications, whatever the log still has of them: sessions that are behind owe them
    /// an end.
    tallies: VecDeque<Arc<Tally>>,
}

impl View {
    /// A log that nothing is known of yet.
    pub(crate) fn new(sub: SubId, name: SubscriptionName, log: CompactedLog<Arc<Publication>>) -> Self {
        Self { sub, name, log, snapshot: None, tallies: VecDeque::new() }
    }

    /// The log is another one now, or was read anew.
    pub(crate) fn reset(&mut self, reset: &Reset, entries: &[Arc<Publication>]) {
        let entries = entries.iter().cloned();
        self.log = CompactedLog::restore(reset.epoch.clone(), reset.head, reset.floor, entries);
        self.snapshot = None;
        self.tallies.clear();
    }

    pub(crate) fn append(&mut self, publication: &Arc<Publication>) {
        self.log.append(Arc::clone(publication));
        self.snapshot = None;
        if let Some(tally) = publication.tally() {
            if self.tallies.len() == OWED_MAX {
                self.tallies.pop_front();
            }
            self.tallies.push_back(Arc::clone(tally));
        }
    }

    /// What was published after `after` and before `before`, as far as it is still counted.
    pub(crate) fn between(&self, after: u64, before: u64) -> impl Iterator<Item = &Tally> {
        let first = self.tallies.partition_point(|tally| tally.seq <= after);
        let rest = self.tallies.range(first..).map(Arc::as_ref);
        rest.take_while(move |tally| tally.seq < before)
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
            bytes += publication.live().len() + REPLAY_MARK_BYTES;
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::hub::testing::Source;

    fn filled(source: &Source, publications: impl IntoIterator<Item = Arc<Publication>>) -> View {
        let mut view = source.view();
        publications.into_iter().for_each(|publication| view.append(&publication));
        view
    }

    fn snapshot(view: &mut View) -> Arc<[SealedFrame]> {
        view.snapshot(Timestamp::from_millis(1), || CorrelationId::new("s").unwrap())
    }

    /// The JSON of a server's frame.
    fn json(frame: &SealedFrame) -> Value {
        let bytes = frame.bytes(crate::ws::Coding::Plain);
        let header = match bytes[1] {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        serde_json::from_slice(&bytes[header..]).unwrap()
    }

    fn seqs(frames: &[SealedFrame]) -> Vec<u64> {
        frames.iter().filter_map(|frame| frame.place().map(|place| place.seq)).collect()
    }

    #[test]
    fn an_empty_state_is_one_empty_part() {
        let frames = snapshot(&mut Source::new("tasks").view());
        let frame = json(&frames[0]);
        assert_eq!(
            (frames.len(), &frame["parts"], frame["items"].as_array().unwrap().len()),
            (1, &1.into(), 0)
        );
    }

    #[test]
    fn a_large_state_comes_in_parts_that_are_whole_and_within_their_size() {
        let source = Source::new("tasks");
        let quotes = "\\\"".repeat(100);
        let small = (1..=3_000).map(|seq| source.update(seq, &format!("k{seq}"), 0));
        let escaped = (3_001..=4_000).map(|seq| source.update(seq, &format!("{quotes}{seq}"), 0));
        let large = (4_001..=4_020).map(|seq| source.update(seq, &format!("l{seq}"), 60_000));
        let frames = snapshot(&mut filled(&source, small.chain(escaped).chain(large)));
        assert!(frames.len() > 5);
        assert!(frames.iter().all(|frame| frame.len() <= 256 * 1_024));
        let parts: Vec<Value> = frames.iter().map(json).collect();
        let mut items = Vec::new();
        for (part, index) in parts.iter().zip(1_u64..) {
            assert_eq!(
                (part["part"].as_u64(), part["parts"].as_u64()),
                (Some(index), Some(parts.len() as u64))
            );
            assert_eq!((&part["seq"], &part["correlation_id"]), (&4_020.into(), &"s".into()));
            items.extend(part["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()));
        }
        assert_eq!(items, (1..=4_020).collect::<Vec<_>>());
    }

    #[test]
    fn sessions_that_join_at_one_head_share_a_snapshot_and_the_next_head_has_its_own() {
        let source = Source::new("tasks");
        let mut view = filled(&source, [source.update(1, "a", 0), source.event(2, 0)]);
        let first = snapshot(&mut view);
        assert!(Arc::ptr_eq(&first, &snapshot(&mut view)));
        view.append(&source.removal(3, "a"));
        let frame = json(&snapshot(&mut view)[0]);
        assert_eq!((&frame["seq"], frame["items"].as_array().unwrap().len()), (&3.into(), 0));
        let anew = Source::in_epoch("tasks", 8);
        view.reset(&anew.reset(3, 0), &[anew.update(3, "b", 0)]);
        let frame = json(&snapshot(&mut view)[0]);
        assert_eq!((&frame["epoch"], &frame["items"][0]["key"]), (&"0000000000000008".into(), &"b".into()));
    }

    #[test]
    fn a_replay_goes_on_after_a_position_of_its_own_epoch_and_leaves_out_what_was_overwritten() {
        let source = Source::new("tasks");
        let all =
            [source.update(1, "a", 0), source.event(2, 0), source.update(3, "a", 0), source.event(4, 0)];
        let view = filled(&source, all);
        let at = |epoch, seq| Position { epoch: hiveops_proto::Epoch::from_bits(epoch), seq };
        let epoch = crate::hub::testing::EPOCH;
        assert!(view.can_continue(&at(epoch, 0)) && view.can_continue(&at(epoch, 4)));
        assert!(!view.can_continue(&at(epoch, 5)) && !view.can_continue(&at(epoch + 1, 2)));
        let frames = view.replay_after(0);
        assert_eq!(seqs(&frames), [2, 3, 4]);
        assert!(frames.iter().all(|frame| json(frame)["replayed"] == true));
        assert_eq!(seqs(&view.replay_after(4)), [0_u64; 0]);
    }

    #[test]
    fn a_replay_is_bounded_by_frames_and_by_bytes() {
        let source = Source::new("tasks");
        let start = Position { epoch: source.view().position().epoch, seq: 0 };
        let events = |count| (1..=count).map(|seq| source.event(seq, 0));
        assert!(filled(&source, events(300)).can_continue(&start));
        assert!(!filled(&source, events(301)).can_continue(&start));
        for (pad, fits) in [(9_000, true), (11_000, false)] {
            let view = filled(&source, (1..=100).map(|seq| source.event(seq, pad)));
            assert_eq!(view.can_continue(&start), fits);
            let bytes: usize = view.replay_after(0).iter().map(SealedFrame::len).sum();
            assert_eq!(bytes <= REPLAY_BYTES_MAX, fits);
        }
    }

    #[test]
    fn live_frames_go_on_until_something_between_is_gone() {
        let source = Source::new("tasks");
        let mut view = filled(&source, (1..=10).map(|seq| source.event(seq, 0)));
        assert_eq!(seqs(&view.live_after(3, 4).unwrap()), [4, 5, 6, 7]);
        assert_eq!(seqs(&view.live_after(10, 4).unwrap()), [0_u64; 0]);
        assert!(view.live_after(11, 4).is_none());
        view.expire(Timestamp::from_millis(i64::MAX));
        assert!(view.live_after(9, 4).is_none() && view.live_after(10, 4).is_some());
        view.reset(&source.reset(30, 20), &[source.event(25, 0)]);
        assert!(view.live_after(19, 4).is_none());
        assert_eq!(seqs(&view.live_after(20, 4).unwrap()), [25]);
    }
}
