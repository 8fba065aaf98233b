//! Everybody who uses a cluster during a run: publishers, watchers, and the lookout. They live on a runtime
//! of their own, so that the scenario can block while it kills and heals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, NODES};
use crate::history::{History, Watcher};
use crate::load::{Ledger, Publisher, Rate};
use crate::lookout::{self, Looks};
use crate::watchers::{self, AWAY, Shared, Standing};

/// Threads for all of them: the nodes and the broker want some as well.
const THREADS: usize = 2;

/// For the publishers and watchers to come to their end, beyond what each allows itself.
const END_PATIENCE: Duration = Duration::from_secs(180);

/// Publications that are acknowledged before anything is done to the cluster.
const ACKS_FIRST: u64 = 20;

/// Who uses the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub watchers: usize,
    pub rate: Rate,
}

pub struct Crew {
    /// Last: what runs on it ends with it.
    runtime: Runtime,
    publishers: JoinSet<Result<()>>,
    watchers: JoinSet<Watcher>,
    lookout: JoinSet<()>,
    stop_publishing: watch::Sender<bool>,
    ending: watch::Sender<bool>,
    ledger: Arc<Ledger>,
    standings: Vec<Arc<Standing>>,
    looks: Arc<Looks>,
    rate: Rate,
    began: Instant,
}

impl Crew {
    /// Returns when every watcher has what there is and publications are acknowledged.
    pub fn start(cluster: &Cluster, size: Size) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
        let (ledger, looks) = (Arc::new(Ledger::default()), Arc::new(Looks::default()));
        let (stop_publishing, stop) = watch::channel(false);
        let (ending, end) = watch::channel(false);
        let mut lookout = JoinSet::new();
        for (node, addr) in cluster.addrs().into_iter().enumerate() {
            lookout.spawn_on(lookout::look(node, addr, Arc::clone(&looks)), runtime.handle());
        }
        let began = tokio::time::Instant::now();
        let shared = Shared { url: cluster.url(), ledger: Arc::clone(&ledger), began, ending: end };
        let standings: Vec<Arc<Standing>> = (0..size.watchers).map(|_| Arc::default()).collect();
        let mut watchers = JoinSet::new();
        for (number, standing) in standings.iter().enumerate() {
            let watch = watchers::watch(number, shared.clone(), Arc::clone(standing));
            watchers.spawn_on(watch, runtime.handle());
        }
        let mut publishers = JoinSet::new();
        let every = Duration::from_secs(1) * size.rate.publishers / size.rate.per_second.max(1);
        for number in 0..size.rate.publishers {
            let publisher = Publisher::new(number, &cluster.url(), Arc::clone(&ledger))?;
            publishers.spawn_on(publisher.run(every, stop.clone()), runtime.handle());
        }
        let crew = Self {
            runtime,
            publishers,
            watchers,
            lookout,
            stop_publishing,
            ending,
            ledger,
            standings,
            looks,
            rate: size.rate,
            began: began.into_std(),
        };
        crew.wait_all_present("every watcher to have begun")?;
        crew.wait_acks(ACKS_FIRST)?;
        Ok(crew)
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// For others that use the cluster beside these.
    pub(crate) fn ledger_handle(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    pub fn looks(&self) -> &Looks {
        &self.looks
    }

    pub fn standings(&self) -> &[Arc<Standing>] {
        &self.standings
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Watchers that are with each node, and have everything.
    pub fn sessions(&self) -> [usize; NODES] {
        let mut sessions = [0; NODES];
        for standing in &self.standings {
            if let Some(count) = sessions.get_mut(standing.node()) {
                *count += 1;
            }
        }
        sessions
    }

    /// Waits until so many more publications have been acknowledged.
    pub fn wait_acks(&self, more: u64) -> Result<()> {
        let goal = self.ledger.acked() + more;
        let patience = PATIENCE + Duration::from_secs(more) / self.rate.per_second.max(1) * 4;
        wait_for_some(&format!("{more} acknowledgements"), patience, || {
            Ok((self.ledger.acked() >= goal).then_some(()))
        })
    }

    /// Waits until no watcher is away.
    pub fn wait_all_present(&self, what: &str) -> Result<()> {
        let is_present = |standing: &Arc<Standing>| standing.node() != AWAY;
        let waited =
            wait_for_some(what, PATIENCE * 2, || Ok(self.standings.iter().all(is_present).then_some(())));
        let away = self.standings.iter().filter(|standing| !is_present(standing)).count();
        waited.with_context(|| format!("{away} watchers are away"))
    }

    /// Ends the publishing, waits until every watcher has what was acknowledged, and gives what all of them
    /// have recorded.
    pub fn finish(self) -> Result<(History, Arc<Ledger>)> {
        let Self { runtime, mut publishers, mut watchers, lookout, .. } = self;
        let ledger = self.ledger;
        let all = self.standings.len();
        self.stop_publishing.send_replace(true);
        let ended = runtime.block_on(async {
            let ended = async {
                while let Some(publisher) = publishers.join_next().await {
                    publisher.context("a publisher broke")??;
                }
                self.ending.send_replace(true);
                let mut ended = Vec::with_capacity(all);
                while let Some(watcher) = watchers.join_next().await {
                    ended.push(watcher.context("a watcher broke")?);
                }
                anyhow::Ok(ended)
            };
            tokio::time::timeout(END_PATIENCE, ended).await
        });
        let mut watchers = ended.context("publishers or watchers did not come to an end")??;
        ensure!(watchers.len() == all, "{} of {all} watchers came to an end", watchers.len());
        watchers.sort_by_key(|watcher| watcher.number);
        drop(lookout);
        runtime.shutdown_background();
        Ok((History { publications: ledger.take(), watchers, races: Vec::new() }, ledger))
    }
}
