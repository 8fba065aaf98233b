//! A replica in this process, until a signal stops it.

use std::process::ExitCode;

use anyhow::Context as _;
use hiveops_node::config::LogFormat;
use hiveops_proto::NodeId;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::settings::{Loaded, ReplicaArgs};
use crate::serve::STOPPED_AT_ONCE;
use crate::signal::Signals;

pub(super) fn run(args: ReplicaArgs) -> anyhow::Result<ExitCode> {
    let Loaded { config, log, log_format } = args.load(LogFormat::Json)?;
    let name = NodeId::new(&format!("control-{}", config.id)).context("a number makes a good name")?;
    let log = hiveops_node::init_log(&log, log_format, Some(&name))?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let code = runtime.block_on(until_stopped(config))?;
    drop(log);
    Ok(code)
}

async fn until_stopped(config: hiveops_control::Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        // The sender is dropped by the first signal.
        let _ = stopped.await;
    };
    let id = config.id;
    let ready = |address| tracing::info!(replica = id, address = %address, "listening");
    let replica = hiveops_control::run(config, ready, shutdown);
    let two_signals = async {
        signals.next().await;
        tracing::info!("stopping");
        drop(stop);
        signals.next().await;
    };
    tokio::select! {
        ended = replica => ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        // What was acknowledged is on the disk; nothing else has to be finished.
        () = two_signals => std::process::exit(i32::from(STOPPED_AT_ONCE)),
    }
}
