//! What a proxy really did.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// All of it since the start, apart from the two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Accepted.
    pub connections: u64,
    /// Open now.
    pub open: u64,
    /// Somebody listens now: false under `Refuse`.
    pub listening: bool,
    /// Times that the listener was closed for `Refuse`.
    pub listener_closings: u64,
    /// Connections that found no server.
    pub upstream_failures: u64,
    /// Read from a client and from the server, whether they were passed on or not.
    pub bytes_from_client: u64,
    pub bytes_from_server: u64,
    /// Written to the server and to a client.
    pub bytes_to_server: u64,
    pub bytes_to_client: u64,
    /// Of those, written later than they could have been: `Delay`, `Jitter`, `Rate`.
    pub bytes_delayed: u64,
    /// Thrown away after a half close.
    pub bytes_dropped: u64,
    /// Pieces written under `Slice`.
    pub slices: u64,
    /// Times that something really was there to be passed on and was held by `Blackhole`.
    pub stalls: u64,
    /// Directions of connections closed by `HalfClose`.
    pub half_closes: u64,
    /// Connections reset by `Reset`.
    pub resets: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) listener_closings: AtomicU64,
    pub(super) listening: AtomicBool,
    pub(super) upstream_failures: AtomicU64,
    pub(super) to_server: Way,
    pub(super) to_client: Way,
    pub(super) resets: AtomicU64,
}

/// What happened to the bytes of one direction.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) bytes_delayed: AtomicU64,
    pub(super) bytes_dropped: AtomicU64,
    pub(super) slices: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) half_closes: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        let both = |read: fn(&Way) -> &AtomicU64| get(read(&self.to_server)) + get(read(&self.to_client));
        Counts {
            connections: get(&self.connections),
            open: get(&self.open),
            listening: self.listening.load(Ordering::SeqCst),
            listener_closings: get(&self.listener_closings),
            upstream_failures: get(&self.upstream_failures),
            bytes_from_client: get(&self.to_server.bytes_read),
            bytes_from_server: get(&self.to_client.bytes_read),
            bytes_to_server: get(&self.to_server.bytes_written),
            bytes_to_client: get(&self.to_client.bytes_written),
            bytes_delayed: both(|way| &way.bytes_delayed),
            bytes_dropped: both(|way| &way.bytes_dropped),
            slices: both(|way| &way.slices),
            stalls: both(|way| &way.stalls),
            half_closes: both(|way| &way.half_closes),
            resets: get(&self.resets),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::SeqCst);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}
