//! The plane of record: the few slow facts that all nodes agree on.
//!
//! A cluster of replicas is [`replica::run`], one replica of it in each process, over HTTP. A node that has no
//! cluster has a plane inside its own process: [`run`] keeps the state and hands out a view that
//! follows each change. The binary starts it and gives nodes only the receiver, so that replicas can take
//! its place without a node noticing. It knows no sockets and no sessions.

#![warn(missing_docs)]

mod api;
mod chance;
mod clock;
pub mod config;
mod raft;
pub mod replica;
#[cfg(test)]
mod sim;
pub mod state;
mod storage;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hiveops_proto::control::{ControlView, DeprecationPolicy, Revision, Source};
use hiveops_proto::id::ClusterId;
use hiveops_proto::{Contract, Limits, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use state::{Action, Command, Init, LEASE_MS, Outcome, State};

/// The cluster of a plane that lives inside its only node.
const STANDALONE: &str = "standalone";

/// What the plane starts from.
#[derive(Debug, Clone)]
pub struct Config {
    /// The thresholds.
    pub limits: Limits,
    /// For each threshold, who set it; one that is missing counts as a default.
    pub sources: BTreeMap<String, Source>,
    /// The contract version in force.
    pub contract: Contract,
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
            contract,
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: digest(hiveops_proto::WS_SCHEMA),
        }
    }
}

/// Why the plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it should start from cannot be used.
    #[error("the control plane cannot start from its configuration: {0}")]
    Refused(Refused),
}

/// Why a change was refused; nothing has changed.
pub use state::Refusal as Refused;

/// Starts the plane.
pub fn run(config: Config) -> Result<Handle, Error> {
    let Config { limits, sources, contract, deprecation_policy, schema_digest } = config;
    let init = Init {
        cluster_id: ClusterId::new(STANDALONE).expect("the name keeps the rule"),
        limits,
        sources,
        contract: document_of(&contract),
        deprecation_policy,
        schema_digest,
        lease_ms: LEASE_MS,
    };
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

/// The text of a contract: as it was published if it is the one of this build, so that digests agree.
fn document_of(contract: &Contract) -> String {
    match Contract::parse(hiveops_proto::CONTRACT) {
        Ok(built_in) if &built_in == contract => hiveops_proto::CONTRACT.to_owned(),
        _ => serde_json::to_string(contract).expect("a contract is plain data"),
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
        let handle = run(config()).unwrap();
        let refused = handle.set_limits(Limits { outbox_frames_max: 0, ..Limits::default() }).unwrap_err();
        assert!(refused.to_string().contains("outbox_frames_max must be between 8"));
        assert_eq!(handle.watch().borrow().revision.index, 1);
    }

    #[test]
    fn nonsense_to_start_from_is_named() {
        let limits = Limits { idle_disconnect_seconds: 0, ..Limits::default() };
        let error = run(Config { limits, ..config() }).unwrap_err();
        assert!(error.to_string().contains("idle_disconnect_seconds must be between 1"), "{error}");
    }
}
