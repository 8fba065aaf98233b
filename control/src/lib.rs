//! The plane of record: the few slow facts that all nodes agree on.
//!
//! For now it lives inside the process that asks for it: [`run`] keeps the state and hands out a view that
//! follows each change. The binary starts it and gives nodes only the receiver, so that replicas can take
//! its place without a node noticing. It knows no sockets and no sessions.

#![warn(missing_docs)]

mod raft;
pub mod state;
mod storage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::{ContractView, ControlView, DeprecationPolicy, Source};
use hiveops_proto::limits::InvalidLimit;
use hiveops_proto::{Contract, Limits};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use state::{Command, Outcome, State};

/// What the plane starts from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The thresholds.
    pub limits: Limits,
    /// For each threshold, who set it; one that is missing counts as a default.
    pub sources: BTreeMap<String, Source>,
    /// The contract version in force.
    pub contract: Contract,
    /// Those that clients may ask for.
    pub supported_versions: Vec<ContractVersion>,
    /// What happens to old ones.
    pub deprecation_policy: DeprecationPolicy,
    /// `sha256:` and the digest of the published schema.
    pub schema_digest: String,
}

impl Config {
    /// The plane of a single node: its own limits and contract, and the schema of this build.
    pub fn standalone(limits: Limits, sources: BTreeMap<String, Source>, contract: Contract) -> Self {
        Self {
            limits,
            sources,
            supported_versions: vec![contract.version],
            contract,
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: digest(hiveops_proto::WS_SCHEMA),
        }
    }
}

/// Why the plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thresholds are out of bounds or contradict each other.
    #[error("the limits cannot be used: {}", list(.0))]
    Limits(Vec<InvalidLimit>),
    /// Clients could not ask for the version that they are served.
    #[error("contract version {0} is in force, but not among the supported versions")]
    Unsupported(ContractVersion),
}

/// Why a change was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the limits cannot be used: {}", list(.0))]
pub struct Refused(pub Vec<InvalidLimit>);

/// Starts the plane.
pub fn run(config: Config) -> Result<Handle, Error> {
    let Config { limits, sources, contract, mut supported_versions, deprecation_policy, schema_digest } =
        config;
    limits.check().map_err(Error::Limits)?;
    if !supported_versions.contains(&contract.version) {
        return Err(Error::Unsupported(contract.version));
    }
    supported_versions.sort_unstable();
    supported_versions.dedup();
    let contract = ContractView { current: contract, supported_versions, deprecation_policy, schema_digest };
    let state = State::new(limits, sources, contract);
    let (view, _) = watch::channel(Arc::new(state.view()));
    Ok(Handle { shared: Arc::new(Shared { state: Mutex::new(state), view }) })
}

/// Changes and shows the state; cheap to clone. The state lives as long as a handle or a receiver does.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Guards the state, and the order in which its views are sent.
    state: Mutex<State>,
    view: watch::Sender<Arc<ControlView>>,
}

impl Handle {
    /// The view, and every later one.
    pub fn watch(&self) -> watch::Receiver<Arc<ControlView>> {
        self.shared.view.subscribe()
    }

    /// Puts other thresholds in force; those whose value changes are then `control`'s.
    pub fn set_limits(&self, limits: Limits) -> Result<(), Refused> {
        // A panic in `apply` would leave the state as it was: it changes nothing before it has checked.
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.apply(Command::SetLimits { limits }) {
            Outcome::Changed(_) => {
                self.shared.view.send_replace(Arc::new(state.view()));
                Ok(())
            }
            Outcome::Unchanged => Ok(()),
            Outcome::Refused(mistakes) => Err(Refused(mistakes)),
        }
    }
}

/// `sha256:` and the digest of a published document.
pub fn digest(document: &str) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(document.as_bytes()) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn list(mistakes: &[InvalidLimit]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
        Config::standalone(Limits::default(), BTreeMap::new(), contract)
    }

    #[test]
    fn a_watcher_sees_the_first_view_and_each_change() {
        let handle = run(config()).unwrap();
        let mut view = handle.watch();
        assert_eq!((view.borrow().revision.term, view.borrow().revision.index), (1, 1));
        assert!(view.borrow().contract.schema_digest.starts_with("sha256:"));
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
        let handle = run(config()).unwrap();
        let refused = handle.set_limits(Limits { outbox_frames_max: 0, ..Limits::default() }).unwrap_err();
        assert!(refused.to_string().contains("outbox_frames_max must be between 8"));
        assert_eq!(handle.watch().borrow().revision.index, 1);
    }

    #[test]
    fn the_version_in_force_must_be_supported() {
        let config = Config { supported_versions: Vec::new(), ..config() };
        assert!(run(config).unwrap_err().to_string().contains("1.0.0 is in force, but not among"));
    }
}
