//! The node from outside: HTTP and WebSocket over real sockets, one module per promise of the contract.

mod harness;
mod page;
mod smoke;
