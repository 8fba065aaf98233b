//! What `dev` and `node` share: logging, the control plane, the node, and the signals that stop it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context as _;
use hiveops_control::standalone;
use hiveops_node::Config;
use hiveops_node::control::{ControlSource, Replicas};
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
    let (control, following) = control(&config).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        // The sender is dropped by the first signal.
        let _ = stopped.await;
    };
    let node = hiveops_node::run(config, control, ready, shutdown);
    let beside = async {
        tokio::join!(beside, following);
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

/// Where the node's control view comes from, and what keeps it coming.
async fn control(config: &Config) -> anyhow::Result<(ControlSource, Pin<Box<dyn Future<Output = ()>>>)> {
    if config.control.is_empty() {
        let plane = standalone::run(standalone::Config::new(
            config.limits.clone(),
            config.limit_sources.clone(),
            config.contract.clone(),
        ))?;
        let source = plane.watch().into();
        // The plane lives as long as its handle.
        let held = async move {
            let _plane = plane;
            std::future::pending().await
        };
        return Ok((source, Box::pin(held)));
    }
    let replicas = Replicas {
        urls: config.control.clone(),
        secret: config.cluster_secret.clone(),
        data_dir: config.data_dir.clone().unwrap_or_default(),
    };
    let (source, following) = hiveops_node::control::follow(replicas).await?;
    Ok((source, Box::pin(following)))
}

/// A runtime for commands that talk to a node: one thread is enough.
pub(crate) fn small_runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}
