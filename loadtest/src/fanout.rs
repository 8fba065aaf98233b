//! `fanout`: one publication to many connections, again and again. Counts every delivery, measures how
//! late each came, and divides the server's CPU time by them. With `--floor` the same load is first put on
//! the floor server, so that the figure has something to stand beside on the same machine in the same minute.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use hiveops_proto::path::Endpoint;
use hiveops_proto::{MessageKind, MessageType, SubscriptionName};
use serde::Serialize;

use crate::Outcome;
use crate::clock::{Clock, Deadline};
use crate::connection::Handshake;
use crate::floor::FloorProcess;
use crate::http::Client;
use crate::marker::DATA_MIN;
use crate::options::{CONNECTIONS_MAX, Credential, ServerProcess, seconds};
use crate::process::{Pid, raise_file_limit};
use crate::publisher::{Plan, Published, Publisher, remove_keys};
use crate::swarm::Swarm;
use crate::tally::{Latency, Tally, Totals};
use crate::target::Target;

/// Bits for publications times connections, in bytes: what an exact count may cost.
const TALLY_BYTES_MAX: u64 = 1 << 30;
/// How long closing may take: a courtesy to the server, outside of what is measured.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one look at the sockets may take while publishing.
const TURN: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// WebSocket route to connect to
    #[arg(long, default_value_t = format!("ws://127.0.0.1:8000{}", Endpoint::Dashboard.path()))]
    url: String,
    /// Server to publish through
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    publish_url: String,
    /// WebSocket connections
    #[arg(long, default_value_t = 1000, value_parser = value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: u32,
    /// Publications per second
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Bytes of each publication's `data`
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(i64::from(DATA_MIN)..=1_048_576))]
    size: u32,
    /// How long to publish
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// What the connections join and the publisher publishes to
    #[arg(long, default_value = "tasks")]
    subscription: SubscriptionName,
    /// Type of the publications; an event leaves nothing behind in the server's state
    #[arg(long, default_value = "task_event")]
    message_type: MessageType,
    /// Different keys to publish updates of, in turn; removed again at the end
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=10_000))]
    keys: u32,
    /// Silence to wait for before the first publication
    #[arg(long, default_value = "1", value_parser = seconds)]
    settle_seconds: Duration,
    /// How long the last deliveries may take after the last publication
    #[arg(long, default_value = "5", value_parser = seconds)]
    drain_seconds: Duration,
    /// How long it may take until all connections are open and silent
    #[arg(long, default_value = "60", value_parser = seconds)]
    timeout_seconds: Duration,
    /// Run the same load against the floor first, and print the ratio
    #[arg(long)]
    floor: bool,
    #[command(flatten)]
    process: ServerProcess,
    #[command(flatten)]
    credential: Credential,
}

/// A server under load.
struct Server {
    socket: Target,
    publish: Target,
    pid: Option<Pid>,
    /// Header lines of every request to it.
    headers: String,
}

/// What one run over one server gave.
struct Measurement {
    published: Published,
    totals: Totals,
    failed: u64,
    window: Duration,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
    server_rss_bytes: Option<u64>,
}

/// The one JSON line. `docs/loadtest.md` says what each member means.
#[derive(Serialize)]
struct Report {
    test: &'static str,
    connections: u32,
    failed: u64,
    rate: u32,
    size: u32,
    seconds: f64,
    keys: u32,
    published: u64,
    acknowledged: u64,
    late: u64,
    expected: u64,
    delivered: u64,
    lost: u64,
    duplicates: u64,
    reordered: u64,
    coalesced: u64,
    unacknowledged_delivered: u64,
    other_frames: u64,
    frame_bytes: usize,
    latency_us: Latency,
    server_cpu_us_per_delivery: Option<f64>,
    client_cpu_us_per_delivery: Option<f64>,
    server_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<Floor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_floor: Option<f64>,
}

/// The floor's figures under the same load.
#[derive(Serialize)]
struct Floor {
    expected: u64,
    delivered: u64,
    lost: u64,
    latency_us: Latency,
    server_cpu_us_per_delivery: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let socket: Target = arguments.url.parse().context("invalid --url")?;
    let publish: Target = arguments.publish_url.parse().context("invalid --publish-url")?;
    let plan = arguments.plan()?;
    raise_file_limit(u64::from(arguments.connections))?;
    socket.probe()?;
    publish.probe()?;
    let server = Server {
        pid: arguments.process.find(&socket)?,
        headers: arguments.credential.header()?,
        socket,
        publish,
    };
    let floor = if arguments.floor { Some(measure_floor(arguments, &plan)?) } else { None };
    let measured = measure(arguments, &plan, &server)?;
    if let Some(floor) = &floor {
        print_lines("floor", arguments, floor);
    }
    print_lines("server", arguments, &measured);
    if server.pid.is_none() {
        eprintln!("note: the server's process was not found, so its CPU and memory are left out: --pid");
    }
    let report = report(arguments, &measured, floor.as_ref());
    if let Some(ratio) = report.ratio_to_floor {
        println!("server CPU per delivery is {ratio} times the floor's");
    }
    println!("{}", serde_json::to_string(&report)?);
    let clean = report.failed == 0
        && report.lost == 0
        && report.duplicates == 0
        && report.acknowledged == report.published
        && report.acknowledged > 0;
    Ok(if clean { Outcome::Clean } else { Outcome::Flawed })
}

