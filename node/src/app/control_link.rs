//! Follows the control view: new limits reach the shards and the accept loop without a restart.

use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::control::ControlView;
use tokio::sync::watch;

use crate::hub::Hub;

pub(super) async fn run(
    mut control: watch::Receiver<Arc<ControlView>>,
    hub: Hub,
    head_timeout: watch::Sender<Duration>,
    shutdown: impl Future<Output = ()>,
) {
    tokio::pin!(shutdown);
    loop {
        // Cancel-safe: a change that is not seen here is seen by the next call.
        let changed = tokio::select! {
            () = &mut shutdown => return,
            changed = control.changed() => changed,
        };
        if changed.is_err() {
            tracing::warn!("control view is not updated any more, the last one stays in force");
            return shutdown.await;
        }
        let view = Arc::clone(&control.borrow_and_update());
        head_timeout.send_replace(Duration::from_secs(view.limits.handshake_timeout_seconds));
        tracing::info!(term = view.revision.term, index = view.revision.index, "control view applied");
        if hub.control(&view).await.is_err() {
            return;
        }
    }
}
