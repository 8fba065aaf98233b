//! Follows the control view: new limits and a new contract reach the shards, the publisher and the accept
//! loop without a restart.
//!
//! A contract comes into force on this node when the log of each of its subscriptions has been read; what else
//! changed does not wait for that.
//!
//! When nobody updates the view any more, the last one stays in force, and everything that shows it says
//! how old it is.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::ControlView;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::resume::Received;
use crate::auth::Gate;
use crate::bus::Bus;
use crate::catalog::{Catalog, CompileError};
use crate::control::ControlSource;
use crate::hub::{Ended, Hub};
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, Moment};

/// Replicas confirm every second; what none of them has for longer may be out of date.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// Between two tries to have the bus begin the logs of a contract that is to come into force.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// The view in force and how fresh it is; cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    /// As the plane gives it.
    latest: watch::Receiver<Arc<ControlView>>,
    /// As this node has it in force: the same, but a contract that it cannot serve yet is still the one
    /// before.
    view: Arc<watch::Sender<Arc<ControlView>>>,
    /// The contract version that waits, and for what.
    waiting: Arc<watch::Sender<Option<Waiting>>>,
    /// When a replica last said that it knows of no later view; none when the plane is in this process.
    confirmed: Option<watch::Receiver<Option<Instant>>>,
    /// When the plane was last there, once it is gone.
    lost_at: Arc<OnceLock<Moment>>,
    started: Moment,
    begun_at_age: Duration,
    clock: Clock,
}

/// Why a contract version that the plane has put in force is not in force here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    version: ContractVersion,
    reason: String,
}

/// What the link brings up to date.
pub(super) struct Parts {
    pub(super) hub: Hub,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) received: Arc<Received>,
    pub(super) catalog: watch::Sender<Arc<Catalog>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) head_timeout: watch::Sender<Duration>,
    pub(super) gate: Arc<Gate>,
}

/// What became of the latest contract.
enum Contract {
    /// It can be served.
    Ready(Arc<Catalog>),
    /// The bus has yet to read some of its logs.
    Opening(Arc<Catalog>),
    /// Only a person can help.
    Refused(ContractVersion, CompileError),
}

impl Contract {
    /// Why it cannot be in force yet.
    fn missing(&self) -> Option<String> {
        match self {
            Self::Ready(_) => None,
            Self::Opening(_) => Some("the bus has yet to begin the logs of its new subscriptions".to_owned()),
            Self::Refused(_, error) => Some(error.to_string()),
        }
    }
}

impl Control {
    pub(super) fn new(source: ControlSource, clock: Clock) -> Self {
        let ControlSource { views, confirmed, begun_at_age, lender: _, accounts: _ } = source;
        let view = Arc::clone(&views.borrow());
        Self {
            latest: views,
            view: Arc::new(watch::Sender::new(view)),
            waiting: Arc::default(),
            confirmed,
            begun_at_age,
            lost_at: Arc::default(),
            started: clock.moment(),
            clock,
        }
    }

    pub(crate) fn view(&self) -> Arc<ControlView> {
        Arc::clone(&self.view.borrow())
    }

    pub(crate) fn receiver(&self) -> watch::Receiver<Arc<ControlView>> {
        self.view.subscribe()
    }

