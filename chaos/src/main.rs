//! `hiveops-chaos`: runs scenarios, each of them one line of JSON on standard output. Ends with a status of
//! its own when one is not good.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hiveops_chaos::broker::Bus;
use hiveops_chaos::plan::Scale;
use hiveops_chaos::scenario::{SCENARIOS, Scenario, Setup};

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
            eprintln!("{} on {} begins", scenario.name, bus.as_str());
            match (scenario.run)(&setup) {
                Ok(report) => println!("{}", report.line()),
                Err(error) => {
                    eprintln!("error: {error:#}");
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    code
}
