//! What the reporter publishes of this node.

use std::sync::Arc;

use parking_lot::Mutex;

use super::App;
use crate::board::{Figures, NodeFigures};
use crate::telemetry::quantile::Window;

/// The share of deliveries that the figure covers.
const QUANTILE: f64 = 0.99;

pub(super) struct AppFigures {
    app: Arc<App>,
    /// The histogram as it was at the last look; held for one look.
    window: Mutex<Window>,
}

impl AppFigures {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app, window: Mutex::default() }
    }
}

impl Figures for AppFigures {
    fn sample(&self) -> NodeFigures {
        let health = self.app.health();
        let p99 = self.window.lock().quantile(&self.app.metrics.delivery_buckets(), QUANTILE);
        NodeFigures {
            status: health.status(),
            score: health.score,
            connections: self.app.hub.sessions() as u64,
            fanout_p99_ms: p99.map(|seconds| seconds * 1_000.0),
            bus_kind: self.app.bus.kind(),
            bus_live: self.app.bus_live(),
            uptime_seconds: self.app.uptime_seconds(),
        }
    }
}
