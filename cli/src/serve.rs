//! What `dev` and `node` share: logging, the control plane, the node, and the signals that stop it.

use std::pin::Pin;
use std::process::ExitCode;

use anyhow::Context as _;
use hiveops_control::config::Start;
use hiveops_control::standalone;
use hiveops_node::control::{ControlSource, Replicas};
use hiveops_node::{Config, Listening};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::overridden::{Overridden, overridden};
use crate::replica::Replica;
use crate::scratch::Scratch;
use crate::signal::Signals;

/// The exit code that shells give a process ended by SIGINT.
pub(crate) const STOPPED_AT_ONCE: u8 = 130;

/// What runs in the process beside the node.
#[derive(Default)]
pub(crate) struct Beside {
    /// A control replica, which outlives the node.
    pub(crate) replica: Option<Replica>,
    /// Where everything lies that is not to be kept.
    pub(crate) scratch: Option<Scratch>,
}

/// Runs a node until it is told to stop. `ready` hears its addresses, and which of its limits the control plane
/// overrides; `work` runs next to it and is dropped with it.
pub(crate) fn serve(
    config: Config,
    beside: Beside,
    ready: impl FnOnce(Listening, &[Overridden]) + Send,
    work: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    let log = hiveops_node::init_log(&config.log, config.log_format, Some(&config.node_id))?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let code = runtime.block_on(until_stopped(config, beside, ready, work))?;
    drop(log);
    Ok(code)
}

/// The replica, if there is one, from before the node begins until after it has ended.
async fn until_stopped(
    config: Config,
    beside: Beside,
    ready: impl FnOnce(Listening, &[Overridden]) + Send,
    work: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let Beside { replica, scratch } = beside;
    let view_dir = config.data_dir.clone().or_else(|| Some(scratch.as_ref()?.path().to_owned()));
    let replicas = Replicas {
        urls: config.control.clone(),
        secret: config.cluster_secret.clone(),
        data_dir: view_dir.unwrap_or_default(),
    };
    let Some(replica) = replica else {
        return node_until_stopped(config, replicas, &mut signals, ready, work, || {}).await;
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let mut replica = std::pin::pin!(replica.run(async {
        // The sender is dropped when the node has ended.
        let _ = stopped.await;
    }));
    let mut scratch = scratch;
    let ended = tokio::select! {
        ended = node_until_stopped(config, replicas, &mut signals, ready, work, || drop(scratch.take())) => ended,
        // Without being told to: it cannot go on, or somebody has removed it.
        ended = &mut replica => return ended.map(|()| ExitCode::SUCCESS),
    };
    drop(stop);
    replica.await?;
    ended
}

async fn node_until_stopped(
    config: Config,
    replicas: Replicas,
    signals: &mut Signals,
    ready: impl FnOnce(Listening, &[Overridden]) + Send,
    work: impl Future<Output = ()>,
    at_once: impl FnOnce(),
) -> anyhow::Result<ExitCode> {
    let (control, following) = tokio::select! {
        control = control(&config, replicas) => control?,
        // The first view may be long in coming.
        () = signals.next() => {
            tracing::info!("stopping before there was a control view");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let overridden = overridden(&config, &control.view());
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        // The sender is dropped by the first signal.
        let _ = stopped.await;
    };
    let node = hiveops_node::run(config, control, |listening| ready(listening, &overridden), shutdown);
    let beside = async {
        tokio::join!(work, following);
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
        () = two_signals => {
            at_once();
            std::process::exit(i32::from(STOPPED_AT_ONCE))
        }
        () = beside => Ok(ExitCode::SUCCESS),
    }
}

/// Where the node's control view comes from, and what keeps it coming.
async fn control(
    config: &Config,
    replicas: Replicas,
) -> anyhow::Result<(ControlSource, Pin<Box<dyn Future<Output = ()>>>)> {
    if replicas.urls.is_empty() {
        let (limits, sources) = (config.limits.clone(), config.limit_sources.clone());
        let plane = standalone::run(Start::new(limits, sources, &config.contract))?;
        let source = plane.watch().into();
        // The plane lives as long as its handle.
        let held = async move {
            let _plane = plane;
            std::future::pending().await
        };
        return Ok((source, Box::pin(held)));
    }
    let (source, following) = hiveops_node::control::follow(replicas).await?;
    Ok((source, Box::pin(following)))
}

/// A runtime for commands that talk to a node: one thread is enough.
pub(crate) fn small_runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}