    /// The contract version that is to come into force and cannot yet.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        self.waiting.borrow().clone()
    }

    /// Whether the view may be out of date: the plane of this process is gone, or no replica has confirmed
    /// it lately.
    pub(crate) fn is_stale(&self) -> bool {
        match &self.confirmed {
            None => self.lost_at.get().is_some(),
            Some(confirmed) => confirmed.borrow().is_none() || self.age() > FRESH_FOR,
        }
    }

    /// Whole seconds since the view was known to be the latest one.
    pub(crate) fn age_seconds(&self) -> u64 {
        self.age().as_secs()
    }

    fn age(&self) -> Duration {
        let since = |moment: Moment| Duration::from_millis(self.clock.moment().millis_since(moment));
        match &self.confirmed {
            // While the plane is there, in this process, it is.
            None => self.lost_at.get().map_or(Duration::ZERO, |lost| since(*lost)),
            // Nobody has confirmed it in the life of this node, which began with the view on its disk.
            Some(confirmed) => {
                confirmed.borrow().map_or_else(|| self.begun_at_age + since(self.started), |at| at.elapsed())
            }
        }
    }

    /// Who decides.
    pub(crate) fn mode(&self) -> &'static str {
        if self.confirmed.is_some() { "cluster" } else { "standalone" }
    }

    /// What health says of it.
    pub(crate) fn component(&self) -> Value {
        json!({
            "status": if self.is_stale() { "stale" } else { "ok" },
            "mode": self.mode(),
            "revision": self.view().revision,
            "age_seconds": self.age_seconds(),
            "stale": self.is_stale(),
            "contract_waiting": self.waiting(),
        })
    }

    pub(super) async fn run(mut self, parts: Parts, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut received = parts.received.changes();
        let mut contract = Contract::Ready(Arc::clone(&parts.catalog.borrow()));
        let mut open_again = tokio::time::interval(OPEN_AGAIN);
        open_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let latest = Arc::clone(&self.latest.borrow_and_update());
            contract = self.look_at(&latest, contract, &parts);
            if self.apply(&latest, &contract, &parts).await.is_err() {
                return;
            }
            let opening = matches!(contract, Contract::Opening(_));
            // All are cancel-safe: what is not seen here is seen by the next call.
            let changed = tokio::select! {
                () = &mut shutdown => return,
                changed = self.latest.changed() => changed,
                _ = received.changed(), if opening => Ok(()),
                _ = open_again.tick(), if opening => {
                    open(&contract, &parts).await;
                    Ok(())
                }
            };
            if changed.is_err() {
                // Only this task sets it, once.
                let _ = self.lost_at.set(self.clock.moment());
                tracing::warn!("control view is not updated any more, the last one stays in force");
                return shutdown.await;
            }
        }
    }

    /// Compiles the contract of a view if it is another one, and finds out whether it can be served.
    fn look_at(&self, latest: &ControlView, known: Contract, parts: &Parts) -> Contract {
        let current = &latest.contract.current;
        let catalog = match known {
            Contract::Ready(catalog) | Contract::Opening(catalog) if catalog.contract() == current => catalog,
            // A version has one document for ever.
            Contract::Refused(version, _) if version == current.version => return known,
            _ => {
                let compiled = parts.catalog.borrow().next(current.clone());
                match compiled {
                    Ok(catalog) => catalog,
                    Err(error) => return Contract::Refused(current.version, error),
                }
            }
        };
        let all_read = catalog.ids().all(|sub| parts.received.has_read(sub));
        if all_read { Contract::Ready(catalog) } else { Contract::Opening(catalog) }
    }

    /// Puts the view in force, with the contract before as long as its own cannot be served.
    async fn apply(
        &self,
        latest: &Arc<ControlView>,
        contract: &Contract,
        parts: &Parts,
    ) -> Result<(), Ended> {
        let version = latest.contract.current.version;
        let waiting = contract.missing().map(|reason| Waiting { version, reason });
        if waiting != *self.waiting.borrow()
            && let Some(Waiting { reason, .. }) = &waiting
        {
            if let Contract::Refused(..) = contract {
                tracing::error!(%version, reason, "contract cannot be used by this node");
            } else {
                tracing::info!(%version, reason, "contract is not in force on this node yet");
            }
        }
        let mut view = Arc::clone(latest);
        if waiting.is_some() {
            let mut kept = ControlView::clone(latest);
            kept.contract = self.view().contract.clone();
            view = Arc::new(kept);
        }
        parts.metrics.contract_waiting.set(i64::from(waiting.is_some()));
        self.waiting.send_replace(waiting);
        if *view == *self.view() {
            return Ok(());
        }
        let catalog = match contract {
            Contract::Ready(catalog) => Arc::clone(catalog),
            Contract::Opening(_) | Contract::Refused(..) => Arc::clone(&parts.catalog.borrow()),
        };
        parts.head_timeout.send_replace(Duration::from_secs(view.limits.handshake_timeout_seconds));
        parts.metrics.declare(catalog.names());
        if view.access != self.view().access {
            parts.gate.renew(&view.access);
        }
        // Sessions may join it before anybody may publish to it, so nobody publishes to what cannot be joined.
        parts.hub.control(&view, &catalog).await?;
        parts.catalog.send_replace(catalog);
        let (term, index) = (view.revision.term, view.revision.index);
        tracing::info!(term, index, contract_version = %view.contract.current.version, "control view applied");
        self.view.send_replace(view);
        Ok(())
    }
}

/// Has the bus begin the logs that the contract needs and that were not read yet.
async fn open(contract: &Contract, parts: &Parts) {
    let Contract::Opening(catalog) = contract else { return };
    let missing = catalog.interned().iter().filter(|(sub, _)| !parts.received.has_read(*sub));
    let missing = missing.map(|(sub, name)| (sub, name.clone())).collect();
    if let Err(error) = parts.bus.open(missing).await {
        tracing::warn!(error = %error, "bus cannot begin the logs of new subscriptions");
    }
}
