//! `hiveops doctor`: whether a node can run here with this configuration, and what to do where it cannot.

mod bus;
mod check;
mod clock;
mod control;
mod credential;
mod finding;
mod network;
mod tls;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use hiveops_node::config::{CLIENT_ENV, Defaults, LogFormat, Mistake, Mistakes};

use finding::{Check, Finding, Level, Report, worst};

use crate::api::{Api, Target};
use crate::output::{self, Usage};
use crate::serve::small_runtime;
use crate::settings::SettingArgs;

/// Nodes whose clocks are asked for, one after the other, 2 s each at most.
const NODES_MAX: usize = 32;

const EXIT_CODES: &str = "\
Exit codes:
  0  every check is ok, warn or skip
  1  a check is fail; a configuration that is wrong is one
  2  the command line is wrong";

/// The configuration to check.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Nodes of the cluster that run already, with commas between them: their clocks are compared
    #[arg(long, value_name = "URL,…", value_delimiter = ',')]
    url: Vec<String>,
    /// Certificates to trust besides those of the system when --url is https, as PEM
    #[arg(long, env = CLIENT_ENV[2], value_name = "FILE")]
    ca: Option<PathBuf>,
    /// After how long a silent connection is cut by the proxy or balancer in front
    #[arg(long, value_name = "SECONDS")]
    proxy_idle: Option<u64>,
    #[command(flatten)]
    settings: SettingArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// A line per check, for people
    Text,
    /// One JSON object
    Json,
}

/// What is known beside the configuration.
struct Surroundings {
    /// Running nodes, by address.
    nodes: Vec<(String, Api)>,
    proxy_idle_seconds: Option<u64>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.url.len() > NODES_MAX {
        return Err(Usage(format!("--url names more than {NODES_MAX} nodes")).into());
    }
    let nodes = args.url.into_iter().map(|url| {
        let api = Api::new(Target { ca: args.ca.clone(), ..Target::of(url.clone()) })?;
        Ok((url, api))
    });
    let around =
        Surroundings { nodes: nodes.collect::<anyhow::Result<_>>()?, proxy_idle_seconds: args.proxy_idle };
    let mut findings = match args.settings.load(&Defaults::here("info", LogFormat::Json)) {
        Ok(loaded) => small_runtime()?.block_on(check::all(&loaded, &around)),
        Err(Mistakes(mistakes)) => unusable(mistakes),
    };
    // Stable, so that several mistakes of the configuration keep their order.
    findings.sort_by_key(|finding| finding.check);
    match args.output {
        Output::Json => output::json(&serde_json::to_value(Report::of(&findings))?)?,
        Output::Text => {
            for finding in &findings {
                output::line(finding)?;
            }
        }
    }
    Ok(if worst(&findings) == Level::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Each mistake, and every other check as one that could not be made.
fn unusable(mistakes: Vec<Mistake>) -> Vec<Finding> {
    let mistakes = mistakes.into_iter().map(|mistake| {
        let place = if mistake.place.is_empty() { String::new() } else { format!(" ({})", mistake.place) };
        let text = format!("{}{place}: {}", mistake.key, mistake.problem);
        Finding::fail(Check::ConfigValid, text, mistake.fix)
    });
    let others = Check::ALL.iter().filter(|check| **check != Check::ConfigValid);
    let others = others.map(|check| {
        Finding::skip(*check, "not looked at: the configuration is wrong", "correct what config.valid says")
    });
    mistakes.chain(others).collect()
}
