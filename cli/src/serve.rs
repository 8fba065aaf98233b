//! What `dev` and `node` share: logging, the control plane, the node, and the signals that stop it.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use hiveops_node::Config;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::signal::Signals;

/// The exit code that shells give a process ended by SIGINT.
const STOPPED_AT_ONCE: u8 = 130;

/// Runs a node until it is told to stop. `ready` hears its address; `beside` runs next to it and is dropped
/// with it.
pub(crate) fn serve(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send,
    beside: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    let log = hiveops_node::init_log(&config.log, config.log_format, Some(&config.node_id))?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let code = runtime.block_on(node_until_stopped(config, ready, beside))?;
    drop(log);
    Ok(code)
}

async fn node_until_stopped(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send,
    beside: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let control = hiveops_control::run(hiveops_control::Config::standalone(
        config.limits.clone(),
        config.limit_sources.clone(),
        config.contract.clone(),
    ))?;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        // The sender is dropped by the first signal.
        let _ = stopped.await;
    };
    let node = hiveops_node::run(config, control.watch(), ready, shutdown);
    let beside = async {
        beside.await;
        std::future::pending::<()>().await;
    };
    let two_signals = async {
        signals.next().await;
        tracing::info!("stopping");
        drop(stop);
        signals.next().await;
    };
    tokio::select! {
        result = node => result.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        // The process ends right after this; what the node still had to say is lost, as asked for.
        () = two_signals => std::process::exit(i32::from(STOPPED_AT_ONCE)),
        () = beside => Ok(ExitCode::SUCCESS),
    }
}

/// A runtime for commands that talk to a node: one thread is enough.
pub(crate) fn small_runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}
