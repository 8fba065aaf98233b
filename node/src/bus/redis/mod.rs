//! The bus on Redis 7: one server, a master that sentinels watch, or a cluster.
//!
//! Redis keeps each log under one hash tag, and one script stores a publication and says it to all nodes as
//! a whole (`scripts/publish.lua`). Every node has a link per log (`link.rs`) that writes the node's mirror;
//! followers read the mirror. docs/decisions/0010-redis-bus.md says why.

mod backoff;
mod continuity;
mod fault;
mod inbox;
mod intake;
mod link;
mod live;
mod master;
mod names;
mod probes;
mod publish;
mod record;
mod script;
mod server;
mod sync;
mod topology;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use hiveops_proto::{Epoch, NodeId, Position, SubscriptionName};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use self::fault::Trouble;
use self::intake::{Channels, Lease};
use self::link::{Link, Purpose};
use self::live::Live;
use self::names::Names;
use self::probes::Probes;
use self::publish::Answer;
use self::topology::Topology;
use super::counts::{Counts, count};
use super::follower::{Follower, Logs, Places};
use super::mirror::Mirror;
use super::{Ack, Bus, CALL_TIMEOUT, Call, Follow, Intake, Publish, PublishError, Signal, Unavailable};
use crate::catalog::SubId;
use crate::config::{Namespace, RedisLayout, Servers};
use crate::per_sub::PerSub;
use crate::tasks::{TaskKind, Tasks};
use crate::time::Clock;

/// How long a call waits for a link that is down. Longer would only make a heap of what nobody waits for.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// Publications under way at most; beyond it publishers wait, each until its deadline.
const UNDER_WAY_MAX: u32 = 1_024;

/// Times that a publication is sent, each time over another connection.
const SENDINGS_MAX: usize = 4;

/// What the bus has to know.
pub(crate) struct RedisConfig {
    pub(crate) layout: RedisLayout,
    pub(crate) servers: Servers,
    pub(crate) namespace: Namespace,
    pub(crate) node_id: NodeId,
}

/// What the links share with the bus.
struct Shared {
    topology: Topology,
    verbs: Verbs,
    mirror: Arc<Mirror>,
    counts: Counts,
    probes: Probes,
    clock: Clock,
    new_epoch: Box<dyn Fn() -> Epoch + Send + Sync>,
    names: PerSub<SubscriptionName>,
    node_id: String,
    /// This bus, among all that there ever were with the node's id.
    origin: String,
}

/// Commands of the channels. In a cluster a channel belongs to the server of its slot, so that only those
/// who want it get it.
#[derive(Debug, Clone, Copy)]
struct Verbs {
    say: &'static str,
    subscribe: &'static str,
}

impl Shared {
    /// What logs call a link.
    fn name(&self, purpose: Purpose) -> &str {
        match purpose {
            Purpose::Log(sub) => self.names[sub].as_str(),
            Purpose::Notices => "",
        }
    }

    /// A link has seen somebody's probe.
    fn probed(&self, origin: &str, nonce: u64) {
        if origin == self.origin && self.probes.seen(nonce) {
            self.mirror.probed(nonce);
        }
    }
}

/// A link as its users see it.
struct Port {
    names: Arc<Names>,
    up: watch::Receiver<Option<Arc<Live>>>,
}

impl Port {
    fn open(
        shared: &Arc<Shared>,
        purpose: Purpose,
        names: Names,
        stop: watch::Receiver<bool>,
        tasks: &Tasks,
    ) -> Self {
        let (up, port) = watch::channel(None);
        let names = Arc::new(names);
        let link = Link::new(Arc::clone(shared), purpose, Arc::clone(&names), up, stop);
        tasks.spawn(TaskKind::BusLink, link.run());
        Self { names, up: port }
    }
}

