//! Start and stop, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::answers::BoardAnswers;
use super::figures::AppFigures;
use super::probe::Probe;
use super::receive::Receive;
use super::resume::Received;
use super::{App, Control, Drain, control_link, drain, intake, local, open_bus};
use crate::admission::{Budget, Renewal};
use crate::auth::Gate;
use crate::board::leases;
use crate::board::reporter::Reporter;
use crate::board::{BoardHandle, BoardService};
use crate::bus::Unavailable;
use crate::catalog::{Catalog, CompileError};
use crate::cluster::Answering;
use crate::config::{AuthMode, Config, DrainWindow};
use crate::control::{ControlSource, Lender};
use crate::http::client::Proxies;
use crate::http::handshakes::Handshakes;
use crate::http::{Accepting, Routers, routers, server};
use crate::hub::{Hints, Hub, Registry, ShardError, Shared, Threads};
use crate::publisher::Publisher;
use crate::tasks::{TaskKind, Tasks};
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;
use crate::tls::{Keeper, LoadError};
use crate::trace::{Traces, export};

/// Connections that the kernel may hold before the accept loop takes them.
const BACKLOG: i32 = 4_096;

/// File descriptors kept back for listeners, the store, the bus and HTTP (CONTRACT section 6).
const DESCRIPTORS_RESERVED: u64 = 256;

/// How long the logs may take to be read at the start, and the first probe to come back.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the end of the lease may take. It ends by itself when nobody hears of it.
const END_LEASE: Duration = Duration::from_secs(3);

/// How long requests that are being answered may take after the last session has gone.
const STOP_REQUESTS: Duration = Duration::from_secs(2);

