//! When which fault comes. A seed decides, so that a run can be made again, as far as a scheduler allows.

use std::ops::Range;
use std::time::Duration;

use hiveops_testkit::proxy::Direction;

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

/// What happens to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerFault {
    pub kind: BrokerFaultKind,
    /// Until it is started or goes on again.
    pub lasts: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerFaultKind {
    /// Killed with signal 9, and started again.
    Kill,
    /// Stopped where it is, with its connections open.
    Freeze,
    /// Killed, and away for long.
    Outage,
}

/// So many kills with short absences, freezes, and outages, in an order of the seed's.
pub fn broker_faults(seed: u64, kills: usize, freezes: usize, outages: usize) -> Vec<BrokerFault> {
    const AWAY_MILLIS: Range<u64> = 0..1_000;
    /// Longer than two probes, so that a node must have noticed.
    const FROZEN_MILLIS: Range<u64> = 5_000..8_000;
    const OUTAGE: Duration = Duration::from_secs(30);
    let mut random = Random::new(seed);
    let mut faults = Vec::new();
    for _ in 0..kills {
        let lasts = Duration::from_millis(random.within(AWAY_MILLIS));
        faults.push(BrokerFault { kind: BrokerFaultKind::Kill, lasts });
    }
    for _ in 0..freezes {
        let lasts = Duration::from_millis(random.within(FROZEN_MILLIS));
        faults.push(BrokerFault { kind: BrokerFaultKind::Freeze, lasts });
    }
    faults.extend((0..outages).map(|_| BrokerFault { kind: BrokerFaultKind::Outage, lasts: OUTAGE }));
    for last in (1..faults.len() as u64).rev() {
        let other = random.within(0..last + 1);
        if let (Ok(a), Ok(b)) = (usize::try_from(last), usize::try_from(other)) {
            faults.swap(a, b);
        }
    }
    faults
}

/// One node is cut off from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Chooses among the nodes that have sessions.
    pub pick: u64,
    /// Whose bytes do not arrive.
    pub direction: Direction,
}

/// So many partitions: first one in both directions, then of all kinds by turns.
pub fn partitions(seed: u64, count: usize) -> Vec<Partition> {
    let mut random = Random::new(seed);
    let directions = [Direction::Both, Direction::ToServer, Direction::ToClient];
    let directions = directions.into_iter().cycle().take(count);
    directions.map(|direction| Partition { pick: random.draw(), direction }).collect()
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
        let faults = broker_faults(7, 3, 2, 1);
        assert_eq!(faults, broker_faults(7, 3, 2, 1));
        let of = |kind| faults.iter().filter(|fault| fault.kind == kind).count();
        assert_eq!([of(BrokerFaultKind::Kill), of(BrokerFaultKind::Freeze), faults.len()], [3, 2, 6]);
        let picks = |node| plan.iter().filter(|kill| kill.pick % 3 == node).count();
        assert!((0..3).all(|node| picks(node) > 5), "every node has its turn");
    }
}
