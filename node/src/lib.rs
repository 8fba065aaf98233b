//! The edge node: it holds the WebSocket connections of many people and follows the bus.
//!
//! The binary loads a `Config` and calls `run`; nothing else is public.

mod board;
mod bus;
mod catalog;
pub mod config;
mod http;
mod hub;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod log;
mod publisher;
mod session;
mod tasks;
mod telemetry;
mod time;
mod ws;

pub use config::Config;
pub use telemetry::log::{LogError, LogGuard, init_log};

/// Why a node cannot run.
#[derive(Debug, thiserror::Error)]
#[error("this build has no node yet")]
pub struct RunError;

/// Stands in until the node's parts are wired.
pub async fn run(
    config: Config,
    control: tokio::sync::watch::Receiver<std::sync::Arc<hiveops_proto::control::ControlView>>,
    ready: impl FnOnce(std::net::SocketAddr) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    drop((config, control, ready, shutdown));
    Err(RunError)
}
