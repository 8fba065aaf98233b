//! The node put together: what runs, in which order it starts and stops, and what the routes may see of it.

mod answers;
mod audit;
mod control_link;
mod drain;
mod figures;
mod intake;
mod local;
mod open_bus;
mod probe;
mod receive;
pub(crate) mod resume;
mod start;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hiveops_proto::Limits;
use parking_lot::Mutex;
use serde_json::{Value, json};

use audit::up_to;
pub(crate) use control_link::Control;
pub(crate) use drain::Drain;
use resume::Received;
pub use start::{Listening, RunError, run};

use crate::admission::{Budget, Standing};
use crate::auth::Gate;
use crate::board::BoardService;
use crate::bus::Bus;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::control::Accounts;
use crate::http::handshakes::Handshakes;
use crate::hub::{Hub, Registry, Shared};
use crate::publisher::Publisher;
use crate::tasks::Tasks;
use crate::telemetry::metrics::{Metrics, Rejected};
use crate::time::{Clock, Moment};
use crate::trace::Traces;

/// What the routes and the background tasks share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hub: Hub,
    pub(crate) publisher: Publisher,
    pub(crate) board: Arc<BoardService>,
    pub(crate) tasks: Tasks,
    pub(crate) handshakes: Handshakes,
    pub(crate) control: Control,
    pub(crate) drain: Drain,
    pub(crate) cluster: Cluster,
    pub(crate) traces: Arc<Traces>,
    /// Where users log in; none without control replicas.
    pub(crate) accounts: Option<Accounts>,
    bus: Arc<dyn Bus>,
    shared: Arc<Shared>,
    /// How far the shards have been told.
    received: Arc<Received>,
    /// Held while counts that are kept elsewhere are added to the metrics and all are read, so that two scrapes
    /// neither add the same nor read what the other has half added.
    counted: Mutex<()>,
    started: Moment,
    /// Sockets that the process may hold, less what it needs for itself.
    sockets_max: u64,
}

/// How the node is, as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) score: u64,
}

impl Health {
    /// Takes off what is wrong: a bus that does not deliver or a node that goes away leaves nothing live, a
    /// missing task leaves something out.
    fn of(bus_live: bool, draining: bool, missing_tasks: usize) -> Self {
        let lost = 50 * u64::from(!bus_live) + 50 * u64::from(draining) + 20 * missing_tasks as u64;
        Self { score: 100_u64.saturating_sub(lost) }
    }

    pub(crate) fn status(self) -> &'static str {
        match self.score {
            90.. => "healthy",
            70..90 => "degraded",
            _ => "unhealthy",
        }
    }
}

impl App {
    /// The limits in force, with the cap of the node at what the process can hold.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = self.control.view().limits.clone();
        limits.max_connections_per_node = limits.max_connections_per_node.min(self.sockets_max);
        limits
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// What health says of control: the view, and what is borrowed.
    pub(crate) fn control_component(&self) -> Value {
        let mut component = self.control.component();
        component["lease"] = self.budget().component();
        component
    }

    pub(crate) fn bus_live(&self) -> bool {
        self.shared.bus_live.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.has_begun()
    }

    pub(crate) fn health(&self) -> Health {
        let missing = self.tasks.health().values().filter(|running| !**running).count();
        Health::of(self.bus_live(), self.is_draining(), missing)
    }

    pub(crate) fn bus_component(&self) -> Value {
        let live = self.bus_live();
        json!({ "status": if live { "live" } else { "not_live" }, "kind": self.bus.kind(), "live": live })
    }

    pub(crate) fn uptime_seconds(&self) -> u64 {
        self.clock.moment().millis_since(self.started) / 1_000
    }

    /// Gauges are read from what owns the thing, when somebody asks and has the turn (`counted`).
    fn refresh_gauges(&self) {
        let metrics = &self.metrics;
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.connections_active.set(count(self.hub.sessions()));
        metrics.outbox_frames.set(count(self.hub.outbox_frames()));
        metrics.cluster_nodes.set(count(self.cluster.nodes()));
        metrics.bus_live.set(i64::from(self.bus_live()));
        metrics.control_view_age.set(self.control.age_seconds() as f64);
        if let Some(Standing { held, used, scarce, age_ms }) = self.budget().standing() {
            metrics.lease_held.set(held.map_or(-1, |held| i64::try_from(held).unwrap_or(i64::MAX)));
            metrics.lease_used.set(i64::try_from(used).unwrap_or(i64::MAX));
            metrics.lease_scarce.set(i64::from(scarce));
            metrics.lease_age.set(age_ms.map_or(-1.0, |ms| ms as f64 / 1_000.0));
        }
        let catalog = self.publisher.catalog();
        for (sub, name) in catalog.interned().iter() {
            let gauge = metrics.subscriptions.with_label_values(&[name.as_str()]);
            gauge.set(count(self.hub.joined(sub)));
        }
        up_to(&metrics.log_lines_dropped, crate::telemetry::log::log_lines_dropped());
        if let Some(counts) = self.bus.counts() {
            let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
            up_to(&metrics.bus_reconnects, now(&counts.reconnects));
            up_to(&metrics.bus_resyncs, now(&counts.resyncs));
            up_to(&metrics.bus_gaps, now(&counts.gaps));
            up_to(&metrics.bus_lagged, now(&counts.lagged));
            up_to(&metrics.bus_retries, now(&counts.retries));
            up_to(&metrics.bus_bad_entries, now(&counts.bad_entries));
            up_to(
                &metrics.bus_invalid.with_label_values(&[Rejected::Overflow.as_str()]),
                now(&counts.intake_dropped),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_falls_with_what_is_wrong_and_never_below_zero() {
        assert_eq!(Health::of(true, false, 0).status(), "healthy");
        assert_eq!(Health::of(true, false, 1).status(), "degraded");
        assert_eq!(Health::of(false, false, 0).status(), "unhealthy");
        assert_eq!(Health::of(false, true, 6), Health { score: 0 });
    }
}