impl Arguments {
    fn plan(&self) -> anyhow::Result<Plan> {
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

/// The same load on the floor, which lives as long as this takes.
fn measure_floor(arguments: &Arguments, plan: &Plan) -> anyhow::Result<Measurement> {
    let floor = FloorProcess::start()?;
    let server = Server {
        socket: Target::new(floor.authority(), Endpoint::Dashboard.path()),
        publish: Target::new(floor.authority(), "/"),
        pid: Some(floor.pid()?),
        headers: String::new(),
    };
    measure(arguments, plan, &server).context("the floor could not be measured")
}

/// Connects, waits for silence, publishes, waits for the last deliveries, closes.
fn measure(arguments: &Arguments, plan: &Plan, server: &Server) -> anyhow::Result<Measurement> {
    let clock = Clock::start();
    let subscription = plan.subscription.to_string();
    let path = server.socket.path_with(Some(&format!("subscriptions={subscription}")));
    let handshake = Handshake::new(&server.socket.authority, &path, &server.headers, vec![subscription]);
    let mut swarm = Swarm::new(server.socket.resolve()?, handshake, clock)?;
    let deadline = Deadline::after(arguments.timeout_seconds);
    swarm.open(arguments.connections as usize, deadline)?;
    if swarm.open_count() == 0 {
        swarm.failures().print();
        anyhow::bail!("none of {} connections could be opened", arguments.connections);
    }
    if !swarm.settle(arguments.settle_seconds, deadline)? {
        eprintln!("note: the connections did not become silent in time (--timeout-seconds); going on");
    }
    let open = swarm.open_flags();
    let mut tally = Tally::new(plan.run, open.len(), plan.publications() as usize)?;

    let began = clock.nanos();
    let cpu_before = server.pid.map(Pid::cpu_time).transpose()?;
    let own_before = Pid::own().cpu_time()?;
    let client = Client::new(&server.publish, &server.headers)?;
    let publisher = Publisher::start(plan.clone(), client, clock)?;
    while !publisher.is_finished() {
        swarm.turn(TURN, &mut tally)?;
    }
    let published = publisher.finish()?;
    drain(&mut swarm, &mut tally, &published, Deadline::after(arguments.drain_seconds))?;
    let own_after = Pid::own().cpu_time()?;
    let cpu_after = server.pid.map(Pid::cpu_time).transpose()?;
    let window = Duration::from_nanos(clock.nanos() - began);

    let server_rss_bytes = server.pid.map(Pid::rss_bytes).transpose()?;
    remove_leftovers(plan, server);
    swarm.close(Deadline::after(CLOSE_TIMEOUT))?;
    swarm.failures().print();
    Ok(Measurement {
        totals: tally.totals(&open, &published.acknowledged),
        published,
        failed: swarm.failures().total(),
        window,
        server_cpu: cpu_after.zip(cpu_before).map(|(after, before)| after.since(&before)),
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

fn print_lines(who: &str, arguments: &Arguments, measured: &Measurement) {
    let Arguments { connections, rate, size, .. } = arguments;
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

impl Measurement {
    fn server_cpu_us(&self) -> Option<f64> {
        self.per_delivery(self.server_cpu?)
    }

    fn client_cpu_us(&self) -> Option<f64> {
        self.per_delivery(self.client_cpu)
    }

    /// Microseconds to three decimals; nothing was delivered at no cost.
    fn per_delivery(&self, cpu: Duration) -> Option<f64> {
        let deliveries = self.totals.delivered + self.totals.unacknowledged + self.totals.duplicates;
        let nanos = cpu.as_nanos() as f64 / deliveries as f64;
        (deliveries > 0).then(|| nanos.round() / 1000.0)
    }
}

fn report(arguments: &Arguments, measured: &Measurement, floor: Option<&Measurement>) -> Report {
    let Measurement { published, totals, .. } = measured;
    let floor_cpu = floor.and_then(Measurement::server_cpu_us).filter(|cpu| *cpu > 0.0);
    let ratio = measured.server_cpu_us().zip(floor_cpu).map(|(server, floor)| server / floor);
    Report {
        test: "fanout",
        connections: arguments.connections,
        failed: measured.failed,
        rate: arguments.rate,
        size: arguments.size,
        seconds: arguments.seconds.as_secs_f64(),
        keys: arguments.keys,
        published: published.acknowledged.len() as u64,
        acknowledged: published.acknowledged_count(),
        late: published.late,
        expected: totals.expected,
        delivered: totals.delivered,
        lost: totals.lost(),
        duplicates: totals.duplicates,
        reordered: totals.reordered,
        coalesced: totals.coalesced,
        unacknowledged_delivered: totals.unacknowledged,
        other_frames: totals.other,
        frame_bytes: totals.frame_bytes,
        latency_us: totals.latency,
        server_cpu_us_per_delivery: measured.server_cpu_us(),
        client_cpu_us_per_delivery: measured.client_cpu_us(),
        server_rss_bytes: measured.server_rss_bytes,
        floor: floor.map(|floor| Floor {
            expected: floor.totals.expected,
            delivered: floor.totals.delivered,
            lost: floor.totals.lost(),
            latency_us: floor.totals.latency,
            server_cpu_us_per_delivery: floor.server_cpu_us(),
        }),
        ratio_to_floor: ratio.map(|ratio| (ratio * 100.0).round() / 100.0),
    }
}
