//! `hiveops dev --nodes 3 --controls 3`: a cluster of separate processes behind one address, for trying out what
//! happens when parts of it die.
//!
//! This process holds the address and looks after the parts; it is no part itself.

mod balancer;
mod banner;
mod nats;
mod part;
mod plan;
mod ports;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hiveops_node::config::{Loaded, Secret};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::address::url;
use crate::api::{Api, Target};
use crate::demo;
use crate::output::Usage;
use crate::scratch::Scratch;
use crate::serve::STOPPED_AT_ONCE;
use crate::settings::SettingArgs;
use crate::signal::Signals;
use balancer::Nodes;
use banner::Banner;
use part::{Care, Kind, Order, Part, say};
use plan::Plan;

/// Within this a cluster is up, or something is wrong.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks whether NATS listens.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Parts that ended while nobody looked.
const ENDED_MAX: usize = 32;

/// How large it is, and what becomes of parts that end.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Start a cluster of separate processes behind one address, with so many nodes
    #[arg(long, value_name = "1..9", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: Option<u8>,
    /// The same, with so many control replicas
    #[arg(long, value_name = "1..9", value_parser = clap::value_parser!(u8).range(1..=9))]
    controls: Option<u8>,
    /// After how long a part of the cluster that ended starts again; 0 leaves it down
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    restart_seconds: u64,
}

impl Args {
    /// How many nodes and replicas, if it is to be a cluster.
    pub(super) fn size(&self) -> Option<(u8, u8)> {
        let wanted = self.nodes.is_some() || self.controls.is_some();
        wanted.then(|| (self.nodes.unwrap_or(1), self.controls.unwrap_or(1)))
    }
}

/// What runs, and what it was made from.
struct Cluster {
    plan: Plan,
    banner: Banner,
    restart: Option<Duration>,
    drain: Duration,
    /// For the simulated agents, and as whom they work.
    demo: Option<(Api, Option<demo::Account>)>,
    address: SocketAddr,
}

pub(super) fn run(
    args: &Args,
    settings: &SettingArgs,
    loaded: &Loaded,
    demo: bool,
) -> anyhow::Result<ExitCode> {
    let config = &loaded.config;
    let size = args.size().unwrap_or((1, 1));
    refuse(loaded)?;
    let listener = TcpListener::bind(config.listen)
        .with_context(|| format!("cannot listen on {} (HIVEOPS_LISTEN)", config.listen))?;
    let address = listener.local_addr()?;
    let scratch = match config.data_dir {
        Some(_) => None,
        None => Some(Scratch::make().context("no temporary directory can be made")?),
    };
    let directory = config.data_dir.as_deref().or_else(|| Some(scratch.as_ref()?.path()));
    let plan = Plan::new(size, settings, loaded, directory.unwrap_or(".".as_ref()))?;
    let token = config.auth.token.as_ref().map(Secret::expose).map(str::to_owned);
    let demo_parts = if demo {
        let replicas = plan.addresses(Kind::Control).into_iter().map(url).collect();
        Some((Api::new(Target { url: url(address), token })?, super::account(config, replicas)?))
    } else {
        None
    };
    let cluster = Cluster {
        banner: Banner::new(config, &plan, args.restart_seconds, demo),
        plan,
        restart: (args.restart_seconds > 0).then(|| Duration::from_secs(args.restart_seconds)),
        drain: config.drain.duration(),
        demo: demo_parts,
        address,
    };
    let log = hiveops_node::init_log(&config.log, config.log_format, None)?;
    let runtime = Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    // Parts are started and looked after in this thread, which ends last.
    let code = runtime.block_on(LocalSet::new().run_until(cluster.run(listener)));
    drop(log);
    // Before the directory goes.
    drop(runtime);
    drop(scratch);
    code
}

/// What a cluster gives each part itself.
fn refuse(loaded: &Loaded) -> Result<(), Usage> {
    for row in &loaded.shown {
        let own = ["control", "node_id"].contains(&row.setting.name);
        if own && !row.place.is_empty() {
            let text = format!(
                "{} ({}): the parts of a local cluster get their own; leave it out, or --nodes and --controls",
                row.setting.name, row.place
            );
            return Err(Usage(text));
        }
    }
    Ok(())
}

