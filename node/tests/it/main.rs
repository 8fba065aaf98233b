//! The node from outside: HTTP and WebSocket over real sockets, one module per promise of the contract.

mod access;
mod harness;
mod http;
mod live_data;
mod openapi;
mod publish;
mod routes;
mod smoke;