/// The handle; its links end when it is dropped.
pub(crate) struct RedisBus {
    shared: Arc<Shared>,
    namespace: Namespace,
    logs: Arc<PerSub<Port>>,
    notices: Port,
    /// The place of the last publication that was acknowledged to this node, per log.
    acknowledged: PerSub<Mutex<Option<Ack>>>,
    under_way: Semaphore,
    calls: AtomicU64,
    /// The links hold the other end.
    stop: watch::Sender<bool>,
    deadline: Duration,
    tasks: Tasks,
    /// Until somebody has it.
    intake: Mutex<Option<Lease>>,
    /// The channels that whoever holds the lease takes in.
    channels: watch::Sender<Channels>,
}

impl RedisBus {
    /// Begins to connect, and goes on until it has; see [`RedisBus::ready`].
    pub(crate) fn connect(
        config: RedisConfig,
        names: &[SubscriptionName],
        clock: Clock,
        new_epoch: impl Fn() -> Epoch + Send + Sync + 'static,
        tasks: &Tasks,
    ) -> Self {
        let RedisConfig { layout, servers, namespace, node_id } = config;
        let topology = Topology::new(layout, servers);
        let database = topology.login.database;
        let verbs = match topology.is_cluster() {
            true => Verbs { say: "SPUBLISH", subscribe: "SSUBSCRIBE" },
            false => Verbs { say: "PUBLISH", subscribe: "SUBSCRIBE" },
        };
        let shared = Arc::new(Shared {
            topology,
            verbs,
            mirror: Arc::new(Mirror::new(names.len())),
            counts: Counts::default(),
            probes: Probes::default(),
            clock,
            new_epoch: Box::new(new_epoch),
            names: names.iter().cloned().collect(),
            origin: format!("{node_id}/{}", uuid::Uuid::now_v7().simple()),
            node_id: node_id.to_string(),
        });
        let (stop, stopping) = watch::channel(false);
        let open = |purpose, names| Port::open(&shared, purpose, names, stopping.clone(), tasks);
        let logs = shared
            .names
            .iter()
            .map(|(sub, name)| open(Purpose::Log(sub), Names::of_log(namespace.as_str(), name, database)));
        let logs: Arc<PerSub<Port>> = Arc::new(logs.collect());
        let notices = open(Purpose::Notices, Names::of_notices(namespace.as_str(), database));
        if shared.topology.is_watched() {
            let (logs, notices) = (Arc::clone(&logs), notices.up.clone());
            let watching = master::watch(Arc::clone(&shared), logs, notices, stop.subscribe());
            tasks.spawn(TaskKind::BusLink, watching);
        }
        let (channels, taken) = watch::channel(intake::channels(namespace.as_str(), shared.names.values()));
        Self {
            intake: Mutex::new(Some(Lease::of(namespace.as_str(), taken))),
            channels,
            namespace,
            logs,
            notices,
            acknowledged: names.iter().map(|_| Mutex::default()).collect(),
            under_way: Semaphore::new(UNDER_WAY_MAX as usize),
            calls: AtomicU64::new(0),
            stop,
            deadline: CALL_TIMEOUT,
            tasks: tasks.clone(),
            shared,
        }
    }

    /// Waits until every link is up for the first time, and with them every log read.
    pub(crate) async fn ready(&self, patience: Duration) -> Result<(), Unavailable> {
        let ports = self.logs.values().chain([&self.notices]);
        try_join_all(ports.map(|port| self.live(port, patience))).await.map(|_| ())
    }

    /// The link's connection, as soon as there is one.
    async fn live(&self, port: &Port, patience: Duration) -> Result<Arc<Live>, Unavailable> {
        self.check_open()?;
        let mut up = port.up.clone();
        match tokio::time::timeout(patience, up.wait_for(Option::is_some)).await {
            Ok(Ok(live)) => live.clone().ok_or_else(stopped),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(Unavailable { reason: "there is no connection to redis".to_owned() }),
        }
    }

    fn check_open(&self) -> Result<(), Unavailable> {
        if *self.stop.borrow() || self.under_way.is_closed() { Err(stopped()) } else { Ok(()) }
    }

