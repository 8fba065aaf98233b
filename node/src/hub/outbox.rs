//! What waits for one session: bounded, the latest value per key, and honest about what it left out. Pure.
//!
//! A session has an outbox only while its socket takes less than is due to it. `seq` of a subscription
//! only grows in it: an update takes the queued one of the same key out and goes to the tail. The notice
//! about what was left out is made when a frame is prepared for writing, from the difference between its
//! `prev_seq` and what was sent before it, so it is right however often the queue was rearranged.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;
use hiveops_proto::Limits;

use super::frame::{Place, SealedFrame};
use crate::catalog::SubId;
use crate::time::Moment;
use crate::ws::Coding;

/// Frames that one system call writes at most; the kernel takes up to 1,024 pieces.
pub(crate) const WRITE_FRAMES_MAX: usize = 64;

/// Protocol pings and pongs that may wait: a peer that asks for more does not read the answers.
const CONTROLS_MAX: usize = 16;

/// A session's queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// The form in which the session gets its frames.
    coding: Coding,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Bytes of the front entry that are written already.
    offset: usize,
    /// Entries at the front whose order and omissions are settled; nothing may change among them.
    pinned: usize,
    cursors: Vec<Cursor>,
    /// Each value whose place a later one took, until somebody counts them.
    replaced: Vec<SealedFrame>,
}

/// How far a subscription that has passed through has come, since the session joined it.
#[derive(Debug)]
struct Cursor {
    sub: SubId,
    /// The last `seq` that left or is settled to leave.
    settled: u64,
    /// The last `seq` that was queued. Kept, because a frame that has begun to leave stays queued when the
    /// session leaves the subscription, and tells nothing of where it stands after it has come back.
    tail: u64,
}

#[derive(Debug)]
struct Entry {
    item: Item,
    queued_at: Moment,
}

/// What an entry is.
#[derive(Debug, Clone)]
pub(crate) enum Item {
    Frame(SealedFrame),
    /// A ping, pong or close frame, encoded.
    Control(Bytes),
}

impl Item {
    fn bytes(&self, coding: Coding) -> &Bytes {
        match self {
            Self::Frame(frame) => frame.bytes(coding),
            Self::Control(bytes) => bytes,
        }
    }

    pub(crate) fn frame(&self) -> Option<&SealedFrame> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::Control(_) => None,
        }
    }

    fn place(&self) -> Option<&Place> {
        self.frame().and_then(SealedFrame::place)
    }

    fn sub(&self) -> Option<SubId> {
        self.frame().and_then(SealedFrame::sub)
    }

    /// The subscription that the books count it under: that of a live publication, and of nothing else.
    pub(crate) fn due(&self) -> Option<SubId> {
        self.place().filter(|place| !place.replayed).map(|place| place.sub)
    }
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

impl Room {
    pub(crate) fn of(limits: &Limits) -> Self {
        let count = |value| usize::try_from(value).unwrap_or(usize::MAX);
        Self { frames: count(limits.outbox_frames_max), bytes: count(limits.outbox_bytes_max) }
    }
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Queued,
    /// It took the place of an older value of its key.
    Coalesced,
    /// Neither was possible: a send failure.
    Full,
}

/// An omission that the peer must be told of before the frame that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Omission {
    pub(crate) sub: SubId,
    pub(crate) from_seq: u64,
    pub(crate) to_seq: u64,
}

impl Outbox {
    pub(crate) fn new(coding: Coding) -> Self {
        Self { coding, ..Self::default() }
    }

    /// Queues a frame, or puts it in the place of an older value.
    pub(crate) fn push(&mut self, frame: SealedFrame, room: Room, now: Moment) -> Pushed {
        let len = frame.bytes(self.coding).len();
        if let Some(place) = frame.place() {
            self.begin(place.sub, place.prev_seq);
            if let Some(index) = self.same_value(place) {
                let old = self.entries[index].item.bytes(self.coding).len();
                let alone = self.entries.len() == 1;
                if self.bytes - old + len > room.bytes && !alone {
                    return Pushed::Full;
                }
                if let Some(Entry { item: Item::Frame(replaced), .. }) = self.entries.remove(index) {
                    self.replaced.push(replaced);
                }
                self.bytes -= old;
                self.append(Item::Frame(frame), now);
                return Pushed::Coalesced;
            }
        }
        // When nothing waits, one frame of any size may: it could never be sent otherwise.
        let over = self.entries.len() >= room.frames || self.bytes + len > room.bytes;
        if over && !self.entries.is_empty() {
            return Pushed::Full;
        }
        self.append(Item::Frame(frame), now);
        Pushed::Queued
    }

