//! The node from outside: HTTP and WebSocket over real sockets, one module per promise of the contract.

// The attributes tell clippy that the helpers are part of tests, where unwrapping is fine.
#[cfg(test)]
mod access;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod http;
#[cfg(test)]
mod live_data;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod smoke;
