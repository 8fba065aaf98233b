//! `hiveops healthcheck`: exit code 0 when a node takes traffic, 1 when not; for containers.

use std::process::ExitCode;

use crate::api::{Api, Target};
use crate::output;
use crate::serve::small_runtime;

/// Which node.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let api = Api::new(args.target)?;
    small_runtime()?.block_on(api.get(hiveops_proto::path::READYZ))?;
    output::line("ready")?;
    Ok(ExitCode::SUCCESS)
}
