//! A replica of the control plane: it opens its data directory, listens, finds or makes its cluster, and
//! then takes part until it is told to stop or cannot go on.

pub(crate) mod ask;
mod elect;
mod join;
mod lead;
mod login;
mod notice;
pub(crate) mod peers;
pub(crate) mod plane;
pub(crate) mod service;
mod transfer;
mod users;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api;
use crate::chance::Chance;
use crate::clock::Wall;
use crate::config::Config;
use crate::raft::{Group, OpenError};
use crate::storage::{self, Directory};
use crate::wire::Link;
use plane::Plane;
use service::{Outside, Service};

/// Why a replica cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// What the data directory holds cannot be used.
    #[error("replica {id} cannot use its data directory {}: {reason}", .path.display())]
    Open {
        /// The replica.
        id: u64,
        /// Its data directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else listens there, or the address is not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The client that talks to other replicas.
    #[error("the HTTP client cannot be set up")]
    Client(#[from] reqwest::Error),
    /// Another process says that it is this replica.
    #[error("two replicas have id {id}: this one, and the one at {address}")]
    SameId {
        /// The id.
        id: u64,
        /// Where the other one is.
        address: String,
    },
    /// The list of replicas is wrong, or somebody else's id is.
    #[error("the replica at {address} has id {found}, but this one's list of peers calls it {wanted}")]
    OtherId {
        /// Where it is.
        address: String,
        /// What it says.
        found: u64,
        /// What the list says.
        wanted: u64,
    },
    /// New replicas were given different lists.
    #[error(
        "the lists of peers disagree, so no cluster is made: replica {id} at {address} was started with \
         `{theirs}`, this one with `{ours}`"
    )]
    PeersDisagree {
        /// The other one.
        id: u64,
        /// Where it is.
        address: String,
        /// Its list.
        theirs: String,
        /// This one's list.
        ours: String,
    },
    /// The data directory belongs to one cluster and the peers to another.
    #[error(
        "the data directory {} belongs to cluster {ours}, but the replica at {address} is part of cluster \
         {theirs}", .path.display()
    )]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// Its cluster.
        ours: String,
        /// A peer.
        address: String,
        /// The peer's cluster.
        theirs: String,
    },
    /// The cluster knows the replica, but the replica knows nothing.
    #[error(
        "replica {id} is a member of cluster {cluster} at {address}, but the data directory {} is empty: \
         choose another id, or, if its data is lost, remove it from the cluster before it joins again \
         (`hiveops control remove {id}`)", .path.display()
    )]
    Forgotten {
        /// The replica.
        id: u64,
        /// The cluster.
        cluster: String,
        /// Where the cluster believes it is.
        address: String,
        /// The empty directory.
        path: PathBuf,
    },
    /// The replica itself is not in its list.
    #[error("the list of peers `{peers}` does not contain replica {id} itself")]
    NotListed {
        /// The replica.
        id: u64,
        /// The list.
        peers: String,
    },
    /// Something that the replica cannot go on with.
    #[error("replica {id} stops: {reason}")]
    Failed {
        /// The replica.
        id: u64,
        /// What happened.
        reason: String,
    },
}

/// Runs a replica until `shutdown` comes; `ready` hears where it listens.
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    start(config, None, ready, shutdown).await
}

/// Like [`run`], on a listener that is there already: who takes whatever port is free can name it in the list of
/// peers only then.
pub async fn run_on(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    start(config, Some(listener), |_| {}, shutdown).await
}

async fn start(
    config: Config,
    listener: Option<TcpListener>,
    ready: impl FnOnce(SocketAddr) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let id = config.id;
    let Some(address) = config.peers.addresses().get(&id).cloned() else {
        return Err(Error::NotListed { id, peers: config.peers.to_string() });
    };
    if !config.tokens.has_slack() {
        tracing::warn!(replica = id, "signing keys take over so quickly that a valid token may be refused");
    }
    let directory = Directory::open(&config.data_dir, id)?;
    let link = Link::new(&config, directory.identity().cluster.clone())?;
    let plane = Plane::new();
    let machine = Box::new(plane.clone());
    let opened = Group::open(id, directory.path(), machine, link.clone(), config.snapshot_entries).await;
    let group = opened.map_err(|error: OpenError| Error::Open {
        id,
        path: config.data_dir.clone(),
        reason: error.to_string(),
    })?;
    let listener = match listener {
        Some(listener) => Ok(listener),
        None => TcpListener::bind(config.listen).await,
    };
    let listening = listener.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    let (listener, bound) = listening.map_err(|source| Error::Listen { address: config.listen, source })?;
    let outside = Outside { chance: Chance::System, wall: Wall::System };
    let service = Arc::new(Service::new(config, address, group, plane, link, directory, outside));
    let (stop, stopping) = watch::channel(false);
    let mut server = std::pin::pin!(api::serve(listener, Arc::clone(&service), stopping));
    ready(bound);
    // Nothing of these has to be finished when another one ends: what was acknowledged is on the disk.
    let ended = tokio::select! {
        () = shutdown => Ok(()),
        ended = take_part(&service) => ended,
        () = &mut server => Ok(()),
    };
    stop.send_replace(true);
    if ended.is_ok() {
        service.group.stop().await;
        server.await;
    }
    ended
}

/// What a replica does by itself, until it is removed or cannot go on.
pub(crate) async fn take_part(service: &Service) -> Result<(), Error> {
    tokio::select! {
        biased;
        reason = service.group.failed() => Err(Error::Failed { id: service.config.id, reason }),
        ended = join::keep(service) => ended,
        never = lead::keep(service) => match never {},
        never = elect::keep(service) => match never {},
        never = notice::keep(service) => match never {},
    }
}
