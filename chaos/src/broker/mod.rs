//! The broker of a cluster, whichever of the two it is.

mod nats_wire;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use hiveops_testkit::broker::{NatsOptions, NatsServer, RedisServer};

/// For a connection to a broker that is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest message of a NATS server here: larger than what its default would keep from the nodes.
const MAX_PAYLOAD_BYTES: u64 = 16 * 1_048_576;

/// Which bus a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Bus {
    Nats,
    Redis,
}

impl Bus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
        }
    }
}

/// A real broker on one port, as often as it is killed and started again.
#[derive(Debug)]
pub enum Broker {
    Nats(NatsServer),
    Redis(RedisServer),
}

impl Broker {
    pub fn start(bus: Bus) -> Result<Self> {
        Ok(match bus {
            Bus::Nats => {
                let max_payload_bytes = Some(MAX_PAYLOAD_BYTES);
                Self::Nats(NatsServer::start_with(NatsOptions {
                    max_payload_bytes,
                    ..NatsOptions::default()
                })?)
            }
            Bus::Redis => Self::Redis(RedisServer::start()?),
        })
    }

    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Nats(server) => server.addr(),
            Self::Redis(server) => server.addr(),
        }
    }

    /// `HIVEOPS_BUS` for a node that reaches it at this address.
    pub fn url_at(&self, addr: SocketAddr) -> String {
        match self {
            Self::Nats(_) => format!("nats://{addr}"),
            Self::Redis(_) => format!("redis://{addr}"),
        }
    }

    pub fn kill(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.kill(),
            Self::Redis(server) => server.kill(),
        }
    }

    pub fn restart(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.restart(),
            Self::Redis(server) => server.restart(),
        }
    }

    pub fn freeze(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.freeze(),
            Self::Redis(server) => server.freeze(),
        }
    }

    pub fn thaw(&mut self) -> Result<()> {
        match self {
            Self::Nats(server) => server.thaw(),
            Self::Redis(server) => server.thaw(),
        }
    }

    /// Whether somebody listens there: not when it is dead.
    pub fn listens(&self) -> bool {
        TcpStream::connect_timeout(&self.addr(), CONNECT_TIMEOUT).is_ok()
    }

    /// Whether it says a word: neither when it is dead nor when it is frozen.
    pub fn answers(&self) -> bool {
        match self {
            Self::Nats(server) => server.info().is_ok(),
            Self::Redis(server) => server.command(&["PING"]).is_ok_and(|answer| answer == "PONG"),
        }
    }

    /// Publishes to a subject or a channel, as somebody does who is no node. Redis has no headers.
    pub fn publish(&self, place: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<()> {
        match self {
            Self::Nats(server) => {
                nats_wire::Connection::open(server.addr())?.publish(place, headers, payload)
            }
            Self::Redis(server) => {
                server.command(&["PUBLISH", place, std::str::from_utf8(payload)?]).map(drop)
            }
        }
    }

    /// The end of what it has logged.
    pub fn output(&self) -> String {
        match self {
            Self::Nats(server) => server.output(),
            Self::Redis(server) => server.output(),
        }
    }
}
