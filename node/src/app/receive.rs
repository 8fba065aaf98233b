//! From the bus to the board and the hub: the one place where publications enter the node.

use std::sync::Arc;
use std::time::Instant;

use hiveops_proto::Position;
use tokio::sync::watch;

use super::resume::Received;
use crate::board::BoardHandle;
use crate::bus::{BusEvent, Follow, Reset, Stored};
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::hub::{Ended, Hub, Publication};
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;
use crate::trace::Traces;

pub(super) struct Receive {
    pub(super) follow: Box<dyn Follow>,
    pub(super) hub: Hub,
    pub(super) board: Arc<BoardHandle>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    /// Tells the probe what came back.
    pub(super) probes: watch::Sender<u64>,
    /// How many logs have been read; the node opens when it is all of them.
    pub(super) logs_read: watch::Sender<usize>,
    /// How far the shards have been told.
    pub(super) received: Arc<Received>,
    pub(super) cluster: Cluster,
    pub(super) traces: Arc<Traces>,
}

impl Receive {
    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            // Cancel-safe by the contract of `Follow::next`.
            let event = tokio::select! {
                // First, so that the end of the bus in an orderly stop is not taken for an accident.
                biased;
                () = &mut shutdown => return,
                event = self.follow.next() => event,
            };
            let Some(event) = event else {
                tracing::error!("bus has ended");
                return;
            };
            if self.take(event).await.is_err() {
                // So it is at every stop; a shard that ended by itself is the node's error, told by `run`.
                tracing::info!("shard has ended, the bus is followed no more");
                return;
            }
        }
    }

    async fn take(&mut self, event: BusEvent) -> Result<(), Ended> {
        match event {
            BusEvent::Probe(nonce) => {
                self.probes.send_replace(nonce);
                Ok(())
            }
            BusEvent::Told(signal) => {
                self.cluster.hear(&signal);
                Ok(())
            }
            BusEvent::Reset(reset) => self.reset(reset).await,
            BusEvent::Stored(stored) => self.stored(stored).await,
        }
    }

    async fn reset(&mut self, reset: Reset) -> Result<(), Ended> {
        self.metrics.bus_resets.inc();
        tracing::info!(
            subscription = self.catalog.name(reset.sub).as_str(),
            epoch = reset.epoch.as_str(),
            seq = reset.head,
            entries = reset.entries.len(),
            "log read"
        );
        self.board.apply_reset(&reset, &self.catalog);
        let now = Instant::now();
        let entries = reset.entries.iter().map(|stored| Publication::seal(Arc::clone(stored), now)).collect();
        let (sub, position) = (reset.sub, Position { epoch: reset.epoch.clone(), seq: reset.head });
        self.hub.reset(reset, entries).await?;
        self.received.set(sub, position);
        self.logs_read.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn stored(&mut self, stored: Arc<Stored>) -> Result<(), Ended> {
        let received = Instant::now();
        let envelope = &stored.envelope;
        let age_ms = self.clock.timestamp().millis_since(envelope.timestamp);
        self.metrics.bus_seconds.observe(age_ms as f64 / 1_000.0);
        self.metrics.publications.with_label_values(&[envelope.subscription.as_str()]).inc();
        self.board.apply(&stored, &self.catalog);
        let sub = stored.sub;
        let recipients = self.hub.joined(sub);
        tracing::debug!(
            correlation_id = %envelope.correlation_id,
            r#type = envelope.message_type.as_str(),
            subscription = envelope.subscription.as_str(),
            seq = stored.seq,
            recipients,
            "publication received"
        );
        self.metrics.last_fanout.set(i64::try_from(recipients).unwrap_or(i64::MAX));
        self.metrics.fanout_size.observe(recipients as f64);
        let position = Position { epoch: stored.epoch.clone(), seq: stored.seq };
        let tally = self.traces.received(&stored, received);
        self.hub.fan_out(Publication::seal_counted(stored, received, Arc::clone(&tally))).await?;
        tally.handed_over();
        self.received.set(sub, position);
        Ok(())
    }
}
