//! The node from outside: HTTP and WebSocket over real sockets, one module per promise of the contract.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod harness;
mod smoke;
