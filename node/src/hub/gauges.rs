//! Counts that a shard shows to the rest of the node: the shard alone writes them, from its own lists.

use std::sync::atomic::{AtomicUsize, Ordering};

use hiveops_proto::contract::SUBSCRIPTIONS_MAX;
use parking_lot::Mutex;

use super::books::Books;
use crate::catalog::SubId;

/// One shard's figures.
#[derive(Debug)]
pub(crate) struct Gauges {
    sessions: AtomicUsize,
    outbox_frames: AtomicUsize,
    joined: Vec<AtomicUsize>,
    /// As they were when somebody last asked. Held to put them there and to copy them.
    books: Mutex<Books>,
}

impl Gauges {
    pub(super) fn new() -> Self {
        Self {
            sessions: AtomicUsize::new(0),
            outbox_frames: AtomicUsize::new(0),
            joined: std::iter::repeat_with(AtomicUsize::default).take(SUBSCRIPTIONS_MAX).collect(),
            books: Mutex::default(),
        }
    }

    pub(super) fn add_sessions(&self, count: usize) {
        self.sessions.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn take_sessions(&self, count: usize) {
        self.sessions.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn set_outbox_frames(&self, count: usize) {
        self.outbox_frames.store(count, Ordering::Relaxed);
    }

    pub(super) fn set_joined(&self, sub: SubId, count: usize) {
        if let Some(gauge) = self.joined.get(sub.index()) {
            gauge.store(count, Ordering::Relaxed);
        }
    }

    pub(super) fn show_books(&self, books: Books) {
        *self.books.lock() = books;
    }

    pub(super) fn books(&self) -> Books {
        self.books.lock().clone()
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(super) fn outbox_frames(&self) -> usize {
        self.outbox_frames.load(Ordering::Relaxed)
    }

    pub(super) fn joined(&self, sub: SubId) -> usize {
        self.joined.get(sub.index()).map_or(0, |gauge| gauge.load(Ordering::Relaxed))
    }
}
