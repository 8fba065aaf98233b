//! The scenarios: each starts a cluster and its users, does what it is about, and reports.

mod bad_messages;
mod kill_broker;
mod kill_nodes;
mod partition_node;
mod races;
mod rolling_restart;
mod slow_link;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use serde_json::{Map, Value};

use crate::broker::Bus;
use crate::check::check;
use crate::cluster::{Cluster, NODES, Options};
use crate::crew::{Crew, Size};
use crate::files;
use crate::history::{History, Race};
use crate::load::Rate;
use crate::plan::Scale;
use crate::report::{Fault, Quantiles, Report};

pub use bad_messages::bad_messages;
pub use kill_broker::kill_broker;
pub use kill_nodes::kill_nodes;
pub use partition_node::partition_node;
pub use races::races;
pub use rolling_restart::rolling_restart;
pub use slow_link::slow_link;

/// What every scenario is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The file of `hiveops`.
    pub binary: PathBuf,
    pub bus: Bus,
    pub scale: Scale,
    pub seed: u64,
    /// Publications per second, in place of the scenario's own number.
    pub rate: Option<u32>,
}

impl Setup {
    pub fn new(binary: &Path, bus: Bus, scale: Scale) -> Self {
        Self { binary: binary.to_owned(), bus, scale, seed: 0x4849_5645_4f50_5300, rate: None }
    }

    fn size(&self, watchers: usize, publishers: u32, per_second: u32) -> Size {
        let per_second = self.rate.unwrap_or(per_second);
        Size { watchers, rate: Rate { publishers, per_second } }
    }

    fn cluster(&self) -> Options {
        Options {
            binary: self.binary.clone(),
            bus: self.bus,
            seed: self.seed,
            drain_seconds: 1,
            env: Vec::new(),
        }
    }
}

/// One of the things that can be run.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Setup) -> Result<Report>,
    /// Whether it drops packets when it is in a network of its own.
    pub loses_packets: bool,
}

/// All of them, in the order in which they are run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "kill_nodes", run: kill_nodes, loses_packets: false },
    Scenario { name: "kill_broker", run: kill_broker, loses_packets: false },
    Scenario { name: "partition_node", run: partition_node, loses_packets: false },
    Scenario { name: "rolling_restart", run: rolling_restart, loses_packets: false },
    Scenario { name: "races", run: races, loses_packets: false },
    Scenario { name: "slow_link", run: slow_link, loses_packets: true },
    Scenario { name: "bad_messages", run: bad_messages, loses_packets: false },
];

/// A cluster with its users, while something is done to it.
struct Stage {
    cluster: Cluster,
    crew: Crew,
}

/// What the scenario itself has to say.
struct Done {
    faults: Vec<Fault>,
    /// How long nobody could publish, by plan.
    down: Duration,
    /// Further figures.
    more: Map<String, Value>,
    races: Vec<Race>,
}

/// The share of what the publishers would do on a healthy cluster that is the load of a run.
const LOAD_SHARE: f64 = 0.5;

/// Starts a cluster and its users, has something done, and judges what they saw. The places of a run that
/// went wrong are kept.
fn run(
    scenario: &'static str,
    setup: &Setup,
    options: &Options,
    size: Size,
    act: impl FnOnce(&mut Stage) -> Result<Done>,
    judge: impl FnOnce(&mut Report, &History),
) -> Result<Report> {
    let began = Instant::now();
    files::raise_limit(size.watchers)?;
    let cluster = Cluster::start(options)?;
    let crew = match Crew::start(&cluster, size) {
        Ok(crew) => crew,
        Err(error) => return Err(kept(cluster, error)),
    };
    let mut stage = Stage { cluster, crew };
    let acted = act(&mut stage).and_then(|done| stage.cluster.check_alive().map(|()| done));
    let Stage { mut cluster, crew } = stage;
    let published_for = crew.elapsed();
    let finished = acted.and_then(|done| Ok((done, crew.finish()?)));
    let finished = finished.and_then(|finished| cluster.check_alive().map(|()| finished));
    let (done, (mut history, ledger)) = match finished {
        Ok(finished) => finished,
        Err(error) => return Err(kept(cluster, error)),
    };
    history.races = done.races;
    let (figures, violations) = check(&history);
    let mut report = Report {
        scenario,
        bus: setup.bus.as_str(),
        scale: setup.scale.as_str(),
        seed: setup.seed,
        took: began.elapsed(),
        faults: done.faults,
        load_planned: planned(size.rate, published_for.saturating_sub(done.down)),
        watchers: size.watchers,
        recovery: Quantiles::default(),
        waited: Quantiles::default(),
        caught_up: Quantiles::default(),
        figures,
        violations,
        more: done.more,
        complaints: Vec::new(),
    };
    report.more.insert("answers_lost".to_owned(), ledger.duplicates().into());
    report.more.insert("failed_attempts".to_owned(), ledger.failed_attempts().into());
    report.measure(&history);
    judge(&mut report, &history);
    match report.verdict() {
        Ok(()) => Ok(report),
        Err(error) => Err(kept(cluster, error)),
    }
}

/// Publications that must have been acknowledged in this time.
fn planned(rate: Rate, time: Duration) -> u64 {
    (f64::from(rate.per_second) * time.as_secs_f64() * LOAD_SHARE) as u64
}

fn kept(cluster: Cluster, error: anyhow::Error) -> anyhow::Error {
    let place = cluster.keep();
    error.context(format!("what the nodes have logged is in {}", place.display()))
}
impl Stage {
    /// Waits until these nodes say this.
    fn wait_all_say(&self, nodes: &[usize], status: u16) -> Result<()> {
        wait_for_some(&format!("{status} from /readyz of nodes {nodes:?}"), PATIENCE, || {
            let said = nodes.iter().all(|node| self.crew.looks().now(*node) == Some(status));
            Ok(said.then_some(()))
        })
    }

    /// Waits until nodes that said otherwise then have said this, and gives how long the last one took.
    fn wait_all_said(&self, since: Instant, nodes: &[usize], status: u16) -> Result<Duration> {
        let what = format!("{status} again from /readyz of nodes {nodes:?}");
        wait_for_some(&what, PATIENCE, || {
            let said = nodes.iter().map(|node| self.crew.looks().first_since(since, *node, status));
            Ok(said.collect::<Option<Vec<_>>>().and_then(|said| said.into_iter().max()))
        })
        .map(|last| last.saturating_duration_since(since))
    }

    /// Waits until every node says that it is ready.
    fn wait_all_ready(&self) -> Result<()> {
        let mut nodes = 0..NODES;
        wait_for_some("every node to be ready", PATIENCE * 2, || {
            let ready = nodes.all(|node| self.crew.looks().now(node) == Some(200));
            nodes = 0..NODES;
            Ok(ready.then_some(()))
        })
    }
}

/// Lets a time pass that is itself what a scenario is about: the length of an outage, not a guess at when
/// something will have happened.
fn let_pass(time: Duration) -> Result<()> {
    let began = Instant::now();
    let patience = time + Duration::from_secs(10);
    wait_for_some("time to pass", patience, || Ok((began.elapsed() >= time).then_some(())))
        .context("the clock stands still")
}
