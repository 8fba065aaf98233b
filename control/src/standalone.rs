//! The plane of a node that has no cluster: it lives in the node's process, begins anew with each start and
//! hands out a view that follows each change.
//!
//! The binary gives the node only the receiver, so that replicas can take its place without a node noticing.

use std::sync::{Arc, Mutex, PoisonError};

use hiveops_proto::control::{ControlView, Revision};
use hiveops_proto::id::ClusterId;
use hiveops_proto::{Limits, Timestamp};
use tokio::sync::watch;

use crate::config::Start;
use crate::state::{Action, Command, Outcome, State};

/// The cluster of a plane that lives inside its only node.
const STANDALONE: &str = "standalone";

/// Why the plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it should start from cannot be used.
    #[error("the control plane cannot start from its configuration: {0}")]
    Refused(Refused),
}

/// Why a change was refused; nothing has changed.
pub use crate::state::Refusal as Refused;

/// Starts the plane.
pub fn run(start: Start) -> Result<Handle, Error> {
    let init = start.into_init(ClusterId::new(STANDALONE).expect("the name keeps the rule"));
    let mut log = Log { state: State::new() };
    if let Outcome::Refused(refusal) = log.append(Action::Init(Box::new(init))) {
        return Err(Error::Refused(refusal));
    }
    let (view, _) = watch::channel(Arc::new(log.view()));
    Ok(Handle { shared: Arc::new(Shared { log: Mutex::new(log), view }) })
}

/// Changes and shows the state; cheap to clone. The state lives as long as a handle or a receiver does.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Guards the state, and the order in which its views are sent.
    log: Mutex<Log>,
    view: watch::Sender<Arc<ControlView>>,
}

/// The log of a plane that has no other replicas: entries are applied as they come, and kept nowhere.
#[derive(Debug)]
struct Log {
    state: State,
}

impl Log {
    fn append(&mut self, action: Action) -> Outcome {
        let revision = Revision { term: 1, index: self.state.applied().index + 1 };
        // Nothing that a standalone plane does depends on the time.
        self.state.apply(revision, Command::new(Timestamp::default(), None, action))
    }

    fn view(&self) -> ControlView {
        self.state.view().expect("the first entry of the log made the cluster")
    }
}

impl Handle {
    /// The view, and every later one.
    pub fn watch(&self) -> watch::Receiver<Arc<ControlView>> {
        self.shared.view.subscribe()
    }

    /// Puts other thresholds in force; those whose value changes are then `control`'s.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Refused> {
        // A panic in `apply` would leave the state as it was: it changes nothing before it has checked.
        let mut log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.shared.view.borrow().limits.clone();
        let named = Limits::TABLE.iter().filter_map(|spec| Some((spec.name, limits.get(spec.name)?)));
        let patch = named.filter(|(name, value)| now.get(name) != Some(*value));
        let patch = patch.map(|(name, value)| (name.to_owned(), value)).collect();
        match log.append(Action::SetLimits { patch }) {
            Outcome::Done { changed: true, .. } => {
                self.shared.view.send_replace(Arc::new(log.view()));
                Ok(())
            }
            Outcome::Done { changed: false, .. } => Ok(()),
            Outcome::Refused(refusal) => Err(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hiveops_proto::Contract;
    use hiveops_proto::control::Source;

    use super::*;

    fn start() -> Start {
        let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
        Start::new(Limits::default(), BTreeMap::new(), &contract)
    }

    #[test]
    fn a_watcher_sees_the_first_view_and_each_change() {
        let handle = run(start()).unwrap();
        let mut view = handle.watch();
        assert_eq!((view.borrow().revision.term, view.borrow().revision.index), (1, 1));
        assert_eq!(view.borrow().contract.schema_digest, hiveops_proto::schema_digest());
        assert_eq!(view.borrow().contract.contract_digest, Some(hiveops_proto::contract_digest()));
        let limits = Limits { idle_disconnect_seconds: 7, ..Limits::default() };
        handle.set_limits(limits.clone()).unwrap();
        assert!(view.has_changed().unwrap());
        assert_eq!(view.borrow_and_update().limits, limits);
        assert_eq!(view.borrow().sources["idle_disconnect_seconds"], Source::Control);
        handle.set_limits(limits).unwrap();
        assert!(!view.has_changed().unwrap(), "nothing changed, so there is nothing to see");
    }

    #[test]
    fn a_refused_change_changes_nothing() {
        let handle = run(start()).unwrap();
        let refused = handle.set_limits(Limits { outbox_frames_max: 0, ..Limits::default() }).unwrap_err();
        assert!(refused.to_string().contains("outbox_frames_max must be between 8"));
        assert_eq!(handle.watch().borrow().revision.index, 1);
    }

    #[test]
    fn nonsense_to_start_from_is_named() {
        let limits = Limits { idle_disconnect_seconds: 0, ..Limits::default() };
        let error = run(Start { limits, ..start() }).unwrap_err();
        assert!(error.to_string().contains("idle_disconnect_seconds must be between 1"), "{error}");
    }
}
