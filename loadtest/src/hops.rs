//! `hops`: what a bus between the publisher's node and the watcher's costs. The same load goes to each target
//! in turn, round after round: the first is the embedded path, publisher, node, client; the others have two
//! hops, publisher, node, bus, another node, client. Prints the medians beside each other.

use std::str::FromStr;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::Outcome;
use crate::load::{Load, Measurement, Server, measure, print_lines};
use crate::options::Credential;
use crate::process::{Pid, raise_file_limit};
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

/// The medians of one target, and how they stand to those of the first.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    delivered: u64,
    lost: u64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_delivery: Option<f64>,
    cpu_us_per_publication: Option<f64>,
    ratio_p50: f64,
    ratio_p99: f64,
    ratio_cpu: Option<f64>,
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
    let servers: Vec<Server> =
        arguments.targets.iter().map(|place| place.server(arguments)).collect::<Result<_, _>>()?;
    let mut measured: Vec<Vec<Measurement>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 1..=arguments.rounds {
        // In turn, so that what else the machine does meanwhile is shared by all.
        for ((place, server), measured) in arguments.targets.iter().zip(&servers).zip(&mut measured) {
            // Each measurement has its own marks: what is left of another is not taken for its own.
            let once = measure(load, &load.plan()?, server)
                .with_context(|| format!("{} could not be measured", place.name))?;
            print_lines(&format!("{} {round}", place.name), load, &once);
            measured.push(once);
        }
    }
    let mut rows: Vec<Row> = Vec::new();
    for (place, measured) in arguments.targets.iter().zip(&measured) {
        let row = row(&place.name, measured, rows.first());
        println!(
            "{}: p50 {} µs ({}x), p99 {} µs ({}x), CPU per delivery {} µs ({}x)",
            row.name,
            row.p50_us,
            row.ratio_p50,
            row.p99_us,
            row.ratio_p99,
            shown(row.cpu_us_per_delivery),
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
    let clean = measured.iter().flatten().all(|once| {
        let acknowledged = once.published.acknowledged_count();
        once.failed == 0 && once.totals.lost() == 0 && once.totals.duplicates == 0 && acknowledged > 0
    });
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

fn row(name: &str, measured: &[Measurement], first: Option<&Row>) -> Row {
    let median_of = |figure: &dyn Fn(&Measurement) -> Option<f64>| median(measured.iter().filter_map(figure));
    let p50_us = median_of(&|once| Some(once.totals.latency.p50)).unwrap_or_default();
    let p99_us = median_of(&|once| Some(once.totals.latency.p99)).unwrap_or_default();
    let cpu = median_of(&Measurement::server_cpu_us);
    let per_publication = median_of(&|once| {
        let publications = once.published.acknowledged_count();
        let cpu = once.server_cpu?.as_secs_f64() * 1_000_000.0;
        (publications > 0).then(|| (cpu / publications as f64).round())
    });
    let ratio =
        |figure: f64, first: Option<f64>| first.filter(|first| *first > 0.0).map_or(1.0, |f| figure / f);
    Row {
        name: name.to_owned(),
        delivered: measured.iter().map(|once| once.totals.delivered).sum(),
        lost: measured.iter().map(|once| once.totals.lost()).sum(),
        p50_us,
        p99_us,
        cpu_us_per_delivery: cpu,
        cpu_us_per_publication: per_publication,
        ratio_p50: two_places(ratio(p50_us, first.map(|row| row.p50_us))),
        ratio_p99: two_places(ratio(p99_us, first.map(|row| row.p99_us))),
        ratio_cpu: cpu.map(|cpu| two_places(ratio(cpu, first.and_then(|row| row.cpu_us_per_delivery)))),
    }
}

fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

fn two_places(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
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

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }
}
