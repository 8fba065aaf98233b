//! One publication to many connections, again and again: the load that `fanout` and `hops` put on servers.
//! Counts every delivery, measures how late each came, and divides the servers' CPU time by them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use hiveops_proto::{MessageKind, MessageType, SubscriptionName};

use crate::clock::{Clock, Deadline};
use crate::connection::Handshake;
use crate::http::Client;
use crate::marker::DATA_MIN;
use crate::options::{CONNECTIONS_MAX, seconds};
use crate::process::{CpuTime, Pid};
use crate::publisher::{Plan, Published, Publisher, remove_keys};
use crate::swarm::Swarm;
use crate::tally::{Tally, Totals};
use crate::target::Target;

/// Bits for publications times connections, in bytes: what an exact count may cost.
const TALLY_BYTES_MAX: u64 = 1 << 30;
/// How long closing may take: a courtesy to the server, outside of what is measured.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one look at the sockets may take while publishing.
const TURN: Duration = Duration::from_millis(20);

/// How much, for how long.
#[derive(clap::Args)]
pub(crate) struct Load {
    /// WebSocket connections
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub(crate) connections: u32,
    /// Publications per second
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// Bytes of each publication's `data`
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(i64::from(DATA_MIN)..=1_048_576))]
    pub(crate) size: u32,
    /// How long to publish
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// What the connections join and the publisher publishes to
    #[arg(long, default_value = "tasks")]
    pub(crate) subscription: SubscriptionName,
    /// Type of the publications; an event leaves nothing behind in the server's state
    #[arg(long, default_value = "task_event")]
    pub(crate) message_type: MessageType,
    /// Different keys to publish updates of, in turn; removed again at the end
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
}

impl Load {
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        let kind = MessageKind::of_type(self.message_type.as_str());
        let kind = kind.with_context(|| format!("`{}` is not a type of publication", self.message_type))?;
        ensure!(
            self.keys == 0 || kind == MessageKind::Update,
            "--keys is for updates; `{}` has no key (--message-type)",
            self.message_type
        );
        let plan = Plan {
            run: RandomState::new().build_hasher().finish(),
            subscription: self.subscription.clone(),
            message_type: self.message_type.clone(),
            rate: self.rate,
            duration: self.seconds,
            size: self.size as usize,
            keys: self.keys,
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

/// Connects, waits for silence, publishes, waits for the last deliveries, closes.
pub(crate) fn measure(load: &Load, plan: &Plan, server: &Server) -> anyhow::Result<Measurement> {
    let clock = Clock::start();
    let subscription = plan.subscription.to_string();
    let path = server.socket.path_with(Some(&format!("subscriptions={subscription}")));
    let handshake = Handshake::new(&server.socket.authority, &path, &server.headers, vec![subscription]);
    let mut swarm = Swarm::new(server.socket.resolve()?, handshake, clock)?;
    let deadline = Deadline::after(load.timeout_seconds);
    swarm.open(load.connections as usize, deadline)?;
    if swarm.open_count() == 0 {
        swarm.failures().print();
        anyhow::bail!("none of {} connections could be opened", load.connections);
    }
    if !swarm.settle(load.settle_seconds, deadline)? {
        eprintln!("note: the connections did not become silent in time (--timeout-seconds); going on");
    }
    let open = swarm.open_flags();
    let mut tally = Tally::new(plan.run, open.len(), plan.publications() as usize)?;

    let began = clock.nanos();
    let cpu_before = cpu_times(&server.processes)?;
    let own_before = Pid::own().cpu_time()?;
    let client = Client::new(&server.publish, &server.headers)?;
    let publisher = Publisher::start(plan.clone(), client, clock)?;
    while !publisher.is_finished() {
        swarm.turn(TURN, &mut tally)?;
    }
    let published = publisher.finish()?;
    drain(&mut swarm, &mut tally, &published, Deadline::after(load.drain_seconds))?;
    let own_after = Pid::own().cpu_time()?;
    let cpu_after = cpu_times(&server.processes)?;
    let window = Duration::from_nanos(clock.nanos() - began);

    let server_rss_bytes = server.processes.first().copied().map(Pid::rss_bytes).transpose()?;
    remove_leftovers(plan, server);
    swarm.close(Deadline::after(CLOSE_TIMEOUT))?;
    swarm.failures().print();
    Ok(Measurement {
        totals: tally.totals(&open, &published.acknowledged),
        published,
        failed: swarm.failures().total(),
        window,
        server_cpu: (!cpu_before.is_empty())
            .then(|| cpu_after.iter().zip(&cpu_before).map(|(after, before)| after.since(before)).sum()),
        client_cpu: own_after.since(&own_before),
        server_rss_bytes,
    })
}

/// Waits until everything that was published has arrived everywhere, or time is up.
fn drain(
    swarm: &mut Swarm,
    tally: &mut Tally,
    published: &Published,
    deadline: Deadline,
) -> anyhow::Result<()> {
    let complete = |swarm: &Swarm| published.acknowledged_count() * swarm.open_count() as u64;
    while tally.unique() < complete(swarm) {
        let Some(left) = deadline.left() else { break };
        swarm.turn(left.min(TURN), tally)?;
    }
    Ok(())
}

fn remove_leftovers(plan: &Plan, server: &Server) {
    if plan.keys == 0 {
        return;
    }
    let stayed = match Client::new(&server.publish, &server.headers) {
        Ok(mut client) => remove_keys(plan, &mut client),
        Err(_) => plan.keys,
    };
    if stayed > 0 {
        eprintln!(
            "note: {stayed} keys of this run stay in the server's state (`lt-…` in {})",
            plan.subscription
        );
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
        "{who}: published {}, acknowledged {}, delivered {delivered} of {expected}, lost {}, duplicates {}",
        measured.published.acknowledged.len(),
        measured.published.acknowledged_count(),
        measured.totals.lost(),
        measured.totals.duplicates,
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
            "{who}: {} publications began more than an interval late: the server or this machine is busier than the rate allows",
            measured.published.late
        );
    }
}

/// Of each process.
fn cpu_times(processes: &[Pid]) -> anyhow::Result<Vec<CpuTime>> {
    processes.iter().map(|pid| pid.cpu_time()).collect()
}

impl Measurement {
    pub(crate) fn server_cpu_us(&self) -> Option<f64> {
        self.per_delivery(self.server_cpu?)
    }

    pub(crate) fn client_cpu_us(&self) -> Option<f64> {
        self.per_delivery(self.client_cpu)
    }

    /// Microseconds to three decimals; nothing was delivered at no cost.
    fn per_delivery(&self, cpu: Duration) -> Option<f64> {
        let deliveries = self.totals.delivered + self.totals.unacknowledged + self.totals.duplicates;
        let nanos = cpu.as_nanos() as f64 / deliveries as f64;
        (deliveries > 0).then(|| nanos.round() / 1000.0)
    }
}
