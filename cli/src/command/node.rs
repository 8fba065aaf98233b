//! `hiveops node`: a node, configured for what it is for.

use std::net::SocketAddr;
use std::process::ExitCode;

use hiveops_node::config::{Defaults, LogFormat};

use crate::overridden::Overridden;
use crate::serve::{Beside, serve};
use crate::settings::SettingArgs;

/// The node's settings.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.settings.load(&Defaults::here("info", LogFormat::Json))?.config;
    let ready = |address: SocketAddr, overridden: &[Overridden]| {
        for Overridden { name, given, source, in_force } in overridden {
            tracing::warn!(limit = name, given, source = %source, in_force, "limit is the control plane's, not this node's");
        }
        tracing::info!(address = %address, "listening");
    };
    serve(config, Beside::default(), ready, std::future::pending())
}
