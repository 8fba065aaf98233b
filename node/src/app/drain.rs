//! The node's going away: that it has begun, over which time, and the wait until the last session has gone.
//!
//! A signal, a route and an error begin it; readiness and handshakes look at it. Who may ask is the route's
//! business, when which session leaves the shards'.

use std::time::Duration;

use hiveops_proto::DisconnectReason;
use tokio::sync::watch;

use super::App;
use super::start::task_ended;
use crate::config::DrainWindow;
use crate::hub::{Stop, Threads};

/// How long sessions may take to see their notice once the last of them was sent off.
const LINGER: Duration = Duration::from_secs(5);

/// Whether the node goes away, and over which time.
pub(crate) struct Drain {
    /// The window in force; none as long as the node stays.
    window: watch::Sender<Option<DrainWindow>>,
    /// The one that was configured.
    usual: DrainWindow,
}

impl Drain {
    pub(super) fn new(usual: DrainWindow) -> Self {
        Self { window: watch::Sender::new(None), usual }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.window.borrow().is_some()
    }

    /// Begins, or changes the window when it has begun and `window` names one. Returns the one in force.
    pub(crate) fn begin(&self, window: Option<DrainWindow>) -> DrainWindow {
        let mut in_force = self.usual;
        self.window.send_if_modified(|current| {
            in_force = window.or(*current).unwrap_or(self.usual);
            // Asking twice changes nothing: the sessions keep their slots.
            current.replace(in_force) != Some(in_force)
        });
        in_force
    }

    /// Ends when it has begun.
    pub(super) async fn begun(&self) {
        // The sender is in `self`, so this only ends when it holds.
        let _ = self.window.subscribe().wait_for(Option::is_some).await;
    }
}

/// Sends every session off, over the window in force, and ends when the shards have. A task that ends
/// meanwhile leaves sessions that nobody serves: then all are sent off at once.
pub(super) async fn send_off(app: &App, threads: Threads) {
    let mut window = app.drain.window.subscribe();
    let mut joined = tokio::task::spawn_blocking(move || threads.join());
    let mut whole = true;
    loop {
        let in_force = (*window.borrow_and_update()).unwrap_or(DrainWindow::AT_ONCE);
        tracing::info!(
            node_id = %app.config.node_id,
            sessions = app.hub.sessions(),
            window_seconds = in_force.duration().as_secs(),
            "sessions are sent off"
        );
        let (reason, linger) = (DisconnectReason::Draining, LINGER);
        app.hub.stop(Stop { reason, window: in_force.duration(), linger }).await;
        // Cancel-safe, all three: nothing is lost that the next turn does not see.
        tokio::select! {
            ended = &mut joined => {
                if let Ok(Err(error)) = ended {
                    tracing::error!(error = %error, "shard did not end in order");
                }
                return;
            }
            // The sender is in `app`.
            _ = window.changed() => {}
            name = task_ended(app), if whole => {
                tracing::error!(task = name, "background task has ended while the node drains");
                whole = false;
                app.drain.begin(Some(DrainWindow::AT_ONCE));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_usual_window_holds_unless_somebody_names_another() {
        let [ten, two] = ["10", "2"].map(|text| text.parse::<DrainWindow>().unwrap());
        let drain = Drain::new(ten);
        assert!(!drain.has_begun());
        assert_eq!(drain.begin(None), ten);
        drain.begun().await;
        let mut window = drain.window.subscribe();
        assert_eq!(drain.begin(None), ten);
        assert!(!window.has_changed().unwrap(), "asking twice gives nobody another slot");
        assert_eq!((drain.begin(Some(two)), drain.begin(None)), (two, two));
        assert_eq!(*window.borrow_and_update(), Some(two));
    }
}
