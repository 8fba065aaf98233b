//! The control replica in the process of `hiveops dev`: the only one of its cluster, on a port of loopback.
//!
//! The node beside it follows it over HTTP like any other, so that whatever works on a cluster works here.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::Context as _;
use hiveops_control::config::{Inputs, Start, environment};
use hiveops_node::Config;
use hiveops_node::config::{BOOTSTRAP_ENV, CONTROL_LISTEN_ENV};

use crate::address::{reachable, url};

/// Where the commands look for a replica when nobody names one.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7_100);
/// Of the only replica.
const ID: &str = "1";

/// A replica that listens, and has not begun.
pub(crate) struct Replica {
    listener: TcpListener,
    config: hiveops_control::Config,
}

impl Replica {
    /// Takes a port: the named one, else the usual one, else any. The values of the node's configuration are what
    /// the plane starts from.
    pub(crate) fn prepare(
        listen: Option<SocketAddr>,
        data_dir: &Path,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let listener = match listen {
            Some(address) => TcpListener::bind(address)
                .with_context(|| format!("cannot listen on {address} ({CONTROL_LISTEN_ENV})"))?,
            None => usual_port().context("no port of loopback is free for the control replica")?,
        };
        let address = listener.local_addr()?;
        let peers = format!("{ID}={}", reachable(address));
        let data_dir = data_dir.to_str().context("the data directory's name is not UTF-8")?;
        let mut flags = BTreeMap::from([("id", ID), ("peers", &peers), ("data_dir", data_dir)])
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect::<BTreeMap<_, _>>();
        flags.insert("listen".to_owned(), address.to_string());
        if let Some(secret) = &config.cluster_secret {
            flags.insert("cluster_secret".to_owned(), secret.expose().to_owned());
        }
        let start = Start::new(config.limits.clone(), config.limit_sources.clone(), &config.contract);
        // Of the environment it has what a node passes over; the rest the node has read for both.
        let env = environment().into_iter().filter(|(name, _)| BOOTSTRAP_ENV.iter().any(|own| name == own));
        let inputs = Inputs { flags, env: env.collect(), file: None };
        let config = hiveops_control::config::load(&inputs, Some(start))?;
        Ok(Self { listener, config })
    }

    /// How this machine reaches it.
    pub(crate) fn url(&self) -> String {
        url(self.config.listen)
    }

    /// Runs until `shutdown` comes.
    pub(crate) async fn run(self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let Self { listener, config } = self;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let place =
            format!("the control replica cannot go on in {} (HIVEOPS_DATA_DIR)", config.data_dir.display());
        hiveops_control::run_on(listener, config, shutdown).await.context(place)
    }
}

fn usual_port() -> io::Result<TcpListener> {
    match TcpListener::bind(DEFAULT) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => TcpListener::bind((DEFAULT.ip(), 0)),
        bound => bound,
    }
}
