//! `hiveops node`: a node, configured for what it is for.

use std::process::ExitCode;

use hiveops_node::Listening;
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
    let ready = |listening: Listening, overridden: &[Overridden]| {
        for Overridden { name, given, source, in_force } in overridden {
            tracing::warn!(limit = name, given, source = %source, in_force, "limit is the control plane's, not this node's");
        }
        let admin_address = listening.admin.map(tracing::field::display);
        tracing::info!(address = %listening.address, admin_address, "listening");
    };
    serve(config, Beside::default(), ready, std::future::pending())
}
