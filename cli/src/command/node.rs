//! `hiveops node`: a node, configured for what it is for.

use std::process::ExitCode;

use hiveops_node::config::LogFormat;

use crate::serve::serve;
use crate::settings::SettingArgs;

/// The node's settings.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.settings.load("info", LogFormat::Json)?.config;
    let ready = |address| tracing::info!(address = %address, "listening");
    serve(config, ready, std::future::pending())
}
