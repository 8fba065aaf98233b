//! Follows the control view: new limits reach the shards and the accept loop without a restart.
//!
//! When nobody updates the view any more, the last one stays in force, and everything that shows it says
//! how old it is.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hiveops_proto::control::ControlView;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::hub::Hub;
use crate::time::{Clock, Moment};

/// The view in force and how fresh it is; cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    view: watch::Receiver<Arc<ControlView>>,
    /// When the plane was last there, once it is gone.
    lost_at: Arc<OnceLock<Moment>>,
    clock: Clock,
}

impl Control {
    pub(super) fn new(view: watch::Receiver<Arc<ControlView>>, clock: Clock) -> Self {
        Self { view, lost_at: Arc::default(), clock }
    }

    pub(crate) fn view(&self) -> Arc<ControlView> {
        Arc::clone(&self.view.borrow())
    }

    pub(super) fn receiver(&self) -> watch::Receiver<Arc<ControlView>> {
        self.view.clone()
    }

    /// Whether the plane is gone, so that the view may be out of date.
    pub(crate) fn is_stale(&self) -> bool {
        self.lost_at.get().is_some()
    }

    /// Whole seconds since the view was known to be the latest one. While the plane is there, in this
    /// process, it is.
    pub(crate) fn age_seconds(&self) -> u64 {
        self.lost_at.get().map_or(0, |lost| self.clock.moment().millis_since(*lost) / 1_000)
    }

    /// What health says of it.
    pub(crate) fn component(&self) -> Value {
        json!({
            "status": if self.is_stale() { "stale" } else { "ok" },
            // Limits and contract come from the node's own configuration.
            "mode": "standalone",
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
