//! `slow`: a share of the clients stops reading, or reads very little, while the others go on. What the
//! others notice is the difference to a run in which all read; in the end the slow ones read what is left, and
//! either they were told to go, or their values are those of a fast client.

mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use hiveops_proto::{CloseCode, path};
use serde::Serialize;

use crate::Outcome;
use crate::clock::{Clock, Deadline};
use crate::connection::Receiver;
use crate::failure::Failure;
use crate::fanout::Place;
use crate::http::Client;
use crate::load::{CLOSE_TIMEOUT, Load, Server, TURN, connect, grown, remove_leftovers};
use crate::process::Pid;
use crate::publisher::{Plan, Publisher};
use crate::rounds::{Ratio, median};
use crate::swarm::Swarm;
use crate::tally::{Latency, Tally, Totals};
use state::State;

/// Between two readings of the server's memory; one takes about a millisecond of the server's time.
const MEMORY_EVERY: Duration = Duration::from_millis(200);
/// Between two reads of a client that reads little.
const READ_EVERY: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    load: Load,
    /// How many of a hundred clients are slow
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=50))]
    slow_percent: u32,
    /// What a slow client reads per second; 0: nothing until the end
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=1_048_576))]
    read_bytes: u32,
    /// How often a run without and one with slow clients are measured in turn; the ratio is the median
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=101))]
    pairs: u32,
}

/// The one JSON line. `docs/loadtest.md` says what each member means.
#[derive(Serialize)]
struct Report {
    test: &'static str,
    connections: u32,
    slow: usize,
    read_bytes: u32,
    rate: u32,
    size: u32,
    keys: u32,
    seconds: f64,
    rounds: u32,
    p99_ratio_to_no_slow: Option<f64>,
    outbox_bound_bytes: Option<u64>,
    without: Side,
    with: Side,
    ends: Ends,
}

/// One of the two kinds of run: medians over the rounds, and sums of counts.
#[derive(Serialize)]
struct Side {
    expected: u64,
    delivered: u64,
    lost: u64,
    duplicates: u64,
    reordered: u64,
    gaps: u64,
    chained: u64,
    failed: u64,
    latency_us: Option<Latency>,
    server_cpu_us_per_delivery: Option<f64>,
    client_cpu_us_per_delivery: Option<f64>,
    server_rss_growth_bytes: Option<i64>,
}

/// How the slow clients ended, over all rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
struct Ends {
    /// With the notice and the close code of backpressure.
    told_and_closed: u64,
    /// Closed without a notice, or cut off.
    otherwise: u64,
    /// Still there at the end.
    stayed: u64,
    /// Of these, with the same values as a fast client.
    same_state: u64,
    /// Frames that they were told were left out.
    coalesced: u64,
    /// Publications that are missing without a word.
    gaps: u64,
}

/// One run.
struct Run {
    totals: Totals,
    failed: u64,
    /// Whether the server took every publication.
    all_acknowledged: bool,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
    rss_growth: Option<i64>,
    ends: Ends,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let Arguments { place, load, .. } = arguments;
    load.plan()?;
    let count = (load.connections * arguments.slow_percent).div_ceil(100) as usize;
    ensure!(count < load.connections as usize, "not every client can be slow (--slow-percent)");
    let server = place.server(load.connections)?;
    let bound = outbox_bytes_max(&server)?.map(|bytes| bytes * count as u64);
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..arguments.pairs {
        without.push(once(arguments, &server, 0)?);
        with.push(once(arguments, &server, count)?);
    }
    let p99 = |run: &Run| run.totals.latency.p99;
    let ratio = Ratio::of_pairs(with.iter().zip(&without).map(|(with, without)| (p99(with), p99(without))));
    let ends = with.iter().fold(Ends::default(), |sum, run| sum.and(run.ends));
    if let Some(ratio) = &ratio {
        println!("slow: p99 of the others is {} times that without slow clients", ratio.median);
    }
    println!("slow: {ends:?}");
    let report = Report {
        test: "slow",
        connections: load.connections,
        slow: count,
        read_bytes: arguments.read_bytes,
        rate: load.rate,
        size: load.size,
        keys: load.keys,
        seconds: load.seconds.as_secs_f64(),
        rounds: arguments.pairs,
        p99_ratio_to_no_slow: ratio.map(|ratio| ratio.median),
        outbox_bound_bytes: bound,
        without: Side::of(&without),
        with: Side::of(&with),
        ends,
    };
    println!("{}", serde_json::to_string(&report)?);
    let clean = without.iter().chain(&with).all(Run::is_clean)
        && ends.otherwise == 0
        && ends.gaps == 0
        && ends.same_state == ends.stayed;
    Ok(if clean { Outcome::Clean } else { Outcome::Flawed })
}

