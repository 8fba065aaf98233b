//! `hiveops dev`: a node for trying things out with a control replica beside it, and what to try.

mod banner;
mod cluster;

use std::io::{IsTerminal as _, stderr};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use hiveops_node::config::{CONTROL_LISTEN_ENV, Defaults, LogFormat, Secret};
use hiveops_node::{Config, Listening};
use tokio::sync::oneshot;

use crate::address::node_url;
use crate::api::{Api, Target};
use crate::control_api::ControlApi;
use crate::output::Usage;
use crate::overridden::Overridden;
use crate::replica::Replica;
use crate::scratch::Scratch;
use crate::serve::{Beside, serve};
use crate::settings::SettingArgs;
use crate::{demo, output};
use banner::{Asks, Banner};

/// The node's settings, and what only makes sense here.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run simulated agents through the public API; everything they make is labelled as simulated
    #[arg(long)]
    demo: bool,
    /// Address of the control replica, 127.0.0.1:7100 or a free port when left out [env: HIVEOPS_CONTROL_LISTEN]
    #[arg(long, env = CONTROL_LISTEN_ENV, value_name = "ADDRESS:PORT", hide_env = true)]
    control_listen: Option<SocketAddr>,
    #[command(flatten, next_help_heading = "A local cluster")]
    cluster: cluster::Args,
    #[command(flatten, next_help_heading = "Settings of the node, or of every node")]
    settings: SettingArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // A quiet log keeps the advice on the screen; whoever reads it with a program gets JSON.
    let log_format = if stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    let loaded = args
        .settings
        .clone()
        .load(&Defaults { control_beside: true, ..Defaults::here("warn", log_format) })?;
    if args.cluster.size().is_some() {
        if args.control_listen.is_some() {
            let text = format!(
                "the replicas of a local cluster get ports of their own: leave {CONTROL_LISTEN_ENV} out"
            );
            return Err(Usage(text).into());
        }
        if loaded.config.tls.is_some() {
            let text =
                "the nodes of a local cluster are plain behind its balancer: leave HIVEOPS_TLS_CERT out";
            return Err(Usage(text.to_owned()).into());
        }
        return cluster::run(&args.cluster, &args.settings, &loaded, args.demo);
    }
    let mut config = loaded.config;
    let beside = beside(args.control_listen, &mut config)?;
    let banner = Banner::new(&config, args.demo, beside.replica.is_some());
    let token = config.auth.token.as_ref().map(Secret::expose).map(str::to_owned);
    let tls = config.tls.clone();
    let account = if args.demo { demo_account(&config, &beside)? } else { None };
    let (address_known, address) = oneshot::channel();
    let ready = |listening: Listening, overridden: &[Overridden]| {
        // Nobody listens without --demo, and nobody reads when standard output is closed.
        let _ = output::line(banner.text(listening, overridden));
        let _ = address_known.send(listening.address);
    };
    let simulation = async {
        if args.demo
            && let Ok(address) = address.await
            && let url = node_url(address, tls.as_ref())
            && let Ok(api) = Api::new(Target { url, ca: tls.map(|files| files.cert), token })
        {
            demo::run(api, account).await;
        }
    };
    serve(config, beside, ready, simulation)
}

/// The user of the simulated agents. It is made in no control plane but the one of this process: in another one it
/// would be a user that nobody there has asked for.
fn demo_account(config: &Config, beside: &Beside) -> anyhow::Result<Option<demo::Account>> {
    if Asks::of(&config.auth) == Asks::Login && beside.replica.is_none() {
        let text = "the simulated agents need a user, which --demo makes only in a control plane that it starts: \
                    leave --demo or HIVEOPS_CONTROL out";
        return Err(Usage(text.to_owned()).into());
    }
    account(config, config.control.clone())
}

/// The user of the simulated agents, where nodes ask for access tokens.
fn account(config: &Config, replicas: Vec<String>) -> anyhow::Result<Option<demo::Account>> {
    if Asks::of(&config.auth) != Asks::Login {
        return Ok(None);
    }
    let secret = config.cluster_secret.as_ref().map(Secret::expose).map(str::to_owned);
    let account = demo::Account::new(ControlApi::of(replicas, secret)?);
    Ok(Some(account.context("there is no password for the simulated agents")?))
}

/// A replica for the node to follow, unless it is told to follow others.
fn beside(listen: Option<SocketAddr>, config: &mut Config) -> anyhow::Result<Beside> {
    if !config.control.is_empty() {
        if listen.is_some() {
            let text = format!(
                "the node follows HIVEOPS_CONTROL, so that {CONTROL_LISTEN_ENV} has no replica to name"
            );
            return Err(Usage(text).into());
        }
        return Ok(Beside::default());
    }
    let scratch = match config.data_dir {
        Some(_) => None,
        None => Some(Scratch::make().context("no temporary directory can be made")?),
    };
    let kept = config.data_dir.as_deref().or_else(|| Some(scratch.as_ref()?.path())).unwrap_or(".".as_ref());
    let replica = Replica::prepare(listen, &kept.join("control"), config)?;
    config.control = vec![replica.url()];
    Ok(Beside { replica: Some(replica), scratch })
}
