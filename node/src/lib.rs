//! The edge node: it holds the WebSocket connections of many people and follows the bus.
//!
//! The binary loads a `Config` and calls `run`; nothing else is public.

mod admission;
mod app;
mod auth;
mod board;
mod bus;
mod catalog;
mod cluster;
pub mod config;
pub mod control;
#[cfg(feature = "counted")]
pub mod counted;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod hub;
mod log;
mod per_sub;
mod publisher;
mod session;
mod tasks;
mod telemetry;
mod time;
mod tls;
mod trace;
mod ws;

pub use app::{Listening, RunError, run};
pub use config::Config;
pub use telemetry::log::{LogError, LogGuard, init_log};
