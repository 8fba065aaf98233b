//! The real brokers, in a directory and on a port of their own.

mod nats;
mod redis;
mod resp;
mod server;

pub use nats::{NatsOptions, NatsServer};
pub use redis::{RedisOptions, RedisServer};
