//! `hiveops slo`: whether the objectives of `deploy/slo/objectives.json` hold.
//!
//! `check` reads nodes; what counts as bad, and out of how much, is in the file and nowhere here.

mod check;
mod exposition;
mod objectives;
mod report;
mod tally;
mod verdict;

use std::process::ExitCode;

/// What to do with the objectives.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Read the metrics of nodes and say how fast each error budget burns; for gates in CI
    Check(check::Args),
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check::run(args),
    }
}