    /// Queues a frame whatever the limits say: the notice before a close, and the rest of a write that
    /// the socket cut short.
    pub(crate) fn push_forced(&mut self, frame: SealedFrame, now: Moment) {
        if let Some(place) = frame.place() {
            self.begin(place.sub, place.prev_seq);
        }
        self.append(Item::Frame(frame), now);
    }

    /// Puts a ping or pong before everything that is not begun; false when too many wait already.
    pub(crate) fn push_control(&mut self, bytes: Bytes, now: Moment) -> bool {
        let begun = usize::from(self.offset > 0);
        let controls = self
            .entries
            .iter()
            .skip(begun)
            .take_while(|entry| matches!(entry.item, Item::Control(_)))
            .count();
        if controls >= CONTROLS_MAX {
            return false;
        }
        let index = begun + controls;
        self.bytes += bytes.len();
        self.entries.insert(index, Entry { item: Item::Control(bytes), queued_at: now });
        if index <= self.pinned {
            self.pinned += 1;
        }
        true
    }

    /// Queues the close frame behind everything.
    pub(crate) fn push_close(&mut self, bytes: Bytes, now: Moment) {
        self.append(Item::Control(bytes), now);
    }

    fn append(&mut self, item: Item, now: Moment) {
        if let Some(place) = item.place()
            && let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.sub == place.sub)
        {
            cursor.tail = place.seq;
        }
        self.bytes += item.bytes(self.coding).len();
        self.entries.push_back(Entry { item, queued_at: now });
    }

    /// Says that, until a frame of the subscription waited, everything up to `seq` was sent; nothing when
    /// one has passed through already.
    pub(crate) fn begin(&mut self, sub: SubId, seq: u64) {
        if !self.cursors.iter().any(|cursor| cursor.sub == sub) {
            self.cursors.push(Cursor { sub, settled: seq, tail: seq });
        }
    }

    /// Says that the peer has, or will have by what is queued, everything of `sub` up to `seq`.
    pub(crate) fn set_cursor(&mut self, sub: SubId, seq: u64) {
        self.cursors.retain(|cursor| cursor.sub != sub);
        self.cursors.push(Cursor { sub, settled: seq, tail: seq });
    }

    /// The last `seq` of a subscription that is queued or was sent; none when it never passed through.
    pub(crate) fn tail(&self, sub: SubId) -> Option<u64> {
        self.cursors.iter().find(|cursor| cursor.sub == sub).map(|cursor| cursor.tail)
    }

    /// The last `seq` of a subscription that left or is settled to leave; none when it never passed
    /// through.
    pub(crate) fn cursor(&self, sub: SubId) -> Option<u64> {
        self.cursors.iter().find(|cursor| cursor.sub == sub).map(|cursor| cursor.settled)
    }

    fn same_value(&self, place: &Place) -> Option<usize> {
        let key = place.key.as_ref().filter(|_| !place.replayed)?;
        let same = |entry: &Entry| {
            entry.item.place().is_some_and(|other| {
                other.sub == place.sub && other.key.as_ref() == Some(key) && !other.replayed
            })
        };
        (self.pinned.max(usize::from(self.offset > 0))..self.entries.len())
            .find(|index| same(&self.entries[*index]))
    }

    /// Settles the first entries: puts the notice of an omission before a frame that does not follow the
    /// one before it. `notice` makes the frame.
    pub(crate) fn prepare(&mut self, mut notice: impl FnMut(Omission) -> SealedFrame) {
        while self.pinned < self.entries.len().min(WRITE_FRAMES_MAX) {
            let entry = &self.entries[self.pinned];
            let queued_at = entry.queued_at;
            let Some(place) = entry.item.place().cloned() else {
                self.pinned += 1;
                continue;
            };
            let cursor = self.cursors.iter_mut().find(|cursor| cursor.sub == place.sub);
            let sent = cursor.as_ref().map_or(place.prev_seq, |cursor| cursor.settled);
            if let Some(cursor) = cursor {
                cursor.settled = cursor.settled.max(place.seq);
            }
            if place.prev_seq > sent && !place.replayed {
                let omission = Omission { sub: place.sub, from_seq: sent + 1, to_seq: place.prev_seq };
                let item = Item::Frame(notice(omission));
                self.bytes += item.bytes(self.coding).len();
                self.entries.insert(self.pinned, Entry { item, queued_at });
                self.pinned += 1;
            }
            self.pinned += 1;
        }
    }

    /// Counts each value that was replaced since the last time; `counted` hears its subscription.
    pub(crate) fn count_replaced(&mut self, mut counted: impl FnMut(SubId)) {
        for frame in std::mem::take(&mut self.replaced) {
            frame.coalesced();
            frame.sub().into_iter().for_each(&mut counted);
        }
    }

    /// The bytes of the prepared entries.
    pub(crate) fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.pinned.min(WRITE_FRAMES_MAX));
        for (index, entry) in self.entries.iter().take(self.pinned.min(WRITE_FRAMES_MAX)).enumerate() {
            let skip = if index == 0 { self.offset } else { 0 };
            slices.push(IoSlice::new(&entry.item.bytes(self.coding)[skip..]));
        }
        slices
    }

    /// Takes `written` bytes off the front and names each entry that has left whole.
    pub(crate) fn advance(&mut self, written: usize, mut left: impl FnMut(&Item, Moment)) {
        let mut rest = self.offset + written;
        while let Some(front) = self.entries.front() {
            let len = front.item.bytes(self.coding).len();
            if rest < len {
                break;
            }
            rest -= len;
            self.bytes -= len;
            self.pinned = self.pinned.saturating_sub(1);
            left(&front.item, front.queued_at);
            self.entries.pop_front();
        }
        self.offset = rest;
    }

    /// Notes how much of the front entry the socket has taken outside of the outbox.
    pub(crate) fn begin_front(&mut self, written: usize) {
        debug_assert!(self.entries.len() == 1 && self.offset == 0, "only a new outbox begins in the middle");
        self.offset = written;
        self.pinned = 1;
        if let Some(place) = self.entries.front().and_then(|entry| entry.item.place().cloned()) {
            self.set_cursor(place.sub, place.seq);
        }
    }

    /// Throws away what is not begun, and says what that was.
    pub(crate) fn clear(&mut self) -> Vec<Item> {
        let kept = usize::from(self.offset > 0);
        let gone: Vec<Item> =
            self.entries.drain(kept.min(self.entries.len())..).map(|entry| entry.item).collect();
        self.bytes = self.entries.iter().map(|entry| entry.item.bytes(self.coding).len()).sum();
        self.pinned = self.entries.len();
        gone
    }

    /// Takes out the frames of one subscription, snapshots and notices included: the session has left it.
    /// What is settled stays, because a pong behind it may have said already that it comes. `lost` hears of
    /// each frame that does not. Returns how many live publications were taken out.
    pub(crate) fn remove(&mut self, sub: SubId, lost: impl Fn(&SealedFrame)) -> u64 {
        let (settled, coding, mut index, mut gone) = (self.pinned, self.coding, 0, 0);
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let keep = index < settled || entry.item.sub() != Some(sub);
            if !keep {
                *bytes -= entry.item.bytes(coding).len();
                entry.item.frame().into_iter().for_each(&lost);
                gone += u64::from(entry.item.due().is_some());
            }
            index += 1;
            keep
        });
        self.cursors.retain(|cursor| cursor.sub != sub);
        gone
    }

    /// The subscription of each live publication that waits, one that has begun to leave included.
    pub(crate) fn due(&self) -> impl Iterator<Item = SubId> {
        self.entries.iter().filter_map(|entry| entry.item.due())
    }

    /// Loses a publication, as a mistake would: for the tests of those who must notice.
    #[cfg(test)]
    pub(crate) fn lose_one(&mut self) -> bool {
        let last = self.entries.iter().rposition(|entry| entry.item.due().is_some());
        let begun = usize::from(self.offset > 0);
        let Some(index) = last.filter(|index| *index >= begun) else { return false };
        let lost = self.entries.remove(index);
        self.pinned -= usize::from(index < self.pinned);
        self.bytes -= lost.map_or(0, |entry| entry.item.bytes(self.coding).len());
        true
    }

    /// What waits, of publications and anything else that is a frame.
    pub(crate) fn frames_left(&self) -> impl Iterator<Item = &SealedFrame> {
        self.entries.iter().filter_map(|entry| entry.item.frame())
    }

    pub(crate) fn frames(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts anew what is kept count of.
    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        let bytes: usize = self.entries.iter().map(|entry| entry.item.bytes(self.coding).len()).sum();
        assert_eq!(self.bytes, bytes, "the bytes are those of the entries");
        assert!(self.pinned <= self.entries.len(), "only entries are settled");
        assert!(self.offset == 0 || self.pinned > 0, "what has begun is settled");
        let front = self.entries.front().map_or(1, |entry| entry.item.bytes(self.coding).len());
        assert!(self.offset < front, "a front entry that has left whole is gone");
    }

    /// Publications that wait, and their bytes.
    #[cfg(test)]
    pub(crate) fn publications(&self) -> (usize, usize) {
        let waiting = self.entries.iter().filter(|entry| entry.item.place().is_some());
        waiting
            .fold((0, 0), |(frames, bytes), entry| (frames + 1, bytes + entry.item.bytes(self.coding).len()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
