//! The machines of a simulation: a disk and a wall clock each, and on them replicas that start, are killed, lose
//! power and start again. What runs on them is what the binary runs, up to the sockets and the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hiveops_proto::control::Revision;
use hiveops_proto::{Contract, Limits};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::chance::{Seeded, SkewedWall};
use super::disk::Disk;
use super::history::{History, Rule};
use super::net::{Net, Port, address_of};
use super::process::Process;
use crate::api::{self, App};
use crate::chance::Chance;
use crate::clock::Wall;
use crate::config::{Config, Start, TokenTimes};
use crate::raft::{Group, Machine, Unusable};
use crate::replica::plane::Plane;
use crate::replica::service::{Outside, Service};
use crate::replica::{self, Error};
use crate::storage::{Directory, blocking};
use crate::wire::Link;

/// The limit that nodes share.
pub(crate) const CONNECTIONS: u64 = 24;
/// The limit that they share for one user.
pub(crate) const CONNECTIONS_OF_USER: u64 = 6;
/// The states of replicas are compared after every so many entries, and wherever a snapshot is made.
const COMPARED_EVERY: u64 = 32;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) history: History,
    pub(crate) net: Net,
    inner: Arc<Inner>,
}

struct Inner {
    began: Instant,
    /// The list that the first replicas are started with.
    first: Vec<u64>,
    snapshot_entries: u64,
    hosts: Mutex<BTreeMap<u64, Host>>,
}

struct Host {
    disk: Disk,
    wall: SkewedWall,
    starts: u64,
    life: Option<Life>,
    /// It has been removed from the cluster, and its disk is empty again.
    is_free: bool,
}

struct Life {
    process: Process,
    service: Option<Arc<Service>>,
    /// Streams end when it is dropped.
    _stop: watch::Sender<bool>,
}

/// Reports what the state machine of a replica does.
struct Witness {
    plane: Plane,
    replica: u64,
    process: Process,
    history: History,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    request: String,
}

impl Machine for Witness {
    fn apply(&mut self, at: Revision, proposal: &str) -> Result<String, Unusable> {
        let outcome = self.plane.apply(at, proposal)?;
        if self.process.is_alive() {
            let Named { request } = serde_json::from_str(proposal).unwrap();
            self.history.applied(self.replica, at, proposal, &request, &outcome);
            if at.index.is_multiple_of(COMPARED_EVERY) {
                self.history.state(self.replica, at.index, &self.plane.snapshot());
            }
        }
        Ok(outcome)
    }

    fn snapshot(&self) -> Vec<u8> {
        let bytes = self.plane.snapshot();
        if self.process.is_alive() {
            let at = self.plane.read(|state| state.applied());
            self.history.note(format_args!("{} makes a snapshot at {}", self.replica, at.index));
            self.history.state(self.replica, at.index, &bytes);
        }
        bytes
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Unusable> {
        self.plane.restore(snapshot)?;
        let at = self.plane.read(|state| state.applied());
        self.history.note(format_args!("{} takes the snapshot at {}", self.replica, at.index));
        self.history.state(self.replica, at.index, &self.plane.snapshot());
        Ok(())
    }
}

impl World {
    pub(crate) fn new(seed: u64, replicas: u64, snapshot_entries: u64, shown: usize) -> Self {
        let history = History::new(shown);
        let inner = Inner {
            began: Instant::now(),
            first: (1..=replicas).collect(),
            snapshot_entries,
            hosts: Mutex::default(),
        };
        let net = Net::new(Seeded::new(seed, "net"), history.clone());
        Self { seed, history, net, inner: Arc::new(inner) }
    }

    pub(crate) fn chance(&self, name: &str) -> Seeded {
        Seeded::new(self.seed, name)
    }

    /// Those that the cluster begins with.
    pub(crate) fn first(&self) -> &[u64] {
        &self.inner.first
    }

    /// All that ever were.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.inner.hosts.lock().keys().copied().collect()
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        let hosts = self.inner.hosts.lock();
        hosts.iter().filter(|(_, host)| host.is_running()).map(|(id, _)| *id).collect()
    }

    pub(crate) fn is_free(&self, id: u64) -> bool {
        self.inner.hosts.lock().get(&id).is_some_and(|host| host.is_free)
    }

    pub(crate) fn service(&self, id: u64) -> Option<Arc<Service>> {
        let hosts = self.inner.hosts.lock();
        hosts.get(&id).filter(|host| host.is_running())?.life.as_ref()?.service.clone()
    }

    /// Who believes to lead, the latest term last.
    pub(crate) fn leaders(&self) -> Vec<u64> {
        let standings = self.running().into_iter().filter_map(|id| {
            let standing = self.service(id)?.group.standing();
            standing.leads.then_some((standing.term, id))
        });
        let mut leaders: Vec<(u64, u64)> = standings.collect();
        leaders.sort_unstable();
        leaders.into_iter().map(|(_, id)| id).collect()
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        self.leaders().pop()
    }

    pub(crate) fn set_wall(&self, id: u64, skew_ms: i64) {
        if let Some(host) = self.inner.hosts.lock().get(&id) {
            host.wall.set(skew_ms);
        }
    }

