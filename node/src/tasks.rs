//! Everything that runs in the background has a name here, an owner, and a shutdown.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The list of what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TaskKind {
    /// Takes connections.
    Accept,
    /// Serves one HTTP connection until it ends or becomes a WebSocket.
    HttpConnection,
    /// Completes one upgrade.
    Upgrade,
    /// Keeps a connection to the bus.
    BusLink,
    /// Follows the bus and fans out.
    Receive,
    /// Takes in what publishers hand to the bus themselves.
    Intake,
    /// Proves that the bus delivers.
    Probe,
    /// Announces the node and answers the others.
    Cluster,
    /// Publishes the node's own figures.
    Report,
    /// Finds agents and tasks whose lease ran out.
    Lease,
    /// Follows the control view.
    ControlLink,
    /// Borrows from the limits of the cluster.
    Admission,
    /// Sends spans to a receiver.
    Traces,
    /// Looks for another certificate, where the node ends TLS.
    Certificate,
}

impl TaskKind {
    /// How many kinds there are; the last one's place and one.
    const COUNT: usize = Self::Certificate as usize + 1;

    /// Those that must run as long as the node does; health lists them.
    const ESSENTIAL: [Self; 8] = [
        Self::Accept,
        Self::Receive,
        Self::Probe,
        Self::Cluster,
        Self::Report,
        Self::Lease,
        Self::ControlLink,
        Self::Admission,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::HttpConnection => "http_connection",
            Self::Upgrade => "upgrade",
            Self::BusLink => "bus_link",
            Self::Receive => "receive",
            Self::Intake => "intake",
            Self::Probe => "probe",
            Self::Cluster => "cluster",
            Self::Report => "report",
            Self::Lease => "lease",
            Self::ControlLink => "control_link",
            Self::Admission => "admission",
            Self::Traces => "traces",
            Self::Certificate => "certificate",
        }
    }
}

/// Spawns and counts; cheap to clone.
#[derive(Clone)]
pub(crate) struct Tasks {
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
}

#[derive(Default)]
struct Shared {
    /// Guards the set; never held across an await.
    set: Mutex<JoinSet<()>>,
    /// How many of each kind run. Apart from the set: a task may end while another is being spawned.
    running: [AtomicUsize; TaskKind::COUNT],
}

impl Tasks {
    pub(crate) fn new(shutdown: watch::Receiver<bool>) -> Self {
        Self { shared: Arc::default(), shutdown }
    }

    /// Runs `future` until it ends by itself; it hears of the shutdown by [`Tasks::shutdown`].
    pub(crate) fn spawn(&self, kind: TaskKind, future: impl Future<Output = ()> + Send + 'static) {
        let guard = Running::begin(Arc::clone(&self.shared), kind);
        let mut set = self.shared.set.lock();
        // What has ended is collected here, so that the set does not grow with every connection.
        while let Some(ended) = set.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(error = %error, "background task panicked");
            }
        }
        set.spawn(async move {
            let _running = guard;
            future.await;
        });
    }

    /// A future that ends when the node shuts down.
    pub(crate) fn shutdown(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut shutdown = self.shutdown.clone();
        async move {
            // An error means that the sender is gone, which is a shutdown too.
            let _ = shutdown.wait_for(|stop| *stop).await;
        }
    }

    /// Whether each essential task runs, by name.
    pub(crate) fn health(&self) -> BTreeMap<&'static str, bool> {
        TaskKind::ESSENTIAL.iter().map(|kind| (kind.as_str(), self.running(*kind) > 0)).collect()
    }

    /// How many tasks of one kind run.
    pub(crate) fn running(&self, kind: TaskKind) -> usize {
        self.shared.running[kind as usize].load(Ordering::Relaxed)
    }

    /// Ends what has not ended by itself.
    pub(crate) fn abort_all(&self) {
        self.shared.set.lock().abort_all();
    }
}

/// Counts a task from before it starts until it is dropped, however it ends.
struct Running {
    shared: Arc<Shared>,
    kind: TaskKind,
}

impl Running {
    fn begin(shared: Arc<Shared>, kind: TaskKind) -> Self {
        shared.running[kind as usize].fetch_add(1, Ordering::Relaxed);
        Self { shared, kind }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}
