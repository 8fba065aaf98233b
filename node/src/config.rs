//! The node's configuration: what it can be told, and where each value came from.
//!
//! The command line loads one and hands it to `run`; `doctor` and `config show` read the same table. The
//! values come from flags, the environment, a TOML file and defaults, in that order. All mistakes are
//! reported together, before any port is bound. Nothing here opens a socket.

mod build;
mod bus_url;
mod drain;
mod layers;
mod load;
mod mistake;
mod networks;
mod setting;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use hiveops_proto::control::Source;
use hiveops_proto::{Contract, Limits, NodeId};

pub use build::{Defaults, Loaded, Shown, resolve};
pub use bus_url::{Address, BusUrl, RedisLayout, Servers};
pub use drain::DrainWindow;
pub use layers::{Inputs, ReadFile};
pub use load::load;
pub use mistake::{Mistake, Mistakes};
pub use networks::{InvalidNetworks, Networks};
pub use setting::{BOOTSTRAP_ENV, CLIENT_ENV, CONTROL_LISTEN_ENV, Kind, Setting, settings};
pub use tls::{TlsFiles, Validity};
pub use traces::{Batch, Endpoint, Sampler, Traces};
pub use value::{
    Auth, AuthMode, InvalidOrigin, LogFormat, Namespace, Origin, Origins, OtlpProtocol, Profile, SamplerName,
    Secret,
};

/// Files that the connection to a bus needs, where it needs any; NATS only.
#[derive(Debug, Clone, Default)]
pub struct BusFiles {
    /// A `.creds` file: JWT and seed.
    pub credentials: Option<PathBuf>,
    /// Certificates of the authorities that the bus's certificate is checked against, as PEM.
    pub ca: Option<PathBuf>,
    /// The node's own certificate, as PEM.
    pub cert: Option<PathBuf>,
    /// The key of the node's own certificate, as PEM.
    pub key: Option<PathBuf>,
}

/// Everything that a node needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address of the HTTP and WebSocket listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address of a second listener, which alone has metrics and the admin routes; none when the first one
    /// has them.
    pub admin_listen: Option<SocketAddr>,
    /// By what both listeners end TLS; none when they are plain.
    pub tls: Option<TlsFiles>,
    /// The proxies that are believed when they say for whom they ask.
    pub trusted_proxies: Networks,
    /// Where publications go.
    pub bus: BusUrl,
    /// Files that the connection to the bus needs.
    pub bus_files: BusFiles,
    /// How many servers of a NATS cluster hold each log.
    pub bus_replicas: u8,
    /// Addresses of the control replicas; none when the node is on its own.
    pub control: Vec<String>,
    /// By which control replicas know the nodes of their cluster.
    pub cluster_secret: Option<Secret>,
    /// Separates deployments that share a bus.
    pub namespace: Namespace,
    /// This node's name.
    pub node_id: NodeId,
    /// How careful the defaults are.
    pub profile: Profile,
    /// Where the embedded bus keeps its logs; without it they are in memory.
    pub data_dir: Option<PathBuf>,
    /// Who may connect.
    pub auth: Auth,
    /// The origins whose pages may connect.
    pub origins: Origins,
    /// Whether clients may ask for compressed messages.
    pub compression: bool,
    /// Whether sockets may be written to through io_uring.
    pub io_uring: bool,
    /// How many shards hold the sockets.
    pub shards: usize,
    /// Over which time sessions are sent off when the node stops.
    pub drain: DrainWindow,
    /// Which log lines are written, as a `tracing` filter.
    pub log: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// Where traces go; nowhere without it.
    pub traces: Option<Traces>,
    /// The thresholds to start with.
    pub limits: Limits,
    /// For each threshold, who set it.
    pub limit_sources: BTreeMap<String, Source>,
    /// The contract version to start with.
    pub contract: Contract,
}
