//! `idle`: what an idle WebSocket connection costs the server in resident memory. The difference of two
//! readings over many connections, after a warm-up that leaves behind what the first connections allocate
//! once and for all. With `--burst` it is read again some time after a burst of publications to all of them.

use std::time::Duration;

use anyhow::Context as _;
use clap::value_parser;
use hiveops_proto::path::Endpoint;
use hiveops_proto::{MessageType, SubscriptionName};
use serde::Serialize;

use crate::Outcome;
use crate::clock::{Clock, Deadline};
use crate::connection::{Discard, Handshake};
use crate::marker::{Marker, Padding};
use crate::names::Channels;
use crate::options::{CONNECTIONS_MAX, Credential, ServerProcess, Subscriptions, seconds};
use crate::peer::Outlet;
use crate::process::{Pid, raise_file_limit};
use crate::scrape::{self, Scrapes};
use crate::swarm::Swarm;
use crate::target::Target;

/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of each publication of the burst.
const BURST_DATA_BYTES: usize = 1024;
/// Publications that are written at once.
const BURST_PIECE: usize = 50;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// WebSocket route to connect to
    #[arg(long, default_value_t = format!("ws://127.0.0.1:8000{}", Endpoint::Dashboard.path()))]
    url: String,
    /// WebSocket connections
    #[arg(long, default_value_t = 5000, value_parser = value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// Connections that are opened and closed again before the first reading that counts
    #[arg(long, default_value_t = 300, value_parser = value_parser!(u32).range(0..=10_000))]
    warmup: u32,
    /// What they join: `none`, or names with commas [default: what the route joins by itself]
    #[arg(long, value_parser = Subscriptions::parse)]
    subscriptions: Option<Subscriptions>,
    /// Silence to wait for before memory is read
    #[arg(long, default_value = "3", value_parser = seconds)]
    settle_seconds: Duration,
    /// How long each step may take until all its connections are open and silent
    #[arg(long, default_value = "60", value_parser = seconds)]
    timeout_seconds: Duration,
    /// Publications of a kilobyte that go to all connections, back to back, after the reading; then memory is
    /// read again. The connections must have joined `tasks`
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=10_000))]
    burst: u32,
    /// How long after the burst memory is read again
    #[arg(long, default_value = "10", value_parser = seconds)]
    after_seconds: Duration,
    /// Server to publish through
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    publish_url: String,
    /// Page of metrics to scrape while all connections are open, such as http://127.0.0.1:8000/metrics
    #[arg(long)]
    metrics_url: Option<String>,
    #[command(flatten)]
    process: ServerProcess,
    #[command(flatten)]
    credential: Credential,
}

/// The one JSON line. `docs/loadtest.md` says what each member means.
#[derive(Serialize)]
struct Report {
    test: &'static str,
    connections: u32,
    opened: usize,
    failed: u64,
    warmup: u32,
    rss_cold_bytes: Option<u64>,
    rss_before_bytes: Option<u64>,
    rss_after_bytes: Option<u64>,
    bytes_per_connection: Option<i64>,
    bytes_per_connection_from_cold: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scrapes: Option<Scrapes>,
    burst: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_peak_in_burst_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_after_burst_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_connection_after_burst: Option<i64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let target: Target = arguments.url.parse().context("invalid --url")?;
    raise_file_limit(u64::from(arguments.connections.max(arguments.warmup)))?;
    target.probe()?;
    let pid = arguments.process.find(&target)?;
    let handshake = arguments.handshake(&target)?;
    let rss = || pid.map(Pid::rss_bytes).transpose();

    let cold = rss()?;
    let mut swarm = Swarm::new(target.resolve()?, vec![handshake], Clock::start())?;
    if arguments.warmup > 0 {
        open_and_settle(arguments, &mut swarm, arguments.warmup)?;
        swarm.close(Deadline::after(CLOSE_TIMEOUT))?;
        // The server sees the last ends only after we do; without connections this is just a wait.
        swarm.settle(arguments.settle_seconds, Deadline::after(arguments.timeout_seconds), &mut Discard)?;
    }
    let before = rss()?;
    let silent = open_and_settle(arguments, &mut swarm, arguments.connections)?;
    // Memory is read while the connections are open, and they are counted after it: those that are open
    // then were open when it was read.
    let after = rss()?;
    let opened = swarm.open_count();
    let metrics = arguments.metrics_url.as_deref();
    let scrapes = metrics.map(|url| scrape::measure(url, Clock::start())).transpose()?;
    let burst = if arguments.burst > 0 { burst(arguments, &mut swarm, &rss)? } else { Burst::default() };
    swarm.close(Deadline::after(CLOSE_TIMEOUT))?;

