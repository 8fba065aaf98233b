//! The edge node: it holds the WebSocket connections of many people and follows the bus.
//!
//! The binary calls `Config` and `run`; nothing else is public.

mod ws;
