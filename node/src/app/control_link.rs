//! Follows the control view: new limits reach the shards and the accept loop without a restart.
//!
//! When nobody updates the view any more, the last one stays in force, and everything that shows it says
//! how old it is.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hiveops_proto::control::ControlView;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::control::ControlSource;
use crate::hub::Hub;
use crate::time::{Clock, Moment};

/// Replicas confirm every second; what none of them has for longer may be out of date.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// The view in force and how fresh it is; cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    view: watch::Receiver<Arc<ControlView>>,
    /// When a replica last said that it knows of no later view; none when the plane is in this process.
    confirmed: Option<watch::Receiver<Option<Instant>>>,
    /// When the plane was last there, once it is gone.
    lost_at: Arc<OnceLock<Moment>>,
    started: Moment,
    begun_at_age: Duration,
    clock: Clock,
}

impl Control {
    pub(super) fn new(source: ControlSource, clock: Clock) -> Self {
        let ControlSource { views, confirmed, begun_at_age, lender: _ } = source;
        Self { view: views, confirmed, begun_at_age, lost_at: Arc::default(), started: clock.moment(), clock }
    }

    pub(crate) fn view(&self) -> Arc<ControlView> {
        Arc::clone(&self.view.borrow())
    }

    pub(crate) fn receiver(&self) -> watch::Receiver<Arc<ControlView>> {
        self.view.clone()
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
        })
    }

    pub(super) async fn run(
        mut self,
        hub: Hub,
        head_timeout: watch::Sender<Duration>,
        shutdown: impl Future<Output = ()>,
    ) {
        tokio::pin!(shutdown);
        loop {
            // Cancel-safe: a change that is not seen here is seen by the next call.
            let changed = tokio::select! {
                () = &mut shutdown => return,
                changed = self.view.changed() => changed,
            };
            if changed.is_err() {
                // Only this task sets it, once.
                let _ = self.lost_at.set(self.clock.moment());
                tracing::warn!("control view is not updated any more, the last one stays in force");
                return shutdown.await;
            }
            let view = Arc::clone(&self.view.borrow_and_update());
            head_timeout.send_replace(Duration::from_secs(view.limits.handshake_timeout_seconds));
            tracing::info!(term = view.revision.term, index = view.revision.index, "control view applied");
            if hub.control(&view).await.is_err() {
                return;
            }
        }
    }
}
