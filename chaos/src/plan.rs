//! When which fault comes. A seed decides, so that a run can be made again, as far as a scheduler allows.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of a range that is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.draw() % (range.end - range.start).max(1)
    }
}

/// Two lengths for every scenario: one for each change, one for the night.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scale {
    Short,
    Long,
}

impl Scale {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

/// The death of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeKill {
    /// Publications that are acknowledged before it, so that it comes under load.
    pub after_acks: u64,
    /// Then it comes within this time, so that it falls into every phase of a publication.
    pub delay: Duration,
    /// Chooses among the nodes that have sessions.
    pub pick: u64,
}

/// So many deaths of nodes.
pub fn node_kills(seed: u64, count: usize) -> Vec<NodeKill> {
    const ACKS: Range<u64> = 10..40;
    const DELAY_MICROS: Range<u64> = 0..3_000;
    let mut random = Random::new(seed);
    let kill = |_| NodeKill {
        after_acks: random.within(ACKS),
        delay: Duration::from_micros(random.within(DELAY_MICROS)),
        pick: random.draw(),
    };
    (0..count).map(kill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_seeds() {
        let plan = node_kills(7, 50);
        assert_eq!(plan, node_kills(7, 50));
        assert_ne!(plan, node_kills(8, 50));
        assert!(plan.iter().all(|kill| (10..40).contains(&kill.after_acks)), "{plan:?}");
        let picks = |node| plan.iter().filter(|kill| kill.pick % 3 == node).count();
        assert!((0..3).all(|node| picks(node) > 5), "every node has its turn");
    }
}
