//! When each byte of one direction is passed on, and in which pieces. Pure: the time is an argument, and a
//! seed decides the rest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::fault::Fault;
use crate::random::Random;

/// Bytes on their way at most; beyond that nothing is read, as when a network's buffers are full.
const BYTES_MAX: usize = 1_048_576;
/// `Rate` passes on so many pieces in a second, if it can.
const PIECES_PER_SECOND: u64 = 100;

/// Bytes on their way.
#[derive(Debug)]
pub(super) struct Schedule {
    pieces: VecDeque<Piece>,
    bytes: usize,
    random: Random,
    /// Nothing later is due before this.
    free_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) due: Instant,
    pub(super) delayed: bool,
    pub(super) sliced: bool,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, random: Random::new(seed), free_at: None }
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Piece> {
        self.pieces.front()
    }

    /// Plans what was read under this fault.
    pub(super) fn push(&mut self, fault: Fault, bytes: &[u8], now: Instant) {
        match fault {
            Fault::Delay(delay) => self.add(bytes, now + delay, delay > Duration::ZERO),
            Fault::Jitter { max } => {
                let delay = Duration::from_nanos(self.random.up_to(nanos(max)));
                let due = self.free_at.map_or(now + delay, |free_at| free_at.max(now + delay));
                self.free_at = Some(due);
                self.add(bytes, due, due > now);
            }
            Fault::Rate { bytes_per_second } => self.push_paced(bytes_per_second.max(1), bytes, now),
            Fault::Slice { max_bytes } => self.push_sliced(max_bytes.max(1), bytes, now),
            Fault::Pass | Fault::Blackhole | Fault::HalfClose | Fault::Reset | Fault::Refuse => {
                self.add(bytes, now, false);
            }
        }
    }

    /// So many bytes of the front piece have been written.
    pub(super) fn written(&mut self, length: usize) {
        self.bytes -= length;
        let Some(piece) = self.pieces.front_mut() else { return };
        if length < piece.bytes.len() {
            piece.bytes.drain(..length);
        } else {
            self.pieces.pop_front();
        }
    }

    /// Another fault is set: what waits is due at once.
    pub(super) fn release(&mut self, now: Instant) {
        self.free_at = None;
        for piece in &mut self.pieces {
            piece.due = piece.due.min(now);
        }
    }

    /// How many bytes were thrown away.
    pub(super) fn clear(&mut self) -> usize {
        self.pieces.clear();
        std::mem::take(&mut self.bytes)
    }

    fn push_paced(&mut self, bytes_per_second: u64, bytes: &[u8], now: Instant) {
        let length = usize::try_from(bytes_per_second / PIECES_PER_SECOND).unwrap_or(usize::MAX).max(1);
        for part in bytes.chunks(length) {
            // A piece takes its time before it arrives, so that the first is late too.
            let takes = Duration::from_nanos(part.len() as u64 * 1_000_000_000 / bytes_per_second);
            let due = self.free_at.map_or(now, |free_at| free_at.max(now)) + takes;
            self.free_at = Some(due);
            self.add(part, due, true);
        }
    }

    fn push_sliced(&mut self, max_bytes: usize, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            let length = self.random.up_to(max_bytes as u64 - 1) + 1;
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(length);
            self.add(part, now, false);
            if let Some(piece) = self.pieces.back_mut() {
                piece.sliced = true;
            }
            bytes = rest;
        }
    }

    fn add(&mut self, bytes: &[u8], due: Instant, delayed: bool) {
        self.bytes += bytes.len();
        self.pieces.push_back(Piece { bytes: bytes.to_vec(), due, delayed, sliced: false });
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is planned for two reads, the second a millisecond after the first: milliseconds and text.
    fn planned(seed: u64, fault: Fault, first: &str, second: &str) -> Vec<(u128, String)> {
        let now = Instant::now();
        let mut schedule = Schedule::new(seed);
        schedule.push(fault, first.as_bytes(), now);
        schedule.push(fault, second.as_bytes(), now + Duration::from_millis(1));
        let pieces = schedule.pieces.iter();
        let pieces = pieces
            .map(|piece| ((piece.due - now).as_millis(), String::from_utf8(piece.bytes.clone()).unwrap()));
        pieces.collect()
    }

    #[test]
    fn a_delay_moves_everything_by_the_same_time() {
        let delay = Fault::Delay(Duration::from_millis(20));
        assert_eq!(planned(1, delay, "ab", "cd"), [(20, "ab".to_owned()), (21, "cd".to_owned())]);
    }

    #[test]
    fn jitter_is_the_seeds_and_keeps_the_order() {
        let jitter = Fault::Jitter { max: Duration::from_secs(1) };
        for seed in 0..100 {
            let plan = planned(seed, jitter, "ab", "cd");
            assert_eq!(plan, planned(seed, jitter, "ab", "cd"));
            assert!(plan[0].0 <= plan[1].0 && plan[1].0 <= 1_001, "{plan:?}");
        }
        assert_ne!(planned(1, jitter, "ab", "cd"), planned(2, jitter, "ab", "cd"));
    }

    #[test]
    fn a_rate_is_never_exceeded() {
        let plan = planned(1, Fault::Rate { bytes_per_second: 200 }, "abc", "d");
        let plan: Vec<(u128, &str)> = plan.iter().map(|(due, text)| (*due, text.as_str())).collect();
        assert_eq!(plan, [(10, "ab"), (15, "c"), (20, "d")]);
    }

    #[test]
    fn slices_are_the_seeds_and_together_what_was_read() {
        let text = "the quick brown fox jumps over the lazy dog";
        let plan = planned(7, Fault::Slice { max_bytes: 5 }, text, "!");
        assert_eq!(plan, planned(7, Fault::Slice { max_bytes: 5 }, text, "!"));
        assert!(plan.iter().all(|(_, part)| (1..=5).contains(&part.len())), "{plan:?}");
        assert_eq!(plan.into_iter().map(|(_, part)| part).collect::<String>(), format!("{text}!"));
    }

    #[test]
    fn a_change_releases_what_waits_and_bytes_are_bounded() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1);
        schedule.push(Fault::Delay(Duration::from_secs(3_600)), &vec![0; BYTES_MAX], now);
        assert!(!schedule.has_room());
        schedule.release(now);
        assert_eq!(schedule.front().unwrap().due, now);
        schedule.written(1);
        assert!(schedule.has_room() && !schedule.is_empty());
        schedule.written(BYTES_MAX - 1);
        assert!(schedule.is_empty());
    }
}
