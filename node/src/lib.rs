//! The edge node: it holds the WebSocket connections of many people and follows the bus.
//!
//! The binary loads a `Config` and calls `run`; nothing else is public.

mod bus;
mod catalog;
pub mod config;
mod log;
mod session;
mod tasks;
mod telemetry;
mod time;
mod ws;

pub use config::Config;