    async fn store(&self, publish: Publish) -> Result<Ack, PublishError> {
        let began = self.shared.clock.moment();
        let _permit = match tokio::time::timeout(self.deadline, self.under_way.acquire()).await {
            Ok(permit) => permit.map_err(|_| stopped())?,
            Err(_) => return Err(PublishError::Timeout),
        };
        let port = &self.logs[publish.sub];
        let name = format!("{}/{}", self.shared.origin, self.calls.fetch_add(1, Ordering::Relaxed));
        let call = publish::Call::new(&port.names, &publish, name)
            .map_err(|error| Unavailable { reason: format!("the publication cannot be written: {error}") })?;
        let mut last = String::new();
        for sending in 0..SENDINGS_MAX {
            if sending > 0 {
                count(&self.shared.counts.retries);
            }
            let live = self.live(port, LINK_PATIENCE.min(self.left(began))).await?;
            last = match live.publish(&call, &(self.shared.new_epoch)(), self.left(began)).await {
                Ok(Answer::Stored(ack)) => {
                    self.acknowledge(&publish, &ack);
                    return Ok(ack);
                }
                Ok(Answer::Refused(error)) => return Err(error),
                Err(Trouble::TimedOut) => return Err(PublishError::Timeout),
                Err(Trouble::Refused(reason)) => return Err(Unavailable { reason }.into()),
                Err(Trouble::Broken(reason)) => reason,
                // The next connection measures the server's clock, and settles the log.
                Ok(Answer::Expired) => "the server's clock was set".to_owned(),
                Ok(Answer::Unsettled) => "the log was replaced".to_owned(),
            };
            live.fail(&last);
            self.down(port, &live, self.left(began)).await;
        }
        Err(Unavailable { reason: last }.into())
    }

    /// Waits until the link has taken down a connection that is of no use.
    async fn down(&self, port: &Port, live: &Arc<Live>, patience: Duration) {
        let mut up = port.up.clone();
        let other = up.wait_for(|now| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, live)));
        // An error means that the bus has stopped, which whoever asks next finds out.
        let _ = tokio::time::timeout(patience, other).await;
    }

    fn left(&self, began: crate::time::Moment) -> Duration {
        self.deadline.saturating_sub(Duration::from_millis(self.shared.clock.moment().millis_since(began)))
    }

    fn acknowledge(&self, publish: &Publish, ack: &Ack) {
        let mut last = self.acknowledged[publish.sub].lock();
        if last.as_ref().is_none_or(|last| last.epoch != ack.epoch || last.seq < ack.seq) {
            *last = Some(ack.clone());
        }
    }

    /// Waits until the mirror has what was acknowledged.
    async fn settle_mirror(&self, patience: Duration) {
        let waits = self.acknowledged.iter().map(|(sub, last)| async move {
            let Some(ack) = last.lock().clone() else { return };
            let mirror = &self.shared.mirror;
            // After a new epoch there is nothing to wait for.
            let same = mirror.position(sub).is_some_and(|here| here.epoch == ack.epoch);
            if same && !mirror.reached(sub, ack.seq, patience).await {
                tracing::warn!(
                    subscription = self.shared.names[sub].as_str(),
                    "redis bus ends behind its log"
                );
            }
        });
        join_all(waits).await;
    }

    /// Everything that the log has by now is in the mirror when this returns.
    async fn meet_head(&self, port: &Port, sub: SubId) -> Result<(), Unavailable> {
        let began = self.shared.clock.moment();
        let live = self.live(port, self.deadline).await?;
        let head = live.head(self.left(began)).await.map_err(unavailable)?;
        match self.shared.mirror.reached_place(sub, &head, self.left(began)).await {
            true => Ok(()),
            false => Err(Unavailable { reason: "the log is not read in time".to_owned() }),
        }
    }

    /// Begins to connect to one more log.
    fn begin_log(&self, name: SubscriptionName) {
        let names = Names::of_log(self.namespace.as_str(), &name, self.shared.topology.login.database);
        self.acknowledged.push(Mutex::default());
        self.shared.mirror.open();
        let Some(sub) = self.shared.names.push(name) else { return };
        let stop = self.stop.subscribe();
        self.logs.push(Port::open(&self.shared, Purpose::Log(sub), names, stop, &self.tasks));
    }
}

