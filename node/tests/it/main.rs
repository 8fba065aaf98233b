//! The node from outside: HTTP and WebSocket over real sockets, one module per promise of the contract.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod auth;
mod backpressure;
mod cluster;
mod compression;
mod conservation;
mod control;
mod drain;
mod edge;
mod handshake;
mod harness;
mod http;
mod limits;
mod live_data;
mod metrics;
mod nats;
mod openapi;
mod page;
mod protocol;
mod publish;
mod raw;
mod receiver;
mod recovery;
mod replica;
mod routes;
mod schema;
mod session;
mod smoke;
mod tls;
mod trace;
mod tracing;
mod versions;
