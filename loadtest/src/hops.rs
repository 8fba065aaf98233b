//! `hops`: the same load on several targets in turn, round after round, and how each stands to the first. Two
//! nodes with a bus between them beside one node show what the bus costs; servers of other people beside ours
//! show what theirs cost. With `--floor` the floor is the first.

use std::str::FromStr;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::Outcome;
use crate::floor::FloorProcess;
use crate::load::{Load, Measurement, Server};
use crate::options::Credential;
use crate::process::{Pid, raise_file_limit};
use crate::rounds::{Contender, Ratio, Summary, floor_server, in_turn, median};
use crate::target::Target;

/// Targets of one run at most.
const TARGETS_MAX: usize = 8;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What is measured, the first one as the baseline: NAME=WS_URL,PUBLISH_URL[,PID…]; the CPU of all the
    /// named processes counts, nodes and broker
    #[arg(long = "target", required = true, value_name = "NAME=WS_URL,PUBLISH_URL[,PID…]")]
    targets: Vec<Place>,
    /// How often each is measured; the figures are medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=101))]
    rounds: u32,
    /// Put the floor before the targets, as the baseline
    #[arg(long)]
    floor: bool,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    credential: Credential,
}

/// One target of the command line.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    socket: Target,
    publish: Target,
    processes: Vec<Pid>,
}

/// One target, and how it stands to the first.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    summary: Summary,
    cpu_us_per_publication: Option<f64>,
    ratio_p50: f64,
    ratio_p99: f64,
    ratio_cpu: Option<f64>,
    ratio_cpu_rounds: Vec<f64>,
}

/// The one JSON line.
#[derive(Serialize)]
struct Report<'a> {
    test: &'static str,
    connections: u32,
    rate: u32,
    size: u32,
    seconds: f64,
    rounds: u32,
    targets: &'a [Row],
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let load = &arguments.load;
    ensure!(arguments.targets.len() <= TARGETS_MAX, "at most {TARGETS_MAX} targets (--target)");
    raise_file_limit(u64::from(load.connections))?;
    let mut servers: Vec<(String, Server)> = Vec::new();
    let floor = if arguments.floor { Some(FloorProcess::start()?) } else { None };
    if let Some(floor) = &floor {
        servers.push(("floor".to_owned(), floor_server(floor)?));
    }
    for place in &arguments.targets {
        servers.push((place.name.clone(), place.server(arguments)?));
    }
    let contenders: Vec<Contender<'_>> =
        servers.iter().map(|(name, server)| Contender { name, load, server }).collect();
    let measured = in_turn(&contenders, arguments.rounds)?;
    let mut rows: Vec<Row> = Vec::new();
    for (contender, own) in contenders.iter().zip(&measured) {
        let row = row(contender.name, own, &measured[0]);
        let latency = row.summary.latency_us;
        println!(
            "{}: p50 {} µs ({}x), p99 {} µs ({}x), CPU per delivery {} µs ({}x)",
            row.name,
            latency.p50,
            row.ratio_p50,
            latency.p99,
            row.ratio_p99,
            shown(row.summary.server_cpu_us_per_delivery),
            shown(row.ratio_cpu)
        );
        rows.push(row);
    }
    let report = Report {
        test: "hops",
        connections: load.connections,
        rate: load.rate,
        size: load.size,
        seconds: load.seconds.as_secs_f64(),
        rounds: arguments.rounds,
        targets: &rows,
    };
    println!("{}", serde_json::to_string(&report)?);
    let clean = measured.iter().flatten().all(Measurement::is_clean);
    Ok(if clean { Outcome::Clean } else { Outcome::Flawed })
}

impl Place {
    fn server(&self, arguments: &Arguments) -> anyhow::Result<Server> {
        self.socket.probe()?;
        self.publish.probe()?;
        Ok(Server {
            socket: self.socket.clone(),
            publish: self.publish.clone(),
            processes: self.processes.clone(),
            headers: arguments.credential.header()?,
        })
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, rest) = text.split_once('=').context("must begin with NAME=")?;
        let mut parts = rest.split(',');
        let socket = parts.next().unwrap_or_default().parse().context("the WebSocket URL")?;
        let publish =
            parts.next().context("lacks the URL to publish to")?.parse().context("the second URL")?;
        let processes = parts
            .map(|pid| Pid::check(pid.parse().with_context(|| format!("`{pid}` is no process id"))?))
            .collect::<anyhow::Result<_>>()?;
        ensure!(!name.is_empty(), "must begin with NAME=");
        Ok(Self { name: name.to_owned(), socket, publish, processes })
    }
}

fn row(name: &str, measured: &[Measurement], first: &[Measurement]) -> Row {
    let per_publication = median(measured.iter().filter_map(|once| {
        let publications = once.published.acknowledged_count();
        let cpu = once.server_cpu?.as_secs_f64() * 1_000_000.0;
        (publications > 0).then(|| (cpu / publications as f64).round())
    }));
    let p50 = Ratio::of(measured, first, |once| Some(once.totals.latency.p50));
    let cpu = Ratio::cpu(measured, first);
    Row {
        name: name.to_owned(),
        summary: Summary::of(measured),
        cpu_us_per_publication: per_publication,
        ratio_p50: p50.map_or(1.0, |ratio| ratio.median),
        ratio_p99: Ratio::p99(measured, first).map_or(1.0, |ratio| ratio.median),
        ratio_cpu: cpu.as_ref().map(|ratio| ratio.median),
        ratio_cpu_rounds: cpu.map(|ratio| ratio.rounds).unwrap_or_default(),
    }
}

fn shown(figure: Option<f64>) -> String {
    figure.map_or_else(|| "not measured".to_owned(), |figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_two_urls_and_processes() {
        let own = std::process::id();
        let text = format!("nats=ws://127.0.0.1:1/api,http://127.0.0.1:2,{own},{own}");
        let place: Place = text.parse().unwrap();
        assert_eq!((place.name.as_str(), place.processes.len()), ("nats", 2));
        for bad in ["nats", "=ws://a:1/,http://b:1", "n=ws://a:1/", "n=ws://a:1/,http://b:1,x", "n=x,y"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
