//! The edge node: it holds the WebSocket connections of many people and follows the bus.
//!
//! The binary calls `Config` and `run`; nothing else is public.

mod board;
mod bus;
mod catalog;
mod http;
mod log;
mod publisher;
mod session;
mod tasks;
mod telemetry;
mod time;
mod ws;
