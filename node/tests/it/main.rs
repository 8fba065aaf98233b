//! The node from outside: HTTP and WebSocket over real sockets, one module per promise of the contract.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod backpressure;
mod control;
mod handshake;
mod harness;
mod limits;
mod protocol;
mod raw;
mod recovery;
mod replica;
mod schema;
mod session;
mod smoke;
mod versions;
