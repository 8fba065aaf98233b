//! A batch of publications, and what is made of it once for all sessions that take the same part.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

use super::local::{Local, Reckoning};
use crate::catalog::SubMask;
use crate::hub::frame::Publication;
use crate::hub::outbox::Room;
use crate::time::Moment;
use crate::ws::Coding;

/// Several frames are put one behind the other for all sessions that are due them, up to so many bytes: the
/// kernel takes one piece in less time than many. Beyond that the copy costs as much as it saves.
const JOINED_MAX: usize = 64 * 1_024;

/// A batch, and what is the same for all sessions that take the same part of it.
pub(super) struct Batch<'a> {
    pub(super) publications: &'a [Arc<Publication>],
    /// What was put together last, for each coding.
    parts: [Part<'a>; 1 + Coding::DEFLATED],
    pub(super) now: Moment,
    pub(super) time: Reckoning,
    pub(super) room: Room,
}

/// The frames of a batch that some subscriptions are due, in one form.
#[derive(Default)]
pub(super) struct Part<'a> {
    subs: SubMask,
    pub(super) slices: Vec<IoSlice<'a>>,
    /// All of them in one piece, when they are several and small.
    joined: Vec<u8>,
    pub(super) bytes: usize,
}

impl Part<'_> {
    /// Gives `to` what a socket is to be sent.
    pub(super) fn give<T>(&self, to: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        if self.joined.is_empty() { to(&self.slices) } else { to(&[IoSlice::new(&self.joined)]) }
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        publications: &'a [Arc<Publication>],
        (now, time): (Moment, Reckoning),
        room: Room,
    ) -> Self {
        Self { publications, parts: Default::default(), now, time, room }
    }

    /// Counts what sockets were sent whole by `at`.
    pub(super) fn delivered(&mut self, of: (SubMask, Coding), at: Instant, sessions: u64, local: &mut Local) {
        if sessions == 0 {
            return;
        }
        let part = self.part(of);
        local.bytes_sent.inc_by(sessions * part.bytes as u64);
        local.sent.inc_by(sessions * part.slices.len() as u64);
        let (subs, coding) = of;
        for publication in self.due(subs) {
            if let Some(tally) = publication.tally() {
                tally.delivered(sessions, at);
            }
            let frame = publication.live();
            let seconds = at.duration_since(publication.received()).as_secs_f64();
            local.delivery.observe(seconds, sessions, at, frame.is_sampled(), || frame.subject());
            local.reached(frame, sessions, self.time.age(frame, at), at);
            let bytes = frame.bytes(coding).len() as f64;
            for _ in 0..sessions {
                local.bytes_out.observe(bytes);
            }
        }
    }

    pub(super) fn subs(&self) -> SubMask {
        let mut subs = SubMask::default();
        for publication in self.publications {
            subs.insert(publication.sub());
        }
        subs
    }

    /// The frames of `subs`, put together unless they were those of the last session.
    pub(super) fn part(&mut self, (subs, coding): (SubMask, Coding)) -> &Part<'a> {
        let part = &mut self.parts[coding.index().map_or(0, |index| 1 + index)];
        if part.subs != subs || part.slices.is_empty() {
            part.subs = subs;
            part.slices.clear();
            let due = self.publications.iter().filter(|publication| subs.contains(publication.sub()));
            part.slices.extend(due.map(|publication| IoSlice::new(publication.live().bytes(coding))));
            part.bytes = part.slices.iter().map(|slice| slice.len()).sum();
            part.joined.clear();
            if part.slices.len() > 1 && part.bytes <= JOINED_MAX {
                part.joined.reserve_exact(part.bytes);
                for slice in &part.slices {
                    part.joined.extend_from_slice(slice);
                }
            }
        }
        part
    }

    /// The publications of `subs`.
    pub(super) fn due(&self, subs: SubMask) -> impl Iterator<Item = &'a Publication> + use<'a> {
        let all = self.publications.iter().map(Arc::as_ref);
        all.filter(move |publication| subs.contains(publication.sub()))
    }
}
