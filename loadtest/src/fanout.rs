//! `fanout`: one publication to many connections, again and again. With `--floor` the same load is first put
//! on the floor server, so that the figure has something to stand beside on the same machine in the same
//! minute.

use anyhow::Context as _;
use hiveops_proto::path::Endpoint;
use serde::Serialize;

use crate::Outcome;
use crate::floor::FloorProcess;
use crate::load::{Load, Measurement, Server, measure, print_lines};
use crate::options::{Credential, ServerProcess};
use crate::process::raise_file_limit;
use crate::publisher::Plan;
use crate::tally::Latency;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// WebSocket route to connect to
    #[arg(long, default_value_t = format!("ws://127.0.0.1:8000{}", Endpoint::Dashboard.path()))]
    url: String,
    /// Server to publish through
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    publish_url: String,
    #[command(flatten)]
    load: Load,
    /// Run the same load against the floor first, and print the ratio
    #[arg(long)]
    floor: bool,
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
    let plan = arguments.load.plan()?;
    raise_file_limit(u64::from(arguments.load.connections))?;
    socket.probe()?;
    publish.probe()?;
    let server = Server {
        processes: arguments.process.find(&socket)?.into_iter().collect(),
        headers: arguments.credential.header()?,
        socket,
        publish,
    };
    let floor = if arguments.floor { Some(measure_floor(arguments, &plan)?) } else { None };
    let measured = measure(&arguments.load, &plan, &server)?;
    if let Some(floor) = &floor {
        print_lines("floor", &arguments.load, floor);
    }
    print_lines("server", &arguments.load, &measured);
    if server.processes.is_empty() {
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

/// The same load on the floor, which lives as long as this takes.
fn measure_floor(arguments: &Arguments, plan: &Plan) -> anyhow::Result<Measurement> {
    let floor = FloorProcess::start()?;
    let server = Server {
        socket: Target::new(floor.authority(), Endpoint::Dashboard.path()),
        publish: Target::new(floor.authority(), "/"),
        processes: vec![floor.pid()?],
        headers: String::new(),
    };
    measure(&arguments.load, plan, &server).context("the floor could not be measured")
}

fn report(arguments: &Arguments, measured: &Measurement, floor: Option<&Measurement>) -> Report {
    let Measurement { published, totals, .. } = measured;
    let floor_cpu = floor.and_then(Measurement::server_cpu_us).filter(|cpu| *cpu > 0.0);
    let ratio = measured.server_cpu_us().zip(floor_cpu).map(|(server, floor)| server / floor);
    Report {
        test: "fanout",
        connections: arguments.load.connections,
        failed: measured.failed,
        rate: arguments.load.rate,
        size: arguments.load.size,
        seconds: arguments.load.seconds.as_secs_f64(),
        keys: arguments.load.keys,
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
