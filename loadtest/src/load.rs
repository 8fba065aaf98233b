//! Publications to many connections, again and again: the load that most subcommands put on servers. Counts every delivery, measures how late each came, and divides the servers' CPU time by them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use anyhow::ensure;
use clap::value_parser;

use crate::clock::{Clock, Deadline};
use crate::connection::{Discard, Receiver};
use crate::inflate::OFFER;
use crate::marker::{DATA_MIN, Padding};
use crate::names::Choice;
use crate::options::{CONNECTIONS_MAX, seconds};
use crate::peer::Outlet;
use crate::process::{CpuTime, Pid};
use crate::publisher::{Plan, Published, Publisher, remove_keys};
use crate::swarm::Swarm;
use crate::syscalls::Counter;
use crate::tally::{Tally, Totals};
use crate::target::Target;

/// Bits for publications times connections, in bytes: what an exact count may cost.
const TALLY_BYTES_MAX: u64 = 1 << 30;
/// How long closing may take: a courtesy to the server, outside of what is measured.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one look at the sockets may take while publishing.
pub(crate) const TURN: Duration = Duration::from_millis(20);

/// How much, for how long.
#[derive(clap::Args, Clone)]
pub(crate) struct Load {
    /// WebSocket connections
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub(crate) connections: u32,
    /// Publications per second, over all subscriptions
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Bytes of each publication's `data`
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(i64::from(DATA_MIN)..=1_048_576))]
    pub(crate) size: u32,
    /// How long to publish
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(crate) seconds: Duration,
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Connections to publish through; all publications of one subscription go through the same
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    pub(crate) publishers: u32,
    /// Different keys of each subscription to publish updates of, in turn; removed again at the end
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=10_000))]
    pub(crate) keys: u32,
    /// Silence to wait for before the first publication
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub(crate) settle_seconds: Duration,
    /// How long the last deliveries may take after the last publication
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub(crate) drain_seconds: Duration,
    /// How long it may take until all connections are open and silent
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub(crate) timeout_seconds: Duration,
    /// Fills publications with words instead of one letter
    #[arg(long)]
    pub(crate) words: bool,
    /// Publications of a group, written back to back; the rate is then that of the groups.
    #[arg(skip = 1_u32)]
    pub(crate) burst: u32,
    /// Whether the connections offer compression.
    #[arg(skip)]
    pub(crate) deflate: bool,
    /// Whether the server's system calls are counted meanwhile.
    #[arg(skip)]
    pub(crate) count_syscalls: bool,
}

/// A server under load.
pub(crate) struct Server {
    pub(crate) socket: Target,
    pub(crate) publish: Target,
    /// The processes whose CPU is counted; none when they were not found.
    pub(crate) processes: Vec<Pid>,
    /// Header lines of every request to it.
    pub(crate) headers: String,
}

/// What one run over one server gave.
pub(crate) struct Measurement {
    pub(crate) published: Published,
    pub(crate) totals: Totals,
    pub(crate) failed: u64,
    pub(crate) window: Duration,
    pub(crate) server_cpu: Option<Duration>,
    pub(crate) client_cpu: Duration,
    pub(crate) server_rss_bytes: Option<u64>,
    /// How much the server's memory grew from before the connections to after the last delivery.
    pub(crate) server_rss_growth_bytes: Option<i64>,
    /// Bytes read per delivery, with headers and all else that came.
    pub(crate) wire_bytes_per_delivery: Option<f64>,
    /// Compressed messages that differed from those before them.
    pub(crate) inflated: u64,
    /// System calls of the server's first process in the window, when they were to be counted.
    pub(crate) syscalls: Option<u64>,
    pub(crate) connections: u64,
}

impl Load {
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        let channels = self.choice.channels()?;
        ensure!(
            self.keys == 0 || channels.all_updates(),
            "--keys is for updates; events have no key (--message-type)"
        );
        let plan = Plan {
            run: RandomState::new().build_hasher().finish(),
            channels,
            rate: self.rate,
            burst: self.burst,
            duration: self.seconds,
            size: self.size as usize,
            padding: if self.words { Padding::Words } else { Padding::Plain },
            keys: self.keys,
            publishers: self.publishers,
        };
        ensure!(plan.publications() > 0, "--seconds is too short for a single publication");
        let bytes = u64::from(plan.publications()).div_ceil(8) * u64::from(self.connections);
        ensure!(
            bytes <= TALLY_BYTES_MAX,
            "counting {} publications on {} connections exactly takes {bytes} bytes: fewer --seconds or --rate",
            plan.publications(),
            self.connections
        );
        Ok(plan)
    }
}

