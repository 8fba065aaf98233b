//! What arrived: which publication on which connection, how often, and how late. Exact, because every
//! connection has a bit for every publication; nothing is estimated from totals. What a connection missed is
//! seen a second way, by the chain of `prev_seq` on it.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::chain::{self, Chain, Step};
use crate::connection::Receiver;
use crate::marker::Finder;
use crate::names::Channels;

/// The longest latency that is told apart from longer ones: an hour, in nanoseconds.
const LATENCY_MAX_NANOS: u64 = 3_600_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// Counts the deliveries of one run.
pub(crate) struct Tally {
    run: u64,
    publications_max: usize,
    channels: Channels,
    finder: Finder,
    chain_finder: chain::Finder,
    connections: Vec<Seen>,
    latency: Histogram<u64>,
    unique: u64,
    duplicates: u64,
    reordered: u64,
    gaps: u64,
    chained: u64,
    coalesced: u64,
    other: u64,
    frame_bytes: usize,
}

/// What one connection has seen.
#[derive(Debug, Clone)]
struct Seen {
    /// A bit per publication.
    bits: Vec<u64>,
    /// One for each subscription that it joined.
    tracks: Vec<Track>,
}

/// How far a connection is on one subscription.
#[derive(Debug, Clone, Copy, Default)]
struct Track {
    /// The number after the highest publication so far.
    next: u32,
    chain: Chain,
}

/// A frame that is not a publication of this run, as far as it matters.
#[derive(Deserialize)]
struct OtherFrame {
    #[serde(rename = "type")]
    frame_type: String,
    #[serde(default)]
    subscription: String,
    #[serde(default)]
    from_seq: u64,
    #[serde(default)]
    to_seq: u64,
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
    /// Arrivals after that of a later publication of the same subscription.
    pub(crate) reordered: u64,
    /// Publications that the chains of `prev_seq` lack, and that no `coalesced` announced.
    pub(crate) gaps: u64,
    /// Arrivals whose place in their chain was looked at; peers of another kind have none.
    pub(crate) chained: u64,
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
    pub(crate) fn new(
        run: u64,
        channels: &Channels,
        connections: usize,
        publications_max: usize,
    ) -> anyhow::Result<Self> {
        let seen = Seen {
            bits: vec![0; publications_max.div_ceil(64)],
            tracks: vec![Track::default(); channels.per_connection()],
        };
        Ok(Self {
            run,
            publications_max,
            channels: channels.clone(),
            finder: Finder::default(),
            chain_finder: chain::Finder::default(),
            connections: vec![seen; connections],
            latency: Histogram::new_with_max(LATENCY_MAX_NANOS, LATENCY_DIGITS)
                .context("cannot make the histogram of latencies")?,
            unique: 0,
            duplicates: 0,
            reordered: 0,
            gaps: 0,
            chained: 0,
            coalesced: 0,
            other: 0,
            frame_bytes: 0,
        })
    }

    /// Different deliveries so far.
    pub(crate) fn unique(&self) -> u64 {
        self.unique
    }

    /// How many deliveries the publications of `acknowledged` make on the connections of `open`.
    pub(crate) fn expected(&self, open: &[bool], acknowledged: &[bool]) -> u64 {
        let mut published = vec![0_u64; self.channels.count()];
        for seq in (0..self.publications_max.min(acknowledged.len())).filter(|seq| acknowledged[*seq]) {
            published[seq % self.channels.count()] += 1;
        }
        let open = open.iter().enumerate().filter(|(_, open)| **open);
        open.flat_map(|(number, _)| self.channels.of_connection(number)).map(|at| published[at]).sum()
    }

    /// The totals for the connections of `open` and the publications of `acknowledged`.
    pub(crate) fn totals(&self, open: &[bool], acknowledged: &[bool]) -> Totals {
        let words = self.publications_max.div_ceil(64);
        let mut masks = vec![vec![0_u64; words]; self.channels.count()];
        for seq in (0..self.publications_max.min(acknowledged.len())).filter(|seq| acknowledged[*seq]) {
            masks[seq % self.channels.count()][seq / 64] |= 1 << (seq % 64);
        }
        let count = |number: usize, bits: &[u64]| -> u64 {
            let of = |mask: &Vec<u64>| -> u64 {
                bits.iter().zip(mask).map(|(seen, wanted)| u64::from((seen & wanted).count_ones())).sum()
            };
            self.channels.of_connection(number).map(|channel| of(&masks[channel])).sum()
        };
        let seen = self.connections.iter().enumerate().zip(open).filter(|(_, open)| **open);
        let delivered = seen.map(|((number, connection), _)| count(number, &connection.bits)).sum();
        Totals {
            expected: self.expected(open, acknowledged),
            delivered,
            duplicates: self.duplicates,
            reordered: self.reordered,
            gaps: self.gaps,
            chained: self.chained,
            coalesced: self.coalesced,
            unacknowledged: self.unique - delivered,
            other: self.other,
            frame_bytes: self.frame_bytes,
            latency: Latency::of(&self.latency),
        }
    }

