//! `reach`: how long it takes until publications lie in the receive buffers of all of many sockets. The clients
//! do not read meanwhile, and only ask the kernel how much has arrived: of some sockets after each publication,
//! of all at the end of a round, which is when it ends. So the client's own CPU is small and said: this is what
//! the server can do, whether on one core or on all of them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::value_parser;
use serde::Serialize;

use crate::Outcome;
use crate::clock::{Clock, Deadline};
use crate::connection::Discard;
use crate::fanout::Place;
use crate::load::{CLOSE_TIMEOUT, Load, Server, connect, remove_leftovers};
use crate::peer::Outlet;
use crate::process::Pid;
use crate::publisher::Plan;
use crate::rounds::{median, two_places};
use crate::swarm::Swarm;

/// Between two looks at the first socket that lacks something: short beside the milliseconds that a fan-out
/// to thousands takes.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// Of the sockets that are looked at after each publication: one in so many, and so many of the last ones, which
/// a server that goes through them in their order serves last. To ask for each socket takes the kernel nearly
/// a fifth of what it takes to send to it.
const SAMPLED: usize = 64;
/// Publications that wait unread in each socket at most: the smallest receive buffer takes them.
const UNREAD_MAX: u32 = 20;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    load: Load,
    /// How often twenty publications are followed to all sockets
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The one JSON line. `docs/loadtest.md` says what each member means.
#[derive(Serialize)]
struct Report {
    test: &'static str,
    connections: u32,
    size: u32,
    rounds: u32,
    publications: u32,
    failed: u64,
    /// Medians of the rounds.
    reach_us: Option<f64>,
    deliveries_per_second: Option<f64>,
    server_cores: Option<f64>,
    client_cores: Option<f64>,
    server_cpu_us_per_delivery: Option<f64>,
}

/// What one round came to.
struct Round {
    /// Until all sockets had them, of each publication on the average.
    reach: Duration,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
    window: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let Arguments { place, load, .. } = arguments;
    let plan = load.plan()?;
    ensure!(plan.channels.count() == 1, "`reach` follows publications of one subscription (--subscriptions)");
    let server = place.server(load.connections)?;
    let clock = Clock::start();
    let mut swarm = connect(load, &plan, &server, clock, &mut Discard)?;
    let open = swarm.open_count();
    let mut outlet = Outlet::open(&server.publish, &server.headers, &plan.channels)?;
    let mut seq = 0;
    // The first one is read as usual, and says how long a frame is.
    let before = swarm.bytes_read();
    publish(&plan, &mut outlet, &mut seq, clock)?;
    swarm.settle(load.settle_seconds, Deadline::after(load.timeout_seconds), &mut Discard)?;
    let frame_bytes = usize::try_from((swarm.bytes_read() - before) / open as u64)?;
    ensure!(frame_bytes > load.size as usize, "the first publication did not arrive everywhere");
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds {
        rounds.push(round(load, &server, &plan, &mut swarm, &mut outlet, (&mut seq, frame_bytes, clock))?);
        swarm.settle(load.settle_seconds, Deadline::after(load.timeout_seconds), &mut Discard)?;
    }
    let failed = swarm.failures().total();
    swarm.failures().print();
    swarm.close(Deadline::after(CLOSE_TIMEOUT))?;
    remove_leftovers(&plan, &server);
    let middle = |figure: &dyn Fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(figure));
    let share = |part: Duration, whole: Duration| part.as_secs_f64() / whole.as_secs_f64();
    let deliveries = open as f64 * f64::from(UNREAD_MAX);
    let report = Report {
        test: "reach",
        connections: load.connections,
        size: load.size,
        rounds: arguments.rounds,
        publications: UNREAD_MAX,
        failed,
        reach_us: middle(&|round| Some((round.reach.as_nanos() as f64 / 1000.0).round())),
        deliveries_per_second: middle(&|round| Some((open as f64 / round.reach.as_secs_f64()).round())),
        server_cores: middle(&|round| Some(two_places(share(round.server_cpu?, round.window)))),
        client_cores: middle(&|round| Some(two_places(share(round.client_cpu, round.window)))),
        server_cpu_us_per_delivery: middle(&|round| {
            Some((round.server_cpu?.as_nanos() as f64 / deliveries).round() / 1000.0)
        }),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(if failed == 0 { Outcome::Clean } else { Outcome::Flawed })
}

fn round(
    load: &Load,
    server: &Server,
    plan: &Plan,
    swarm: &mut Swarm,
    outlet: &mut Outlet,
    (seq, frame_bytes, clock): (&mut u32, usize, Clock),
) -> anyhow::Result<Round> {
    let (cpu_before, own_before) = (server.cpu_times()?, Pid::own().cpu_time()?);
    let began = clock.nanos();
    let (all, mut arrived) = (0..swarm.len(), 0);
    let sample = || all.clone().filter(|at| at % SAMPLED == 0 || at + SAMPLED >= all.end);
    for _ in 0..UNREAD_MAX {
        publish(plan, outlet, seq, clock)?;
        // Numbers only grow longer, so no frame is shorter than the first one.
        arrived += frame_bytes;
        await_arrival(swarm, sample(), arrived, load.drain_seconds)?;
    }
    await_arrival(swarm, all.clone(), arrived, load.drain_seconds)?;
    let window = Duration::from_nanos(clock.nanos() - began);
    Ok(Round {
        reach: window / UNREAD_MAX,
        server_cpu: Server::cpu_between(&cpu_before, &server.cpu_times()?),
        client_cpu: Pid::own().cpu_time()?.since(&own_before),
        window,
    })
}

/// Waits until each of some sockets has so many bytes unread.
fn await_arrival(
    swarm: &Swarm,
    sockets: impl Iterator<Item = usize>,
    bytes: usize,
    within: Duration,
) -> anyhow::Result<()> {
    let deadline = Deadline::after(within);
    for socket in sockets {
        while swarm.unread_bytes(socket)? < bytes {
            ensure!(deadline.left().is_some(), "a publication did not reach connection {socket} in time");
            pause(LOOK_EVERY);
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the sockets are not polled: that would wake this thread for each"
)]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

fn publish(plan: &Plan, outlet: &mut Outlet, seq: &mut u32, clock: Clock) -> anyhow::Result<()> {
    let outcome = outlet.publish(&[(0, plan.data(*seq, clock.nanos()))]).pop();
    *seq += 1;
    outcome.context("one publication has one outcome")?.context("the publication was refused")
}
