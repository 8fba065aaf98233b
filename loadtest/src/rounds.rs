//! The same load on several servers in turn, round after round, so that what the machine does meanwhile hits
//! all of them; and what is said of it in the end: sums of counts, medians of figures, and the median of the
//! ratios of each round, which noise moves less than it moves the ratio of two medians.

use anyhow::Context as _;
use serde::Serialize;

use crate::floor::FloorProcess;
use crate::load::{Load, Measurement, Server, measure, print_lines};
use crate::tally::Latency;
use crate::target::Target;

/// One of those that are compared.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'a str,
    pub(crate) load: &'a Load,
    pub(crate) server: &'a Server,
}

/// Measures each contender once per round; the outer list is in the order of the contenders.
pub(crate) fn in_turn(contenders: &[Contender<'_>], rounds: u32) -> anyhow::Result<Vec<Vec<Measurement>>> {
    let mut measured: Vec<Vec<Measurement>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (Contender { name, load, server }, measured) in contenders.iter().zip(&mut measured) {
            // Each measurement has its own marks: what is left of another is not taken for its own.
            let once = measure(load, &load.plan()?, server)
                .with_context(|| format!("{name} could not be measured"))?;
            let who = if rounds == 1 { (*name).to_owned() } else { format!("{name} {round}") };
            print_lines(&who, load, &once);
            measured.push(once);
        }
    }
    Ok(measured)
}

/// The floor as a server to measure.
pub(crate) fn floor_server(floor: &FloorProcess) -> anyhow::Result<Server> {
    Ok(Server {
        socket: Target::new(floor.authority(), hiveops_proto::path::Endpoint::Dashboard.path()),
        publish: Target::new(floor.authority(), "/"),
        processes: vec![floor.pid()?],
        headers: String::new(),
    })
}

/// What all rounds of one contender came to. `docs/loadtest.md` says what each member means.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) failed: u64,
    pub(crate) published: u64,
    pub(crate) acknowledged: u64,
    pub(crate) late: u64,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) gaps: u64,
    pub(crate) chained: u64,
    pub(crate) coalesced: u64,
    pub(crate) unacknowledged_delivered: u64,
    pub(crate) other_frames: u64,
    pub(crate) frame_bytes: usize,
    pub(crate) wire_bytes_per_delivery: Option<f64>,
    pub(crate) latency_us: Latency,
    pub(crate) server_cpu_us_per_delivery: Option<f64>,
    pub(crate) client_cpu_us_per_delivery: Option<f64>,
    pub(crate) client_cores: Option<f64>,
    pub(crate) server_rss_bytes: Option<u64>,
    pub(crate) rss_bytes_per_connection: Option<i64>,
}

impl Summary {
    pub(crate) fn of(rounds: &[Measurement]) -> Self {
        let sum = |count: &dyn Fn(&Measurement) -> u64| rounds.iter().map(count).sum();
        let middle = |figure: &dyn Fn(&Measurement) -> Option<f64>| median(rounds.iter().filter_map(figure));
        let latency = |part: &dyn Fn(&Latency) -> f64| {
            middle(&|once| Some(part(&once.totals.latency))).unwrap_or_default()
        };
        let last = rounds.last();
        Self {
            failed: sum(&|once| once.failed),
            published: sum(&|once| once.published.begun),
            acknowledged: sum(&|once| once.published.acknowledged_count()),
            late: sum(&|once| once.published.late),
            expected: sum(&|once| once.totals.expected),
            delivered: sum(&|once| once.totals.delivered),
            lost: sum(&|once| once.totals.lost()),
            duplicates: sum(&|once| once.totals.duplicates),
            reordered: sum(&|once| once.totals.reordered),
            gaps: sum(&|once| once.totals.gaps),
            chained: sum(&|once| once.totals.chained),
            coalesced: sum(&|once| once.totals.coalesced),
            unacknowledged_delivered: sum(&|once| once.totals.unacknowledged),
            other_frames: sum(&|once| once.totals.other),
            frame_bytes: last.map_or(0, |once| once.totals.frame_bytes),
            wire_bytes_per_delivery: middle(&|once| once.wire_bytes_per_delivery),
            latency_us: Latency {
                p50: latency(&|latency| latency.p50),
                p99: latency(&|latency| latency.p99),
                p999: latency(&|latency| latency.p999),
                max: latency(&|latency| latency.max),
            },
            server_cpu_us_per_delivery: middle(&Measurement::server_cpu_us),
            client_cpu_us_per_delivery: middle(&Measurement::client_cpu_us),
            client_cores: middle(&|once| Some(once.client_cpu.as_secs_f64() / once.window.as_secs_f64()))
                .map(two_places),
            server_rss_bytes: last.and_then(|once| once.server_rss_bytes),
            // Later rounds find memory that earlier ones have left, so the first one says most.
            rss_bytes_per_connection: rounds.first().and_then(Measurement::rss_bytes_per_connection),
        }
    }
}

/// How one contender stands to another: of each round the ratio, and their median.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) rounds: Vec<f64>,
}

impl Ratio {
    /// None when no round has both figures.
    pub(crate) fn of(
        rounds: &[Measurement],
        base: &[Measurement],
        figure: impl Fn(&Measurement) -> Option<f64>,
    ) -> Option<Self> {
        let pairs = rounds.iter().zip(base).filter_map(|(own, base)| Some((figure(own)?, figure(base)?)));
        Self::of_pairs(pairs)
    }

    pub(crate) fn of_pairs(pairs: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let rounds: Vec<f64> =
            pairs.filter(|(_, base)| *base > 0.0).map(|(own, base)| two_places(own / base)).collect();
        Some(Self { median: median(rounds.iter().copied())?, rounds })
    }

    pub(crate) fn cpu(rounds: &[Measurement], base: &[Measurement]) -> Option<Self> {
        Self::of(rounds, base, Measurement::server_cpu_us)
    }

    pub(crate) fn p99(rounds: &[Measurement], base: &[Measurement]) -> Option<Self> {
        Self::of(rounds, base, |once| Some(once.totals.latency.p99))
    }
}

/// The middle one; of an even number the higher of the two.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

pub(crate) fn two_places(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn a_ratio_is_the_median_of_those_of_the_rounds() {
        let pairs = [(1.0, 2.0), (9.0, 3.0), (1.0, 1.0), (5.0, 0.0)];
        let ratio = Ratio::of_pairs(pairs.into_iter()).unwrap();
        assert_eq!(ratio, Ratio { median: 1.0, rounds: vec![0.5, 3.0, 1.0] });
        assert_eq!(Ratio::of_pairs([(1.0, 0.0)].into_iter()), None);
    }
}