impl Cluster {
    /// Until a signal comes, or the cluster does not come up.
    async fn run(self, listener: TcpListener) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::listen().context("cannot listen for signals")?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let Self { plan, banner, restart, drain, demo, address } = self;
        let (orders, ordered) = watch::channel(Order::Run);
        let (ended, mut ends) = mpsc::channel(ENDED_MAX);
        let program = std::env::current_exe().context("this program cannot be found again")?;
        let care = Care { program, restart, drain, orders: ordered, ended };
        let nodes = Nodes::new(plan.addresses(Kind::Node).into_iter());
        let pids = plan.parts.iter().map(|part| part.pid.clone()).collect::<Vec<_>>();
        let logs = plan.parts.iter().filter(|part| part.kind == Kind::Node).map(|part| part.log.clone());
        let logs: Vec<PathBuf> = logs.collect();
        let mut parts = Parts::default();
        // Until the end: who is sent off is to hear of it.
        let mut balancer = std::pin::pin!(balancer::run(listener, Arc::clone(&nodes)));
        let life = async {
            let up = bring_up(plan.parts, &mut parts, &care, &nodes);
            tokio::select! {
                up = timeout(UP_WITHIN, up) => up.map_err(|_| too_late(&nodes, &logs))?,
                Some(how) = ends.recv() => bail!("the cluster does not come up: {how}"),
            }
            ends.close();
            say(&banner.text(address, &pids));
            match demo {
                Some((api, account)) => demo::run(api, account).await,
                None => std::future::pending().await,
            }
            Ok(())
        };
        let lived = tokio::select! {
            lived = life => lived,
            served = &mut balancer => served.map_err(Into::into),
            () = signals.next() => Ok(()),
        };
        if lived.is_ok() {
            say("stopping: the nodes first, then the rest");
        }
        let end = async {
            tokio::select! {
                () = parts.end(&orders) => ExitCode::SUCCESS,
                () = signals.next() => ExitCode::from(STOPPED_AT_ONCE),
            }
        };
        let code = tokio::select! {
            code = end => code,
            // It failed before: the parts end without it.
            Err(_) = &mut balancer, if lived.is_ok() => ExitCode::FAILURE,
        };
        orders.send_replace(Order::Kill);
        parts.gone().await;
        lived.map(|()| code)
    }
}

/// Which nodes are not ready, and what each has to say.
fn too_late(nodes: &Nodes, logs: &[PathBuf]) -> anyhow::Error {
    let late = logs.iter().zip(nodes.ready()).filter(|(_, ready)| !ready);
    let late = late.map(|(log, _)| format!("\n{}{}", log.display(), part::last_lines(log)));
    anyhow!(
        "the cluster does not come up, these nodes are not ready after {UP_WITHIN:?}:{}",
        late.collect::<String>()
    )
}

/// NATS first, because a node that does not find it waits a while before it looks again.
async fn bring_up(all: Vec<Part>, running: &mut Parts, care: &Care, nodes: &Nodes) {
    let (first, then): (Vec<Part>, Vec<Part>) = all.into_iter().partition(|part| part.kind == Kind::Nats);
    let listens = first.iter().map(|part| part.port).next();
    first.into_iter().for_each(|part| running.keep(part, care));
    if let Some(port) = listens {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(LOOK_EVERY).await;
        }
    }
    then.into_iter().for_each(|part| running.keep(part, care));
    nodes.all_ready().await;
}

/// The parts that are looked after.
#[derive(Default)]
struct Parts {
    nodes: JoinSet<()>,
    controls: JoinSet<()>,
    nats: JoinSet<()>,
}

impl Parts {
    fn keep(&mut self, part: Part, care: &Care) {
        self.of(part.kind).spawn_local(part.keep(care.clone()));
    }

    fn of(&mut self, kind: Kind) -> &mut JoinSet<()> {
        match kind {
            Kind::Node => &mut self.nodes,
            Kind::Control => &mut self.controls,
            Kind::Nats => &mut self.nats,
        }
    }

    /// Tells one kind after the other to end, and waits for it.
    async fn end(&mut self, orders: &watch::Sender<Order>) {
        for kind in [Kind::Node, Kind::Control, Kind::Nats] {
            orders.send_replace(Order::End(kind));
            while self.of(kind).join_next().await.is_some() {}
        }
    }

    /// Waits for all, whatever they were told.
    async fn gone(&mut self) {
        for kind in [Kind::Node, Kind::Control, Kind::Nats] {
            while self.of(kind).join_next().await.is_some() {}
        }
    }
}
