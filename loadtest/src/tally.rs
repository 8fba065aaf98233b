//! What arrived: which publication on which connection, how often, and how late. Exact, because every
//! connection has a bit for every publication; nothing is estimated from totals.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::connection::Receiver;
use crate::marker::Finder;

/// The longest latency that is told apart from longer ones: an hour, in nanoseconds.
const LATENCY_MAX_NANOS: u64 = 3_600_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Counts the deliveries of one run.
pub(crate) struct Tally {
    run: u64,
    publications_max: usize,
    finder: Finder,
    connections: Vec<Seen>,
    latency: Histogram<u64>,
    unique: u64,
    duplicates: u64,
    reordered: u64,
    coalesced: u64,
    other: u64,
    frame_bytes: usize,
}

/// What one connection has seen.
#[derive(Debug, Clone)]
struct Seen {
    /// A bit per publication.
    bits: Vec<u64>,
    /// The number after the highest publication so far.
    next: u32,
}

/// A frame that is not a publication of this run, as far as it matters.
#[derive(Deserialize)]
struct OtherFrame {
    #[serde(rename = "type")]
    frame_type: String,
    #[serde(default)]
    count: u64,
}

/// The tally, once everything has arrived.
#[derive(Debug, Clone)]
pub(crate) struct Totals {
    /// Acknowledged publications times connections that were open before the first.
    pub(crate) expected: u64,
    /// Of those, the ones that arrived.
    pub(crate) delivered: u64,
    /// Further arrivals of the same publication on the same connection.
    pub(crate) duplicates: u64,
    /// Arrivals after that of a later publication.
    pub(crate) reordered: u64,
    /// Frames that the server says it left out for a connection that was behind.
    pub(crate) coalesced: u64,
    /// Arrivals of publications that were not acknowledged.
    pub(crate) unacknowledged: u64,
    /// Frames that were not publications of this run.
    pub(crate) other: u64,
    /// Bytes of the last publication's frame, without the WebSocket header.
    pub(crate) frame_bytes: usize,
    pub(crate) latency: Latency,
}

impl Totals {
    /// What is missing and was not announced as left out.
    pub(crate) fn lost(&self) -> u64 {
        (self.expected - self.delivered).saturating_sub(self.coalesced)
    }
}

/// Microseconds from just before the request was written to just after the delivery was read.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Tally {
    /// For `connections`, each of which gets at most `publications_max` publications of `run`.
    pub(crate) fn new(run: u64, connections: usize, publications_max: usize) -> anyhow::Result<Self> {
        let seen = Seen { bits: vec![0; publications_max.div_ceil(64)], next: 0 };
        Ok(Self {
            run,
            publications_max,
            finder: Finder::default(),
            connections: vec![seen; connections],
            latency: Histogram::new_with_max(LATENCY_MAX_NANOS, LATENCY_DIGITS)
                .context("cannot make the histogram of latencies")?,
            unique: 0,
            duplicates: 0,
            reordered: 0,
            coalesced: 0,
            other: 0,
            frame_bytes: 0,
        })
    }

    /// Different deliveries so far.
    pub(crate) fn unique(&self) -> u64 {
        self.unique
    }

    /// The totals for the connections of `open` and the publications of `acknowledged`.
    pub(crate) fn totals(&self, open: &[bool], acknowledged: &[bool]) -> Totals {
        let mut mask = vec![0_u64; self.publications_max.div_ceil(64)];
        for seq in (0..self.publications_max.min(acknowledged.len())).filter(|seq| acknowledged[*seq]) {
            mask[seq / 64] |= 1 << (seq % 64);
        }
        let count = |bits: &[u64]| -> u64 {
            bits.iter().zip(&mask).map(|(seen, wanted)| u64::from((seen & wanted).count_ones())).sum()
        };
        let open_count = open.iter().filter(|open| **open).count() as u64;
        let seen = self.connections.iter().zip(open).filter(|(_, open)| **open);
        let delivered = seen.map(|(connection, _)| count(&connection.bits)).sum();
        let micros = |nanos: u64| (nanos as f64 / 100.0).round() / 10.0;
        let quantile = |share| micros(self.latency.value_at_quantile(share));
        Totals {
            expected: count(&mask) * open_count,
            delivered,
            duplicates: self.duplicates,
            reordered: self.reordered,
            coalesced: self.coalesced,
            unacknowledged: self.unique - delivered,
            other: self.other,
            frame_bytes: self.frame_bytes,
            latency: Latency {
                p50: quantile(0.5),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: micros(self.latency.max()),
            },
        }
    }

    fn other_frame(&mut self, message: &[u8]) {
        self.other += 1;
        if let Ok(frame) = serde_json::from_slice::<OtherFrame>(message)
            && frame.frame_type == "coalesced"
        {
            self.coalesced += frame.count;
        }
    }
}

