//! The state machine as a replica holds it: commands in from the log, views out to whoever watches.

use std::sync::Arc;

use hiveops_proto::control::{ControlView, Revision};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::raft::{Machine, Unusable};
use crate::state::{Command, State};

/// What watchers get: the view of now, and every later one. None until the cluster has been made.
pub(crate) type Views = watch::Receiver<Option<Arc<ControlView>>>;

/// Cheap to clone: the agreement holds one and applies to it, the API holds one and reads.
#[derive(Clone)]
pub(crate) struct Plane {
    /// Guards the state, and the order in which its views are sent.
    state: Arc<Mutex<State>>,
    view: watch::Sender<Option<Arc<ControlView>>>,
}

impl Plane {
    pub(crate) fn new() -> Self {
        Self { state: Arc::new(Mutex::new(State::new())), view: watch::Sender::new(None) }
    }

    pub(crate) fn watch(&self) -> Views {
        self.view.subscribe()
    }

    /// How many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.view.receiver_count()
    }

    /// Reads something small.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock())
    }

    fn show(&self, state: &State) {
        let shown = self.view.borrow().as_ref().map(|view| view.revision);
        if state.view_revision() != shown {
            self.view.send_replace(state.view().map(Arc::new));
        }
    }
}

impl Machine for Plane {
    fn apply(&mut self, at: Revision, proposal: &str) -> Result<String, Unusable> {
        let command: Command =
            serde_json::from_str(proposal).map_err(|error| Unusable(format!("unknown command: {error}")))?;
        let mut state = self.state.lock();
        let outcome = state.apply(at, command);
        self.show(&state);
        serde_json::to_string(&outcome).map_err(|error| Unusable(error.to_string()))
    }

    fn snapshot(&self) -> Vec<u8> {
        self.state.lock().snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), Unusable> {
        let restored = State::restore(snapshot).map_err(|error| Unusable(error.to_string()))?;
        let mut state = self.state.lock();
        *state = restored;
        self.show(&state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_this_version_does_not_know_is_not_skipped() {
        let mut plane = Plane::new();
        let at = Revision { term: 1, index: 1 };
        let command = r#"{"v":1,"at":"2026-01-01T00:00:00Z","action":{"fly":{}}}"#;
        let error = plane.apply(at, command).unwrap_err().to_string();
        assert!(
            error.contains("unknown command") && error.contains("older than the other replicas"),
            "{error}"
        );
    }

    #[test]
    fn a_snapshot_makes_another_plane_the_same() {
        let plane = Plane::new();
        let mut other = Plane::new();
        other.restore(&plane.snapshot()).unwrap();
        assert_eq!(plane.snapshot(), other.snapshot());
        assert!(other.restore(b"nonsense").is_err());
    }
}