    fn other_frame(&mut self, connection: usize, message: &[u8]) {
        self.other += 1;
        let Ok(frame) = serde_json::from_slice::<OtherFrame>(message) else { return };
        if frame.frame_type != "coalesced" {
            return;
        }
        self.coalesced += frame.count;
        let channel = self.channels.names.iter().position(|name| name.as_str() == frame.subscription);
        let place = channel.and_then(|channel| self.channels.place(connection, channel));
        let seen = self.connections.get_mut(connection);
        if let Some(track) = seen.zip(place).and_then(|(seen, place)| seen.tracks.get_mut(place)) {
            match track.chain.omitted(frame.from_seq, frame.to_seq) {
                Step::Next => {}
                Step::Gap(missing) => self.gaps += missing,
                Step::Back => self.reordered += 1,
            }
        }
    }
}

impl Receiver for Tally {
    fn message(&mut self, connection: usize, message: &[u8], at: u64) {
        let marker = self.finder.find(message).filter(|marker| marker.run == self.run);
        let Some(marker) = marker.filter(|marker| (marker.seq as usize) < self.publications_max) else {
            self.other_frame(connection, message);
            return;
        };
        let Some(seen) = self.connections.get_mut(connection) else { return };
        let (word, bit) = (marker.seq as usize / 64, 1 << (marker.seq % 64));
        if seen.bits[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        seen.bits[word] |= bit;
        self.unique += 1;
        self.frame_bytes = message.len();
        self.latency.saturating_record(at.saturating_sub(marker.nanos));
        let channel = self.channels.of_publication(marker.seq);
        // What a connection gets without having joined it is in no mask, and so is not counted as delivered.
        let place = self.channels.place(connection, channel);
        let Some(track) = place.and_then(|place| seen.tracks.get_mut(place)) else { return };
        let mut back = marker.seq < track.next;
        track.next = track.next.max(marker.seq + 1);
        let head = &message[..self.finder.last().min(message.len())];
        if let Some((seq, prev_seq)) = self.chain_finder.find(head) {
            self.chained += 1;
            match track.chain.follow(seq, prev_seq) {
                Step::Next => {}
                Step::Gap(missing) => self.gaps += missing,
                Step::Back => back = true,
            }
        }
        self.reordered += u64::from(back);
    }
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub(crate) fn of(nanos: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| (nanos as f64 / 100.0).round() / 10.0;
        let quantile = |share| micros(nanos.value_at_quantile(share));
        Self { p50: quantile(0.5), p99: quantile(0.99), p999: quantile(0.999), max: micros(nanos.max()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::{Marker, Padding};

    fn channels(names: &[&str]) -> Channels {
        let mut channels = Channels::one("a".parse().unwrap(), "a_event".parse().unwrap());
        channels.names = names.iter().map(|name| name.parse().unwrap()).collect();
        channels.types = names.iter().map(|name| format!("{name}_event").parse().unwrap()).collect();
        channels
    }

    fn tally() -> Tally {
        Tally::new(1, &channels(&["tasks"]), 2, 100).unwrap()
    }

    fn deliver(tally: &mut Tally, connection: usize, seqs: &[u32]) {
        for seq in seqs {
            let data = Marker { run: 1, seq: *seq, nanos: 1_000 }.data(None, 100, Padding::Plain);
            tally.message(connection, data.as_bytes(), 3_000);
        }
    }

    /// As a server of the contract sends it: publication `seq` of the run has the place `place`.
    fn frame(seq: u32, place: u64) -> String {
        let data = Marker { run: 1, seq, nanos: 1_000 }.data(None, 100, Padding::Plain);
        format!(r#"{{"type":"x_event","seq":{place},"prev_seq":{},"data":{data}}}"#, place - 1)
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
        assert_eq!(totals.chained, 0, "these frames have no place");
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
        for (run, seq) in [(2, 0), (1, 100)] {
            tally.message(0, Marker { run, seq, nanos: 0 }.data(None, 100, Padding::Plain).as_bytes(), 1);
        }
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

    #[test]
    fn a_chain_that_breaks_is_a_gap_unless_it_was_announced() {
        let mut tally = tally();
        let notice = br#"{"type":"coalesced","subscription":"tasks","from_seq":12,"to_seq":14,"count":3}"#;
        for message in [frame(0, 10).as_bytes(), frame(1, 11).as_bytes(), notice, frame(5, 15).as_bytes()] {
            tally.message(0, message, 1);
        }
        let totals = tally.totals(&[true], &[true; 6]);
        assert_eq!((totals.gaps, totals.reordered, totals.lost(), totals.chained), (0, 0, 0, 3));
        tally.message(0, frame(8, 18).as_bytes(), 1);
        tally.message(0, frame(7, 17).as_bytes(), 1);
        let totals = tally.totals(&[true], &[true; 9]);
        assert_eq!((totals.gaps, totals.reordered), (2, 1));
    }

    #[test]
    fn a_connection_is_expected_to_get_what_it_joined() {
        let channels = channels(&["a", "b", "c"]);
        let mut tally = Tally::new(1, &channels, 4, 7).unwrap();
        // Publications 0, 3, 6 go to the first, which connections 0 and 3 have joined.
        deliver(&mut tally, 0, &[0, 3]);
        deliver(&mut tally, 1, &[1, 0]);
        let totals = tally.totals(&[true; 4], &[true; 7]);
        assert_eq!((totals.expected, totals.delivered), (3 + 2 + 2 + 3, 3));
        assert_eq!(totals.unacknowledged, 1, "what it did not join is not its delivery");
        assert_eq!(tally.expected(&[false, true, false, false], &[true, true]), 1);
    }
}