/// Whose messages go where: those of fast clients are counted, and those of the slow ones and of one fast one
/// make values.
struct Split {
    tally: Tally,
    slow: Vec<bool>,
    states: BTreeMap<usize, State>,
}

impl Receiver for Split {
    fn message(&mut self, connection: usize, message: &[u8], at: u64) {
        if let Some(state) = self.states.get_mut(&connection) {
            state.take(message);
        }
        if !self.slow[connection] {
            self.tally.message(connection, message, at);
        }
    }
}

/// One run that is going on.
struct Trial<'a> {
    arguments: &'a Arguments,
    server: &'a Server,
    plan: Plan,
    swarm: Swarm,
    split: Split,
    /// The numbers of the slow clients.
    slow: Vec<usize>,
    /// The fast client whose values the others' are compared with.
    sample: usize,
}

/// One run with `count` slow clients.
fn once(arguments: &Arguments, server: &Server, count: usize) -> anyhow::Result<Run> {
    let (load, clock) = (&arguments.load, Clock::start());
    let plan = load.plan()?;
    let total = load.connections as usize;
    let slow: Vec<usize> = (0..count).map(|number| number * total / count).collect();
    let is_slow: Vec<bool> = (0..total).map(|number| slow.contains(&number)).collect();
    let sample = is_slow.iter().position(|slow| !slow).context("not every client is slow")?;
    let states = slow.iter().copied().chain([sample]).map(|number| (number, State::default())).collect();
    let tally = Tally::new(plan.run, &plan.channels, total, plan.publications() as usize)?;
    let mut split = Split { tally, slow: is_slow, states };
    let swarm = connect(load, &plan, server, clock, &mut split)?;
    let trial = Trial { arguments, server, plan, swarm, split, slow, sample };
    trial.run(clock)
}

impl Trial<'_> {
    fn run(mut self, clock: Clock) -> anyhow::Result<Run> {
        let mut fast = self.swarm.open_flags();
        // Whoever never came in is neither fast nor slow, and the run is not clean.
        let unopened = fast.iter().filter(|open| !**open).count() as u64;
        self.slow.retain(|number| fast[*number]);
        for number in self.slow.clone() {
            fast[number] = false;
            self.swarm.allow(number, Some(0), &mut self.split)?;
        }
        let cpu_before = self.server.cpu_times()?;
        let own_before = Pid::own().cpu_time()?;
        let rss_before = self.server.rss_bytes()?;
        let publisher = Publisher::start(&self.plan, &self.server.publish, &self.server.headers, clock)?;
        let mut rss_peak = self.while_publishing(&publisher, clock)?;
        let published = publisher.finish()?;
        let deadline = Deadline::after(self.arguments.load.drain_seconds);
        while self.split.tally.unique() < self.split.tally.expected(&fast, &published.acknowledged) {
            let Some(left) = deadline.left() else { break };
            self.swarm.turn(left.min(TURN), &mut self.split)?;
        }
        let server_cpu = Server::cpu_between(&cpu_before, &self.server.cpu_times()?);
        let client_cpu = Pid::own().cpu_time()?.since(&own_before);
        rss_peak = rss_peak.max(self.server.rss_bytes()?);
        let broken =
            fast.iter().enumerate().filter(|(number, fast)| **fast && self.swarm.end_of(*number).is_some());
        let failed = unopened + broken.count() as u64;
        let ends = self.read_the_rest()?;
        remove_leftovers(&self.plan, self.server);
        self.swarm.close(Deadline::after(CLOSE_TIMEOUT))?;
        Ok(Run {
            totals: self.split.tally.totals(&fast, &published.acknowledged),
            failed,
            all_acknowledged: published.begun > 0 && published.acknowledged_count() == published.begun,
            server_cpu,
            client_cpu,
            rss_growth: grown(rss_before, rss_peak),
            ends,
        })
    }

    /// Reads and lets the slow ones read little until all is published; the server's memory at its peak.
    fn while_publishing(&mut self, publisher: &Publisher, clock: Clock) -> anyhow::Result<Option<u64>> {
        let every = |interval: Duration| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let (mut memory_at, mut read_at, mut peak) = (0, 0, None);
        while !publisher.is_finished() {
            self.swarm.turn(TURN, &mut self.split)?;
            let now = clock.nanos();
            if now >= memory_at {
                memory_at = now + every(MEMORY_EVERY);
                peak = peak.max(self.server.rss_bytes()?);
            }
            if now >= read_at {
                read_at = now + every(READ_EVERY);
                for number in self.slow.clone() {
                    let bytes = self.arguments.read_bytes as usize;
                    self.swarm.allow(number, Some(bytes), &mut self.split)?;
                }
            }
        }
        Ok(peak)
    }

    /// The slow ones read again, until each has ended or has the values of the fast one, or time is up.
    fn read_the_rest(&mut self) -> anyhow::Result<Ends> {
        for number in self.slow.clone() {
            self.swarm.allow(number, None, &mut self.split)?;
        }
        let deadline = Deadline::after(self.arguments.load.drain_seconds);
        while let Some(left) = deadline.left()
            && !self.slow.iter().all(|number| self.has_ended(*number) || self.is_same(*number))
        {
            self.swarm.turn(left.min(TURN), &mut self.split)?;
        }
        let ends = self.slow.iter().map(|number| self.end(*number));
        Ok(ends.fold(Ends::default(), Ends::and))
    }

    fn has_ended(&self, number: usize) -> bool {
        self.swarm.end_of(number).is_some()
    }

    fn is_same(&self, number: usize) -> bool {
        let digest = |number: &usize| self.split.states.get(number).map(State::digest);
        digest(&number) == digest(&self.sample)
    }

    fn end(&self, number: usize) -> Ends {
        let state = self.split.states.get(&number);
        let told = state.is_some_and(|state| state.notice() == Some("backpressure"));
        let mut ends = Ends {
            coalesced: state.map_or(0, State::coalesced),
            gaps: state.map_or(0, State::gaps),
            ..Ends::default()
        };
        match self.swarm.end_of(number) {
            None => {
                ends.stayed = 1;
                ends.same_state = u64::from(self.is_same(number));
            }
            Some(Failure::Closed { code, .. })
                if told && *code == Some(CloseCode::TryAgainLater.as_u16()) =>
            {
                ends.told_and_closed = 1;
            }
            Some(end) => {
                eprintln!("note: slow client {number} ended otherwise: {end}");
                ends.otherwise = 1;
            }
        }
        ends
    }
}

