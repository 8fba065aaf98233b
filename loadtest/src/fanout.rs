//! `fanout`: publications to many connections, again and again. With `--floor` or `--pairs` the same load is
//! put on the floor server as well, in turn, so that the figure has something to stand beside on the same
//! machine in the same minute.

use anyhow::Context as _;
use clap::value_parser;
use hiveops_proto::path::Endpoint;
use serde::Serialize;

use crate::Outcome;
use crate::floor::FloorProcess;
use crate::load::{Load, Measurement, Server};
use crate::options::{Credential, ServerProcess};
use crate::process::raise_file_limit;
use crate::rounds::{Contender, Ratio, Summary, floor_server, in_turn};
use crate::target::Target;

/// Which server, and where it is published to. `burst`, `slow` and `compress` ask for the same.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// WebSocket route to connect to
    #[arg(long, default_value_t = format!("ws://127.0.0.1:8000{}", Endpoint::Dashboard.path()))]
    url: String,
    /// Server to publish through
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    publish_url: String,
    #[command(flatten)]
    process: ServerProcess,
    #[command(flatten)]
    credential: Credential,
}

impl Place {
    /// The server, once it was seen to be there.
    pub(crate) fn server(&self, connections: u32) -> anyhow::Result<Server> {
        let socket: Target = self.url.parse().context("invalid --url")?;
        let publish: Target = self.publish_url.parse().context("invalid --publish-url")?;
        raise_file_limit(u64::from(connections))?;
        socket.probe()?;
        publish.probe()?;
        let processes: Vec<_> = self.process.find(&socket)?.into_iter().collect();
        if processes.is_empty() {
            eprintln!("note: the server's process was not found, so its CPU and memory are left out: --pid");
        }
        Ok(Server { processes, headers: self.credential.header()?, socket, publish })
    }
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    load: Load,
    /// Run the same load against the floor as well, and print the ratio: one pair
    #[arg(long)]
    floor: bool,
    /// How often the floor and the server are measured in turn; the ratio is the median
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u32).range(0..=101))]
    pairs: u32,
}

/// The one JSON line. `docs/loadtest.md` says what each member means.
#[derive(Serialize)]
struct Report<'a> {
    test: &'static str,
    connections: u32,
    subscriptions: usize,
    rate: u32,
    burst: u32,
    size: u32,
    seconds: f64,
    keys: u32,
    rounds: u32,
    #[serde(flatten)]
    server: Summary,
    #[serde(flatten)]
    floor: Floored,
    #[serde(flatten)]
    more: &'a More,
}

/// What a subcommand adds to the report.
#[derive(Default, Serialize)]
pub(crate) struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) syscalls_per_delivery: Option<f64>,
}

/// The floor's figures under the same load, and how the server stands to them.
#[derive(Serialize)]
struct Floored {
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_floor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_floor_rounds: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ratio_to_floor: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let Arguments { place, load, .. } = arguments;
    load.plan()?;
    let server = place.server(load.connections)?;
    let pairs = arguments.pairs.max(u32::from(arguments.floor));
    compare("fanout", load, &server, pairs, &More::default())
}

/// Measures the server, in turn with the floor when there are `pairs`, and prints the report.
pub(crate) fn compare(
    test: &'static str,
    load: &Load,
    server: &Server,
    pairs: u32,
    more: &More,
) -> anyhow::Result<Outcome> {
    let floor = if pairs > 0 { Some(FloorProcess::start()?) } else { None };
    let floor_server = floor.as_ref().map(floor_server).transpose()?;
    let mut contenders: Vec<Contender<'_>> =
        floor_server.iter().map(|server| Contender { name: "floor", load, server }).collect();
    contenders.push(Contender { name: "server", load, server });
    let mut measured = in_turn(&contenders, pairs.max(1))?;
    let of_server = measured.pop().context("the server was measured")?;
    let of_floor = measured.pop();
    let floored = floored(&of_server, of_floor.as_deref());
    if let (Some(ratio), Some(p99)) = (floored.ratio_to_floor, floored.p99_ratio_to_floor) {
        println!("server CPU per delivery is {ratio} times the floor's, p99 {p99} times");
    }
    let report = Report {
        test,
        connections: load.connections,
        subscriptions: load.choice.channels()?.count(),
        rate: load.rate,
        burst: load.burst,
        size: load.size,
        seconds: load.seconds.as_secs_f64(),
        keys: load.keys,
        rounds: pairs.max(1),
        server: Summary::of(&of_server),
        floor: floored,
        more,
    };
    println!("{}", serde_json::to_string(&report)?);
    let clean = of_server.iter().all(Measurement::is_clean);
    Ok(if clean { Outcome::Clean } else { Outcome::Flawed })
}

fn floored(server: &[Measurement], floor: Option<&[Measurement]>) -> Floored {
    let cpu = floor.and_then(|floor| Ratio::cpu(server, floor));
    let p99 = floor.and_then(|floor| Ratio::p99(server, floor));
    Floored {
        floor: floor.map(Summary::of),
        ratio_to_floor: cpu.as_ref().map(|ratio| ratio.median),
        ratio_to_floor_rounds: cpu.map(|ratio| ratio.rounds),
        p99_ratio_to_floor: p99.map(|ratio| ratio.median),
    }
}