impl Receiver for Tally {
    fn message(&mut self, connection: usize, message: &[u8], at: u64) {
        let marker = self.finder.find(message).filter(|marker| marker.run == self.run);
        let Some(marker) = marker.filter(|marker| (marker.seq as usize) < self.publications_max) else {
            self.other_frame(message);
            return;
        };
        let Some(seen) = self.connections.get_mut(connection) else { return };
        let (word, bit) = (marker.seq as usize / 64, 1 << (marker.seq % 64));
        if seen.bits[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        seen.bits[word] |= bit;
        if marker.seq < seen.next {
            self.reordered += 1;
        } else {
            seen.next = marker.seq + 1;
        }
        self.unique += 1;
        self.frame_bytes = message.len();
        self.latency.saturating_record(at.saturating_sub(marker.nanos));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::Marker;

    fn tally() -> Tally {
        Tally::new(1, 2, 100).unwrap()
    }

    fn deliver(tally: &mut Tally, connection: usize, seqs: &[u32]) {
        for seq in seqs {
            let data = Marker { run: 1, seq: *seq, nanos: 1_000 }.data(None, 100);
            tally.message(connection, data.as_bytes(), 3_000);
        }
    }

    #[test]
    fn every_loss_and_duplicate_is_counted_exactly() {
        let mut tally = tally();
        deliver(&mut tally, 0, &[0, 1, 2, 66]);
        deliver(&mut tally, 1, &[0, 2, 1, 1]);
        let mut acknowledged = vec![true; 67];
        acknowledged[2] = false;
        let totals = tally.totals(&[true, true], &acknowledged);
        assert_eq!((totals.expected, totals.delivered), (66 * 2, 5));
        assert_eq!((totals.duplicates, totals.reordered, totals.unacknowledged), (1, 1, 2));
        assert_eq!(totals.lost(), 66 * 2 - 5);
        assert_eq!(totals.latency.p50, 2.0);
    }

    #[test]
    fn connections_that_were_not_open_are_not_expected_to_get_anything() {
        let mut tally = tally();
        deliver(&mut tally, 0, &[0]);
        let totals = tally.totals(&[true, false], &[true]);
        assert_eq!((totals.expected, totals.delivered, totals.lost()), (1, 1, 0));
    }

    #[test]
    fn publications_of_other_runs_are_other_frames() {
        let mut tally = tally();
        tally.message(0, Marker { run: 2, seq: 0, nanos: 0 }.data(None, 100).as_bytes(), 1);
        tally.message(0, Marker { run: 1, seq: 100, nanos: 0 }.data(None, 100).as_bytes(), 1);
        assert_eq!((tally.unique(), tally.other), (0, 2));
    }

    #[test]
    fn what_the_server_says_it_left_out_is_not_lost() {
        let mut tally = tally();
        deliver(&mut tally, 0, &[3]);
        tally.message(0, br#"{"type":"coalesced","from_seq":1,"to_seq":3,"count":3}"#, 1);
        let totals = tally.totals(&[true], &[true; 4]);
        assert_eq!((totals.coalesced, totals.lost()), (3, 0));
    }
}