impl Ends {
    fn and(self, other: Self) -> Self {
        Self {
            told_and_closed: self.told_and_closed + other.told_and_closed,
            otherwise: self.otherwise + other.otherwise,
            stayed: self.stayed + other.stayed,
            same_state: self.same_state + other.same_state,
            coalesced: self.coalesced + other.coalesced,
            gaps: self.gaps + other.gaps,
        }
    }
}

impl Run {
    fn is_clean(&self) -> bool {
        let Totals { duplicates, reordered, gaps, .. } = self.totals;
        self.failed == 0 && self.all_acknowledged && self.totals.lost() + duplicates + reordered + gaps == 0
    }

    fn per_delivery(&self, cpu: Option<Duration>) -> Option<f64> {
        let nanos = cpu?.as_nanos() as f64 / self.totals.delivered as f64;
        (self.totals.delivered > 0).then(|| nanos.round() / 1000.0)
    }
}

impl Side {
    fn of(runs: &[Run]) -> Self {
        let sum = |count: &dyn Fn(&Run) -> u64| runs.iter().map(count).sum();
        let middle = |figure: &dyn Fn(&Run) -> Option<f64>| median(runs.iter().filter_map(figure));
        let latency = |part: &dyn Fn(&Latency) -> f64| middle(&|run| Some(part(&run.totals.latency)));
        Self {
            expected: sum(&|run| run.totals.expected),
            delivered: sum(&|run| run.totals.delivered),
            lost: sum(&|run| run.totals.lost()),
            duplicates: sum(&|run| run.totals.duplicates),
            reordered: sum(&|run| run.totals.reordered),
            gaps: sum(&|run| run.totals.gaps),
            chained: sum(&|run| run.totals.chained),
            failed: sum(&|run| run.failed),
            latency_us: latency(&|latency| latency.p50).map(|p50| Latency {
                p50,
                p99: latency(&|latency| latency.p99).unwrap_or_default(),
                p999: latency(&|latency| latency.p999).unwrap_or_default(),
                max: latency(&|latency| latency.max).unwrap_or_default(),
            }),
            server_cpu_us_per_delivery: middle(&|run| run.per_delivery(run.server_cpu)),
            client_cpu_us_per_delivery: middle(&|run| run.per_delivery(Some(run.client_cpu))),
            // The most that any round took: a bound is kept in each of them or not at all.
            server_rss_growth_bytes: runs.iter().filter_map(|run| run.rss_growth).max(),
        }
    }
}

/// The server's bound of one outbox; none when it does not say.
fn outbox_bytes_max(server: &Server) -> anyhow::Result<Option<u64>> {
    let answer = Client::new(&server.publish, &server.headers)?.get(path::WS_LIMITS)?;
    let limits: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
    Ok(limits.and_then(|limits| limits.get("outbox_bytes_max")?.as_u64()))
}
