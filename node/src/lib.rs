//! The edge node: it holds the WebSocket connections of many people and follows the bus.
//!
//! The binary calls `Config` and `run`; nothing else is public.

mod bus;
mod catalog;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod log;
mod session;
mod tasks;
mod telemetry;
mod time;
mod ws;
