//! What a shard counts for itself, and adds to what the node shows once per turn.

use std::time::{Duration, Instant};

use hiveops_proto::Timestamp;
use prometheus::local::{LocalHistogram, LocalIntCounter};

use crate::hub::books::Books;
use crate::hub::frame::SealedFrame;
use crate::telemetry::latency::LocalLatency;
use crate::telemetry::metrics::Metrics;

/// The shard's own counts. The books are not added to anything: who wants them asks for them.
pub(super) struct Local {
    pub(super) books: Books,
    pub(super) sent: LocalIntCounter,
    pub(super) bytes_sent: LocalIntCounter,
    pub(super) received: LocalIntCounter,
    pub(super) bytes_received: LocalIntCounter,
    pub(super) delivery: LocalLatency,
    publish_to_socket: LocalLatency,
    /// From the node's receipt of a publication to a shard's beginning with it.
    pub(super) wait: LocalHistogram,
    /// A batch's time in the sends, and all of its other time.
    pub(super) send: LocalHistogram,
    pub(super) own: LocalHistogram,
    /// Of the batch that is going out.
    pub(super) sending: Duration,
    pub(super) outbox_wait: LocalHistogram,
    pub(super) bytes_out: LocalHistogram,
    pub(super) bytes_in: LocalHistogram,
}

impl Local {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            books: Books::default(),
            sent: metrics.messages_sent.local(),
            bytes_sent: metrics.bytes_sent.local(),
            received: metrics.messages_received.local(),
            bytes_received: metrics.bytes_received.local(),
            delivery: metrics.delivery.local(),
            publish_to_socket: metrics.publish_to_socket.local(),
            wait: metrics.fanout.with_label_values(&["wait"]).local(),
            send: metrics.fanout.with_label_values(&["send"]).local(),
            own: metrics.fanout.with_label_values(&["own"]).local(),
            sending: Duration::ZERO,
            outbox_wait: metrics.outbox_wait.local(),
            bytes_out: metrics.message_bytes.with_label_values(&["out"]).local(),
            bytes_in: metrics.message_bytes.with_label_values(&["in"]).local(),
        }
    }

    /// So many sockets took this publication whole, `seconds` after it was published.
    pub(super) fn reached(&mut self, frame: &SealedFrame, sessions: u64, seconds: f64, at: Instant) {
        if let Some(place) = frame.place() {
            self.books.delivered(place.sub, sessions);
        }
        self.publish_to_socket.observe(seconds, sessions, at, frame.is_sampled(), || frame.subject());
    }

    pub(super) fn flush(&mut self, now: impl Fn() -> Timestamp) {
        self.sent.flush();
        self.bytes_sent.flush();
        self.received.flush();
        self.bytes_received.flush();
        self.delivery.flush(&now);
        self.publish_to_socket.flush(&now);
        self.wait.flush();
        self.send.flush();
        self.own.flush();
        self.outbox_wait.flush();
        self.bytes_out.flush();
        self.bytes_in.flush();
    }
}

/// Wall-clock time at the beginning of something, from which later moments of it are reckoned: the wall clock
/// is read once, and cannot be set meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reckoning {
    pub(super) wall: Timestamp,
    pub(super) begun: Instant,
}

impl Reckoning {
    /// How old a publication is at `at`, in seconds.
    pub(super) fn age(&self, frame: &SealedFrame, at: Instant) -> f64 {
        let before = frame.published().map_or(0, |published| self.wall.millis_since(published));
        before as f64 / 1_000.0 + at.saturating_duration_since(self.begun).as_secs_f64()
    }
}