/// Opens the connections of a load and waits until they are silent.
pub(crate) fn connect(
    load: &Load,
    plan: &Plan,
    server: &Server,
    clock: Clock,
    receiver: &mut impl Receiver,
) -> anyhow::Result<Swarm> {
    let headers = if load.deflate { format!("{}{OFFER}", server.headers) } else { server.headers.clone() };
    let handshakes = plan.channels.handshakes(&server.socket, server.publish.dialect, "", &headers);
    let mut swarm = Swarm::new(server.socket.resolve()?, handshakes, clock)?;
    let deadline = Deadline::after(load.timeout_seconds);
    swarm.open(load.connections as usize, deadline, receiver)?;
    if swarm.open_count() == 0 {
        swarm.failures().print();
        anyhow::bail!("none of {} connections could be opened", load.connections);
    }
    if !swarm.settle(load.settle_seconds, deadline, receiver)? {
        eprintln!("note: the connections did not become silent in time (--timeout-seconds); going on");
    }
    Ok(swarm)
}

/// Connects, waits for silence, publishes, waits for the last deliveries, closes.
pub(crate) fn measure(load: &Load, plan: &Plan, server: &Server) -> anyhow::Result<Measurement> {
    let clock = Clock::start();
    let rss_before = server.rss_bytes()?;
    let mut swarm = connect(load, plan, server, clock, &mut Discard)?;
    let open = swarm.open_flags();
    let mut tally = Tally::new(plan.run, &plan.channels, open.len(), plan.publications() as usize)?;

    let counted = server.processes.first().filter(|_| load.count_syscalls);
    let counter = counted.map(|pid| Counter::start(*pid)).transpose()?;
    let (began, bytes_before) = (clock.nanos(), swarm.bytes_read());
    let cpu_before = server.cpu_times()?;
    let own_before = Pid::own().cpu_time()?;
    let publisher = Publisher::start(plan, &server.publish, &server.headers, clock)?;
    while !publisher.is_finished() {
        swarm.turn(TURN, &mut tally)?;
    }
    let published = publisher.finish()?;
    drain(&mut swarm, &mut tally, &published, Deadline::after(load.drain_seconds))?;
    let syscalls = counter.map(Counter::stop).transpose()?;
    let own_after = Pid::own().cpu_time()?;
    let cpu_after = server.cpu_times()?;
    let window = Duration::from_nanos(clock.nanos() - began);

    let server_rss_bytes = server.rss_bytes()?;
    let bytes = swarm.bytes_read() - bytes_before;
    remove_leftovers(plan, server);
    swarm.close(Deadline::after(CLOSE_TIMEOUT))?;
    swarm.failures().print();
    let totals = tally.totals(&open, &published.acknowledged);
    Ok(Measurement {
        wire_bytes_per_delivery: (totals.delivered > 0)
            .then(|| (bytes as f64 / totals.delivered as f64).round()),
        totals,
        published,
        failed: swarm.failures().total(),
        window,
        server_cpu: Server::cpu_between(&cpu_before, &cpu_after),
        client_cpu: own_after.since(&own_before),
        server_rss_bytes,
        server_rss_growth_bytes: grown(rss_before, server_rss_bytes),
        inflated: swarm.inflated(),
        syscalls,
        connections: open.iter().filter(|open| **open).count() as u64,
    })
}

/// How much memory grew, when both readings are there; less than nothing when it shrank.
pub(crate) fn grown(before: Option<u64>, after: Option<u64>) -> Option<i64> {
    Some(i64::try_from(after?).ok()? - i64::try_from(before?).ok()?)
}

/// Waits until everything that was published has arrived everywhere, or time is up.
pub(crate) fn drain(
    swarm: &mut Swarm,
    tally: &mut Tally,
    published: &Published,
    deadline: Deadline,
) -> anyhow::Result<()> {
    while tally.unique() < tally.expected(&swarm.open_flags(), &published.acknowledged) {
        let Some(left) = deadline.left() else { break };
        swarm.turn(left.min(TURN), tally)?;
    }
    Ok(())
}