/// Why a node cannot run, or cannot run on.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RunError(#[from] Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("the contract cannot be used (HIVEOPS_CONTRACT, or the control plane's)")]
    Contract(#[from] CompileError),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error(transparent)]
    Bus(#[from] open_bus::OpenError),
    #[error(transparent)]
    Follow(#[from] Unavailable),
    #[error("the logs could not be read from the bus within {} s", START_TIMEOUT.as_secs())]
    BusSilent,
    #[error(transparent)]
    Hub(#[from] ShardError),
    #[error("cannot listen on {address} ({setting}); is another program using it?")]
    Listen {
        address: SocketAddr,
        setting: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Traces(#[from] export::ExporterError),
    #[error("TLS cannot be ended (HIVEOPS_TLS_CERT, HIVEOPS_TLS_KEY)")]
    Tls(#[from] LoadError),
    #[error("a shard has ended by itself")]
    ShardEnded,
    #[error("the background task `{0}` has ended by itself")]
    TaskEnded(&'static str),
}

/// Where a node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Clients.
    pub address: SocketAddr,
    /// Those who run it, where they have a listener of their own.
    pub admin: Option<SocketAddr>,
}

/// The sockets for it.
struct Listeners {
    public: TcpListener,
    admin: Option<TcpListener>,
}

/// Runs a node until `shutdown` ends. `ready` hears the addresses once the node serves.
pub async fn run(
    config: Config,
    control: impl Into<ControlSource>,
    ready: impl FnOnce(Listening) + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let (public, address) = listen(config.listen, "HIVEOPS_LISTEN")?;
    let admin = config.admin_listen.map(|address| listen(address, "HIVEOPS_ADMIN_LISTEN")).transpose()?;
    let listening = Listening { address, admin: admin.as_ref().map(|(_, address)| *address) };
    let listeners = Listeners { public, admin: admin.map(|(listener, _)| listener) };
    let (stop, stopped) = watch::channel(false);
    tokio::pin!(shutdown);
    let assembled = tokio::select! {
        assembled = assemble(config, control.into(), stopped) => assembled,
        // While it waits for its bus, a node has nothing to lose.
        () = &mut shutdown => return Ok(()),
    };
    let (node, threads, logs_read) = assembled?;
    let mut logs_read = logs_read;
    let all = node.app.publisher.catalog().names().len();
    let loaded = tokio::time::timeout(START_TIMEOUT, logs_read.wait_for(|count| *count >= all)).await;
    loaded.ok().and_then(Result::ok).map(drop).ok_or(Cause::BusSilent)?;
    let app = &node.start(listeners);
    first_probe(app).await?;
    // Its first report is not to say that the bus is dead because nobody has asked it yet.
    let figures = Arc::new(AppFigures::new(Arc::clone(app)));
    let reporter = Reporter::new(Arc::clone(&app.board), figures, &app.config.node_id);
    app.tasks.spawn(TaskKind::Report, reporter.run(app.tasks.shutdown()));
    let admin_address = listening.admin.map(tracing::field::display);
    tracing::info!(node_id = %app.config.node_id, address = %address, admin_address, "node is ready");
    ready(listening);
    let result = tokio::select! {
        () = &mut shutdown => Ok(()),
        () = app.drain.begun() => Ok(()),
        () = app.hub.ended() => Err(Cause::ShardEnded),
        name = task_ended(app) => Err(Cause::TaskEnded(name)),
    };
    tracing::info!(node_id = %app.config.node_id, "node stops");
    // A node that cannot go on does not keep its sessions waiting.
    app.drain.begin(result.is_err().then_some(DrainWindow::AT_ONCE));
    stop_node(app, threads, &stop).await;
    Ok(result?)
}

/// A node whose logs are being read, and that does not serve yet.
struct Assembled {
    app: Arc<App>,
    probe: Probe,
    answering: Answering,
    catalogs: watch::Sender<Arc<Catalog>>,
    lender: Option<Lender>,
    certificate: Option<Keeper>,
}

async fn assemble(
    config: Config,
    control: ControlSource,
    stopped: watch::Receiver<bool>,
) -> Result<(Assembled, Threads, watch::Receiver<usize>), Cause> {
    let clock = Clock::start();
    let (lender, accounts) = (control.lender.clone(), control.accounts.clone());
    let link = Control::new(control, clock);
    let view = link.view();
    let catalog = Catalog::compile(view.contract.current.clone())?;
    let metrics = Metrics::new(catalog.names())?;
    let (certificate, tasks) = (certificate(&config, &metrics)?, Tasks::new(stopped));
    let bus = open_bus::open(&config, catalog.names(), clock, &tasks, START_TIMEOUT).await?;
    let traces = traces(&config, &catalog, clock, &metrics, &tasks)?;
    let (cluster, answering) = local::cluster(&config, &bus, clock, &metrics);
    let (board, bus_live) = (Arc::new(BoardHandle::new()), Arc::new(AtomicBool::new(false)));
    let shared = Arc::new(Shared {
        catalog: Arc::clone(&catalog),
        node_id: config.node_id.clone(),
        clock,
        registry: Registry::default(),
        budget: Budget::new(lender.is_some().then(|| config.node_id.clone()), clock),
        hints: Hints::default(),
        metrics: Arc::clone(&metrics),
        answers: Box::new(BoardAnswers::new(&board, &link, bus.kind(), &bus_live)),
        bus_live: Arc::clone(&bus_live),
        gate: gate(&config, &link, accounts.is_some(), clock),
        // It sends to sockets as they are, past TLS.
        io_uring: config.io_uring && certificate.is_none(),
        control: view,
    });
    let (hub, threads) = Hub::start(config.shards, &shared)?;
    let received = Arc::new(Received::new());
    let ((probes, seen), (logs_read, read)) = (watch::channel(0), watch::channel(0));
    let receive = Receive {
        follow: bus.follow().await?,
        hub: hub.clone(),
        board: Arc::clone(&board),
        catalog: Arc::clone(&catalog),
        metrics: Arc::clone(&metrics),
        clock,
        probes,
        logs_read,
        received: Arc::clone(&received),
        cluster: cluster.clone(),
        traces: Arc::clone(&traces),
    };
    tasks.spawn(TaskKind::Receive, receive.run(tasks.shutdown()));
    let (catalogs, catalog) = watch::channel(catalog);
    let (control, counted) = (link.receiver(), Arc::clone(&metrics));
    let publisher = Publisher::new(Arc::clone(&bus), catalog, control, clock, counted, Arc::clone(&traces));
    let probe = Probe { bus: Arc::clone(&bus), seen, live: bus_live, metrics: Arc::clone(&metrics) };
    let app = Arc::new(App {
        board: Arc::new(BoardService::new(publisher.clone(), board, clock)),
        drain: Drain::new(config.drain),
        cluster,
        traces,
        accounts,
        config,
        clock,
        metrics,
        hub,
        publisher,
        tasks,
        handshakes: Handshakes::default(),
        received,
        bus,
        control: link,
        shared,
        counted: Mutex::default(),
        started: clock.moment(),
        sockets_max: raise_descriptors().saturating_sub(DESCRIPTORS_RESERVED),
    });
    Ok((Assembled { app, probe, answering, catalogs, lender, certificate }, threads, read))
}

fn certificate(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Keeper>, LoadError> {
    config.tls.as_ref().map(|files| Keeper::load(files, metrics, &config.node_id)).transpose()
}

/// What is remembered of publications, and where their spans go.
fn traces(
    config: &Config,
    catalog: &Catalog,
    clock: Clock,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
) -> Result<Arc<Traces>, export::ExporterError> {
    let Some(wanted) = &config.traces else { return Ok(Traces::new(catalog, clock, None)) };
    let (tracer, exporter) = export::start(wanted, &config.node_id, config.shards, clock, metrics)?;
    let stopped = tasks.shutdown();
    let over = async move {
        stopped.await;
        tokio::time::sleep(export::FLUSH_WITHIN).await;
    };
    tasks.spawn(TaskKind::Traces, exporter.run(tasks.shutdown(), over));
    let endpoint = wanted.endpoint.as_str();
    tracing::info!(node_id = %config.node_id, endpoint, "spans are sent");
    Ok(Traces::new(catalog, clock, Some(tracer)))
}

/// Who judges credentials, and what whoever starts the node should know of how.
fn gate(config: &Config, link: &Control, has_accounts: bool, clock: Clock) -> Arc<Gate> {
    let node_id = &config.node_id;
    if config.auth.query_token {
        tracing::warn!(
            node_id = %node_id,
            "access tokens are taken from the query, where proxies and histories keep them (WS_AUTH_QUERY_TOKEN)"
        );
    }
    if config.auth.required && config.auth.mode == AuthMode::Jwt && !has_accounts {
        tracing::warn!(
            node_id = %node_id,
            "nobody can come in: access tokens are asked for, and there is no control plane (HIVEOPS_CONTROL)"
        );
    }
    let stale = link.clone();
    let stale = Box::new(move || stale.is_stale());
    Arc::new(Gate::new(config.auth.clone(), &link.view().access, clock, stale))
}

impl Assembled {
    /// Spawns everything that runs as long as the node does.
    fn start(self, listeners: Listeners) -> Arc<App> {
        let Self { app, probe, answering, catalogs, lender, certificate } = self;
        let tasks = &app.tasks;
        let timeout = Duration::from_secs(app.limits().handshake_timeout_seconds);
        let (head_timeout, accepting) = watch::channel(timeout);
        let (trusted, ignored) = (app.config.trusted_proxies.clone(), app.metrics.forwarded_ignored.clone());
        let accepting = Accepting {
            head_timeout: accepting,
            views: app.control.receiver(),
            proxies: Proxies::new(trusted, ignored),
            certificates: certificate.as_ref().map(Keeper::certificates),
            clock: app.clock,
            metrics: Arc::clone(&app.metrics),
        };
        let parts = control_link::Parts {
            hub: app.hub.clone(),
            bus: Arc::clone(&app.bus),
            received: Arc::clone(&app.received),
            catalog: catalogs,
            metrics: Arc::clone(&app.metrics),
            head_timeout,
            gate: Arc::clone(&app.shared.gate),
        };
        let link = app.control.clone().run(parts, tasks.shutdown());
        tasks.spawn(TaskKind::ControlLink, link);
        tasks.spawn(TaskKind::Admission, Renewal::new(&app, lender).run(tasks.shutdown()));
        tasks.spawn(TaskKind::Probe, probe.run(tasks.shutdown()));
        let node = Arc::new(local::AppLocal::new(Arc::clone(&app)));
        tasks.spawn(TaskKind::Cluster, answering.run(node, tasks.shutdown()));
        if let Some(taken_in) = app.bus.intake() {
            let intake = intake::Intake::new(app.publisher.clone(), Arc::clone(&app.metrics), app.clock);
            tasks.spawn(TaskKind::Intake, intake.run(taken_in, tasks.shutdown()));
        }
        if let Some(certificate) = certificate {
            tasks.spawn(TaskKind::Certificate, certificate.run(tasks.shutdown()));
        }
        tasks.spawn(TaskKind::Lease, leases::run(Arc::clone(&app.board), tasks.shutdown()));
        tasks.spawn(TaskKind::Accept, accept(listeners, routers(&app), accepting, tasks.clone()));
        app
    }
}

/// Each listener has places of its own, so that a crowd at one keeps nobody from the other. When one of them
/// ends, the task does.
async fn accept(listeners: Listeners, routers: Routers, accepting: Accepting, tasks: Tasks) {
    let public = server::run(listeners.public, routers.public, accepting.clone(), tasks.clone());
    match listeners.admin.zip(routers.admin) {
        None => public.await,
        Some((listener, router)) => {
            let admin = server::run(listener, router, accepting, tasks);
            tokio::select! {
                () = public => {}
                () = admin => {}
            }
        }
    }
}

/// The listener, and the address that it really has.
fn listen(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), Cause> {
    let refused = |source| Cause::Listen { address, setting, source };
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).map_err(refused)?;
    // A node that restarts does not wait for the connections of its last life to be forgotten.
    socket.set_reuse_address(true).map_err(refused)?;
    socket.set_nonblocking(true).map_err(refused)?;
    socket.bind(&address.into()).map_err(refused)?;
    socket.listen(BACKLOG).map_err(refused)?;
    let listener = TcpListener::from_std(socket.into()).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Lets the process hold as many sockets as it is allowed to, and says how many that is.
fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// The node is not called ready before its bus has delivered once.
async fn first_probe(app: &App) -> Result<(), Cause> {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let live = async {
        while !app.bus_live() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, live).await.map_err(|_| Cause::BusSilent)
}

/// Ends when a task that must run as long as the node does has ended by itself, and names it. A node that
/// does only half of what it is there for is better started anew.
pub(super) async fn task_ended(app: &App) -> &'static str {
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        if let Some((name, _)) = app.tasks.health().into_iter().find(|(_, running)| !running) {
            return name;
        }
        ticks.tick().await;
    }
}

/// Sessions first, so that they hear why; then the other nodes and requests; the bus last, so that nothing accepted is lost.
async fn stop_node(app: &Arc<App>, threads: Threads, stop: &watch::Sender<bool>) {
    app.budget().drain();
    drain::send_off(app, threads).await;
    app.budget().end(END_LEASE).await;
    app.cluster.leave().await;
    stop.send_replace(true);
    let requests = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while app.tasks.running(TaskKind::HttpConnection) > 0 {
            ticks.tick().await;
        }
    };
    if tokio::time::timeout(STOP_REQUESTS, requests).await.is_err() {
        tracing::warn!("requests were cut off");
    }
    app.bus.shutdown().await;
    // It ends by itself in time.
    while app.tasks.running(TaskKind::Traces) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    app.tasks.abort_all();
}
