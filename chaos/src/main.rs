//! `hiveops-chaos`: runs scenarios, each of them one line of JSON on standard output. Ends with a status of
//! its own when one is not good.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use hiveops_chaos::broker::Bus;
use hiveops_chaos::network;
use hiveops_chaos::plan::Scale;
use hiveops_chaos::scenario::{SCENARIOS, Scenario, Setup};

/// For a long run in a network of its own.
const APART_PATIENCE: Duration = Duration::from_secs(1_200);

/// Kills, freezes and cuts off real nodes and brokers under load, and checks what clients saw.
#[derive(Parser)]
#[command(name = "hiveops-chaos", version, about)]
struct Arguments {
    /// Scenarios to run, in this order [default: all of them]
    #[arg(value_parser = parse)]
    scenarios: Vec<&'static Scenario>,
    /// The file of `hiveops`
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The bus; both when left out
    #[arg(long)]
    bus: Vec<Bus>,
    /// How long
    #[arg(long, default_value = "short")]
    scale: Scale,
    /// Drop no packets: links stand still instead, as where the kernel or a right is missing
    #[arg(long)]
    keep_packets: bool,
    /// Publications per second, in place of a scenario's own number
    #[arg(long)]
    rate: Option<u32>,
    /// Decides what happens when
    #[arg(long)]
    seed: Option<u64>,
}

fn parse(name: &str) -> Result<&'static Scenario, String> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = || SCENARIOS.iter().collect();
    let scenarios: Vec<&Scenario> = if arguments.scenarios.is_empty() { all() } else { arguments.scenarios };
    let buses = if arguments.bus.is_empty() { vec![Bus::Nats, Bus::Redis] } else { arguments.bus };
    let mut code = ExitCode::SUCCESS;
    for bus in buses {
        for scenario in &scenarios {
            let mut setup = Setup::new(&arguments.binary, bus, arguments.scale);
            setup.seed = arguments.seed.unwrap_or(setup.seed);
            setup.rate = arguments.rate;
            eprintln!("{} on {} begins", scenario.name, bus.as_str());
            if let Err(error) = run(scenario, &setup, arguments.keep_packets) {
                eprintln!("error: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Here, or in a network of its own when it wants one and there is a way.
fn run(scenario: &Scenario, setup: &Setup, keep_packets: bool) -> Result<()> {
    let wanted = scenario.loses_packets && !keep_packets && !network::is_apart();
    let way = if wanted { network::way_apart() } else { None };
    let Some(way) = way else {
        println!("{}", (scenario.run)(setup)?.line());
        return Ok(());
    };
    let Setup { binary, bus, scale, seed, rate } = setup;
    let args = [scenario.name, "--binary", &binary.to_string_lossy(), "--bus", bus.as_str()];
    let args = args.into_iter().chain(["--scale", scale.as_str(), "--seed"]).map(str::to_owned);
    let rate = rate.iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]);
    let args: Vec<String> = args.chain([seed.to_string()]).chain(rate).collect();
    let program = std::env::current_exe().context("where this program is")?;
    let (status, output) = network::run_apart(way, &program, &args, APART_PATIENCE)?;
    print!(
        "{}",
        output
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    );
    ensure!(status.success(), "{output}");
    Ok(())
}
