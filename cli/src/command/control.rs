//! `hiveops control`: a replica of the control plane, and what to do with its members.

pub(crate) mod members;
mod run;
mod settings;

use std::process::ExitCode;

use settings::ReplicaArgs;

/// A replica's settings, or something to ask of a cluster.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<members::Command>,
    #[command(flatten)]
    settings: ReplicaArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(command) => members::run(command),
        None => run::run(args.settings),
    }
}
