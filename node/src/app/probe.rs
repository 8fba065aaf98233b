//! Proves that the bus delivers: a message of our own must come back through it.
//!
//! A connection that stands says nothing; only what went out and came in counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::bus::Bus;
use crate::telemetry::metrics::Metrics;

/// Time between two probes (DESIGN section 6), and time within which one must be back.
const INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Probe {
    pub(super) bus: Arc<dyn Bus>,
    /// The last nonce that came back, from the receive loop.
    pub(super) seen: watch::Receiver<u64>,
    pub(super) live: Arc<AtomicBool>,
    pub(super) metrics: Arc<Metrics>,
}

impl Probe {
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for nonce in 1.. {
            tokio::select! {
                // Both may be dropped at any await: a probe that is lost is one that did not come back.
                () = &mut shutdown => return,
                () = async {
                    ticks.tick().await;
                    self.once(nonce).await;
                } => {}
            }
        }
    }

    async fn once(&mut self, nonce: u64) {
        let seen = &mut self.seen;
        let round = async {
            self.bus.probe(nonce).await.ok()?;
            seen.wait_for(|seen| *seen >= nonce).await.ok().map(|_| ())
        };
        let live = matches!(tokio::time::timeout(INTERVAL, round).await, Ok(Some(())));
        let was = self.live.swap(live, Ordering::Relaxed);
        if !live {
            self.metrics.probe_failures.inc();
        }
        match (was, live) {
            (true, false) => tracing::error!("bus does not deliver, the node is not ready"),
            (false, true) => tracing::info!("bus delivers"),
            _ => {}
        }
    }
}