impl Bus for RedisBus {
    fn publish(&self, publish: Publish) -> Call<'_, Result<Ack, PublishError>> {
        Box::pin(async move {
            self.check_open()?;
            self.store(publish).await
        })
    }

    fn follow(&self) -> Call<'_, Result<Box<dyn Follow>, Unavailable>> {
        Box::pin(async move {
            try_join_all(self.logs.iter().map(|(sub, port)| self.meet_head(port, sub))).await?;
            let mirror = Arc::clone(&self.shared.mirror);
            let joined = mirror.join(Places::new()).await.ok_or_else(stopped)?;
            Ok(Box::new(Follower::new(mirror, joined)) as Box<dyn Follow>)
        })
    }

    fn open(&self, logs: Vec<(SubId, SubscriptionName)>) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            self.check_open()?;
            for (sub, name) in logs {
                if self.shared.names.get(sub).is_none() {
                    self.begin_log(name);
                }
            }
            let channels = intake::channels(self.namespace.as_str(), self.shared.names.values());
            self.channels.send_if_modified(|known| std::mem::replace(known, channels.clone()) != channels);
            Ok(())
        })
    }

    fn probe(&self, nonce: u64) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let origin = &self.shared.origin;
            // One that has just been opened may not be up yet, which says nothing about those in use.
            let begun = self.logs.iter().filter(|(sub, _)| self.shared.mirror.position(*sub).is_some());
            let ports: Vec<&Port> = begun.map(|(_, port)| port).chain([&self.notices]).collect();
            self.shared.probes.begin(nonce, ports.len());
            let probes = ports.into_iter().map(|port| async move {
                let live = self.live(port, LINK_PATIENCE.min(self.deadline)).await?;
                live.probe(origin, nonce, self.deadline).await.map_err(unavailable)
            });
            try_join_all(probes).await.map(|_| ())
        })
    }

    fn tell(&self, signal: Signal) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            let live = self.live(&self.notices, LINK_PATIENCE.min(self.deadline)).await?;
            live.tell(&signal, self.deadline).await.map_err(unavailable)
        })
    }

    fn catch_up(&self) -> Call<'_, Vec<(SubId, Position)>> {
        Box::pin(async move {
            // Of a link that is down, what is known here is the best answer there is.
            let up = self.logs.iter().filter(|(_, port)| port.up.borrow().is_some());
            join_all(up.map(|(sub, port)| self.meet_head(port, sub))).await;
            self.shared.mirror.positions()
        })
    }

    fn counts(&self) -> Option<&Counts> {
        Some(&self.shared.counts)
    }

    /// From here on this node stands for the lease.
    fn intake(&self) -> Option<Box<dyn Intake>> {
        let lease = self.intake.lock().take()?;
        let (taking, taken) = intake::taking(Arc::clone(&self.shared), lease, self.stop.subscribe());
        self.tasks.spawn(TaskKind::BusLink, taking.run());
        Some(Box::new(taken))
    }

    fn shutdown(&self) -> Call<'_, ()> {
        Box::pin(async move {
            // All of them: what is under way is stored by then, or given up.
            let all = self.under_way.acquire_many(UNDER_WAY_MAX);
            let _ = tokio::time::timeout(self.deadline, all).await;
            self.under_way.close();
            self.settle_mirror(self.deadline).await;
            self.shared.mirror.end();
            self.stop.send_replace(true);
            if tokio::time::timeout(self.deadline, self.stop.closed()).await.is_err() {
                tracing::warn!("redis links did not end in time");
            }
        })
    }

    fn kind(&self) -> &'static str {
        "redis"
    }
}

fn stopped() -> Unavailable {
    Unavailable { reason: "the redis bus has stopped".to_owned() }
}

fn unavailable(trouble: Trouble) -> Unavailable {
    let reason = match trouble {
        Trouble::TimedOut => "redis did not answer in time".to_owned(),
        Trouble::Refused(reason) | Trouble::Broken(reason) => reason,
    };
    Unavailable { reason }
}