pub(crate) fn remove_leftovers(plan: &Plan, server: &Server) {
    if plan.keys == 0 {
        return;
    }
    let stayed = match Outlet::open(&server.publish, &server.headers, &plan.channels) {
        Ok(mut outlet) => remove_keys(plan, &mut outlet),
        Err(_) => plan.keys * plan.channels.count() as u32,
    };
    if stayed > 0 {
        eprintln!("note: {stayed} keys of this run stay in the server's state (`lt-…`)");
    }
}

pub(crate) fn print_lines(who: &str, load: &Load, measured: &Measurement) {
    let Load { connections, rate, size, .. } = load;
    let Totals { expected, delivered, latency, .. } = &measured.totals;
    println!(
        "{who}: {connections} connections, {rate}/s of {size} bytes, {:.1} s measured",
        measured.window.as_secs_f64()
    );
    println!(
        "{who}: published {}, acknowledged {}, delivered {delivered} of {expected}, lost {}, duplicates {}, gaps {}",
        measured.published.begun,
        measured.published.acknowledged_count(),
        measured.totals.lost(),
        measured.totals.duplicates,
        measured.totals.gaps,
    );
    println!(
        "{who}: latency in µs: p50 {}, p99 {}, p99.9 {}, max {}",
        latency.p50, latency.p99, latency.p999, latency.max
    );
    let cpu = |cpu: Option<f64>| cpu.map_or_else(|| "not measured".to_owned(), |cpu| format!("{cpu} µs"));
    println!(
        "{who}: CPU per delivery: server {}, client {}",
        cpu(measured.server_cpu_us()),
        cpu(measured.client_cpu_us())
    );
    for (why, count) in &measured.published.refusals {
        eprintln!("{who}: not acknowledged: {count} publications: {why}");
    }
    if measured.published.late > 0 {
        eprintln!(
            "{who}: {} groups of publications began more than an interval late: the server or this machine is busier than the rate allows",
            measured.published.late
        );
    }
}

impl Server {
    /// The CPU time of each process.
    pub(crate) fn cpu_times(&self) -> anyhow::Result<Vec<CpuTime>> {
        self.processes.iter().map(|pid| pid.cpu_time()).collect()
    }

    /// What all of them used between two readings; none without processes.
    pub(crate) fn cpu_between(before: &[CpuTime], after: &[CpuTime]) -> Option<Duration> {
        (!before.is_empty())
            .then(|| after.iter().zip(before).map(|(after, before)| after.since(before)).sum())
    }

    /// Resident memory of the first process.
    pub(crate) fn rss_bytes(&self) -> anyhow::Result<Option<u64>> {
        self.processes.first().copied().map(Pid::rss_bytes).transpose()
    }
}

impl Measurement {
    pub(crate) fn server_cpu_us(&self) -> Option<f64> {
        self.per_delivery(self.server_cpu?)
    }

    pub(crate) fn client_cpu_us(&self) -> Option<f64> {
        self.per_delivery(self.client_cpu)
    }

    /// Whether everything was taken, and arrived once and in order everywhere.
    pub(crate) fn is_clean(&self) -> bool {
        let Totals { duplicates, reordered, gaps, .. } = self.totals;
        let acknowledged = self.published.acknowledged_count();
        self.failed == 0
            && self.totals.lost() + duplicates + reordered + gaps == 0
            && acknowledged == self.published.begun
            && acknowledged > 0
    }

    pub(crate) fn rss_bytes_per_connection(&self) -> Option<i64> {
        self.server_rss_growth_bytes?.checked_div(i64::try_from(self.connections).ok()?)
    }

    /// Microseconds to three decimals; nothing was delivered at no cost.
    fn per_delivery(&self, cpu: Duration) -> Option<f64> {
        let deliveries = self.totals.delivered + self.totals.unacknowledged + self.totals.duplicates;
        let nanos = cpu.as_nanos() as f64 / deliveries as f64;
        (deliveries > 0).then(|| nanos.round() / 1000.0)
    }
}
