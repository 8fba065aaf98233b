//! The reference client of HiveOps in Rust: what `hiveops watch` and the tests speak to a node with.
//!
//! Two modules decide and do no IO: [`continuity`] (what to do with each frame, so that nothing is
//! missed silently) and [`reconnect`] (whether and when to come back). [`Client`] is the thin shell
//! around them: one socket, no task, driven by [`Client::next`]. The decisions are pinned by
//! `schemas/vectors/client.json`, which clients in other languages run as well.

#![warn(missing_docs)]

pub mod continuity;
pub mod reconnect;

mod client;
mod event;
mod link;
mod options;
mod session;
mod tls;

pub use client::{Client, Counts, SendError};
pub use event::Event;
pub use link::ConnectError;
pub use options::{InvalidOptions, Options};
pub use reconnect::Stop;
pub use tls::{InvalidTrust, Trust};