    pub(crate) fn slow_disk(&self, id: u64, millis: u64) {
        if let Some(life) = self.inner.hosts.lock().get(&id).and_then(|host| host.life.as_ref()) {
            life.process.slow_disk(millis);
        }
    }

    /// The power of a machine goes in the middle of something that it does with its disk.
    pub(crate) fn light_fuse(&self, id: u64, calls: u64) {
        if let Some(host) = self.inner.hosts.lock().get(&id) {
            host.disk.light_fuse(calls);
        }
    }

    /// The power of a machine goes now.
    pub(crate) fn cut_power(&self, id: u64) {
        if let Some(life) = self.inner.hosts.lock().get(&id).and_then(|host| host.life.as_ref()) {
            life.process.kill();
        }
    }

    /// Starts a replica, unless it runs.
    pub(crate) fn start(&self, id: u64) {
        let mut hosts = self.inner.hosts.lock();
        let host = hosts.entry(id).or_insert_with(|| Host {
            disk: Disk::new(self.chance(&format!("disk {id}"))),
            wall: SkewedWall::new(self.inner.began),
            starts: 0,
            life: None,
            is_free: false,
        });
        if host.is_running() {
            return;
        }
        host.disk.restore_power();
        host.starts += 1;
        host.is_free = false;
        let chance = self.chance(&format!("replica {id}, start {}", host.starts));
        let process = Process::new(host.disk.clone(), chance.clone(), self.history.clone());
        let (stop, stopping) = watch::channel(false);
        host.life = Some(Life { process: process.clone(), service: None, _stop: stop });
        let outside = Outside { chance: Chance::Seeded(chance), wall: Wall::Simulated(host.wall.clone()) };
        drop(hosts);
        self.history.starts(id);
        let world = self.clone();
        let of = process.clone();
        process.spawn(async move {
            let ended = world.run(id, &of, outside, stopping).await;
            world.ended(id, &of, ended);
        });
    }

    /// What `replica::run` does, but that the listener is the simulated network.
    async fn run(
        &self,
        id: u64,
        process: &Process,
        outside: Outside,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let config = self.config(id);
        let path = config.data_dir.clone();
        let directory = blocking(move || Directory::open(&path, id)).await.unwrap()?;
        let port = Port { net: self.net.clone(), from: id };
        let link = Link::simulated(port, &config, directory.identity().cluster.clone());
        let plane = Plane::new();
        let (process, history) = (process.clone(), self.history.clone());
        let machine =
            Box::new(Witness { plane: plane.clone(), replica: id, process: process.clone(), history });
        let opened = Group::open(id, directory.path(), machine, link.clone(), config.snapshot_entries).await;
        let failed = |reason: String| Error::Failed { id, reason };
        let group = opened.map_err(|error| failed(error.to_string()))?;
        let service = Service::new(config, address_of(id), group, plane, link, directory, outside);
        let service = Arc::new(service);
        let router = api::router(App { service: Arc::clone(&service), stopping });
        self.net.listen(id, router, process);
        if let Some(life) = self.inner.hosts.lock().get_mut(&id).and_then(|host| host.life.as_mut()) {
            life.service = Some(Arc::clone(&service));
        }
        replica::take_part(&service).await
    }

    fn ended(&self, id: u64, process: &Process, ended: Result<(), Error>) {
        if !process.is_alive() || process.disk().is_dark() {
            return;
        }
        match ended {
            Ok(()) => {
                self.history.note(format_args!("{id} has been removed, and its disk is emptied"));
                process.kill();
                process.disk().restore_power();
                process.disk().wipe();
                self.history.is_new(id);
                if let Some(host) = self.inner.hosts.lock().get_mut(&id) {
                    host.is_free = true;
                }
            }
            // It says what a person has to do, and nobody is there to do it.
            Err(error @ Error::Forgotten { .. }) => {
                self.history.note(format_args!("{id} does not start: {error}"));
                process.kill();
            }
            Err(error) => self.history.broke(Rule::Runs, format_args!("replica {id} ended: {error}")),
        }
    }

    fn config(&self, id: u64) -> Config {
        let mut listed = self.inner.first.clone();
        if !listed.contains(&id) {
            listed.push(id);
        }
        let peers: Vec<String> = listed.iter().map(|id| format!("{id}={}", address_of(*id))).collect();
        let limits = Limits {
            max_connections_total: CONNECTIONS,
            max_connections_per_user: CONNECTIONS_OF_USER,
            ..Limits::default()
        };
        let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
        Config {
            id,
            listen: "127.0.0.1:7100".parse().unwrap(),
            peers: peers.join(",").parse().unwrap(),
            routes: None,
            data_dir: Path::new("/control").to_owned(),
            snapshot_entries: self.inner.snapshot_entries,
            tokens: TokenTimes::default(),
            secret: None,
            first_admin: None,
            start: Start::new(limits, BTreeMap::new(), &contract),
        }
    }

    /// What a replica knows, as bytes, and after which entry.
    pub(crate) fn state(&self, id: u64) -> Option<(Revision, Vec<u8>)> {
        Some(self.service(id)?.plane.read(|state| (state.applied(), state.snapshot())))
    }
}

impl Host {
    fn is_running(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.process.is_alive() && !self.disk.is_dark())
    }
}
