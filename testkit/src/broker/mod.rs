//! The real brokers, in a directory and on a port of their own.

mod cluster;
mod nats;
mod redis;
mod resp;
mod sentinel;

pub use cluster::RedisCluster;
pub use nats::{NatsOptions, NatsServer, Tls};
pub use redis::{RedisOptions, RedisServer};
pub use sentinel::RedisSentinels;