    swarm.failures().print();
    if !silent {
        eprintln!("note: the connections did not become silent in time (--timeout-seconds)");
    }
    let report = Report {
        test: "idle",
        connections: arguments.connections,
        opened,
        failed: swarm.failures().total(),
        warmup: arguments.warmup,
        rss_cold_bytes: cold,
        rss_before_bytes: before,
        rss_after_bytes: after,
        bytes_per_connection: per_connection(before, after, opened),
        bytes_per_connection_from_cold: per_connection(cold, after, opened),
        scrapes,
        burst: arguments.burst,
        rss_peak_in_burst_bytes: burst.peak,
        rss_after_burst_bytes: burst.after,
        bytes_per_connection_after_burst: per_connection(before, burst.after, opened),
    };
    report.print(pid);
    println!("{}", serde_json::to_string(&report)?);
    let clean = report.failed == 0 && opened == arguments.connections as usize;
    Ok(if clean { Outcome::Clean } else { Outcome::Flawed })
}

impl Arguments {
    fn handshake(&self, target: &Target) -> anyhow::Result<Handshake> {
        let query = self.subscriptions.as_ref().map(Subscriptions::query);
        let wanted = self.subscriptions.as_ref().map(Subscriptions::names).unwrap_or_default();
        let path = target.path_with(query.as_deref());
        Ok(Handshake::new(&target.authority, &path, &self.credential.header()?, wanted))
    }
}

/// Memory around a burst.
#[derive(Default)]
struct Burst {
    peak: Option<u64>,
    after: Option<u64>,
}

/// Publishes to all connections, reads what comes, and waits.
fn burst(
    arguments: &Arguments,
    swarm: &mut Swarm,
    rss: &dyn Fn() -> anyhow::Result<Option<u64>>,
) -> anyhow::Result<Burst> {
    let publish: Target = arguments.publish_url.parse().context("invalid --publish-url")?;
    let channels = Channels::one(SubscriptionName::new("tasks")?, MessageType::new("task_event")?);
    let mut outlet = Outlet::open(&publish, &arguments.credential.header()?, &channels)?;
    let run = u64::from(std::process::id());
    let clock = Clock::start();
    let item = |seq| (0, Marker { run, seq, nanos: 0 }.data(None, BURST_DATA_BYTES, Padding::Plain));
    let mut peak = rss()?;
    // In pieces, so that what has arrived is read in between.
    let numbers: Vec<u32> = (0..arguments.burst).collect();
    for piece in numbers.chunks(BURST_PIECE) {
        let items: Vec<(usize, String)> = piece.iter().map(|seq| item(*seq)).collect();
        outlet
            .publish(&items)
            .into_iter()
            .collect::<anyhow::Result<()>>()
            .context("the burst was refused")?;
        peak = peak.max(rss()?);
        swarm.turn(Duration::ZERO, &mut Discard)?;
    }
    let until = clock.nanos() + u64::try_from(arguments.after_seconds.as_nanos())?;
    while clock.nanos() < until {
        swarm.turn(Duration::from_nanos(until - clock.nanos()), &mut Discard)?;
    }
    Ok(Burst { peak, after: rss()? })
}

/// Opens `count` more connections and waits for silence; false when it did not come in time.
fn open_and_settle(arguments: &Arguments, swarm: &mut Swarm, count: u32) -> anyhow::Result<bool> {
    let deadline = Deadline::after(arguments.timeout_seconds);
    swarm.open(count as usize, deadline, &mut Discard)?;
    if swarm.open_count() == 0 {
        swarm.failures().print();
        anyhow::bail!("none of {count} connections could be opened");
    }
    swarm.settle(arguments.settle_seconds, deadline, &mut Discard)
}

/// Memory may shrink as well: then the answer is negative, and says that there were too few connections.
fn per_connection(before: Option<u64>, after: Option<u64>, connections: usize) -> Option<i64> {
    let grown = i64::try_from(after?).ok()? - i64::try_from(before?).ok()?;
    grown.checked_div(i64::try_from(connections).ok()?)
}

impl Report {
    fn print(&self, pid: Option<Pid>) {
        println!("idle: {} connections open, {} failed", self.opened, self.failed);
        self.scrapes.iter().for_each(Scrapes::print);
        let (Some(pid), Some(cold), Some(before), Some(after), Some(each)) = (
            pid,
            self.rss_cold_bytes,
            self.rss_before_bytes,
            self.rss_after_bytes,
            self.bytes_per_connection,
        ) else {
            eprintln!("note: the server's process was not found, so its memory is left out: --pid");
            return;
        };
        println!(
            "idle: resident memory of process {pid}: {cold} bytes at first, {before} after the warm-up, {after} with all"
        );
        println!("idle: {each} bytes per connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_per_connection_is_the_growth_divided() {
        assert_eq!(per_connection(Some(1_000), Some(5_000), 4), Some(1_000));
        assert_eq!(per_connection(Some(5_000), Some(1_000), 4), Some(-1_000));
        assert_eq!(per_connection(Some(1_000), Some(5_000), 0), None);
        assert_eq!(per_connection(None, Some(5_000), 4), None);
    }
}
