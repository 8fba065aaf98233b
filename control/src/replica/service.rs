//! What can be asked of a replica, whichever it is: what needs the leader is done here when it leads, and
//! sent on to the leader when another one does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hiveops_proto::Timestamp;
use hiveops_proto::control::{ControlMember, ControlStatus};
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::IdempotencyKey;
use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::ask::{Ask, Asked, DECISION, Decided, Refused, Told, no_quorum, refused};
use super::peers::{Peers, check_address};
use super::plane::Plane;
use super::users::NewAccount;
use crate::auth::Auth;
use crate::chance::Chance;
use crate::clock::{TermClock, Wall};
use crate::config::Config;
use crate::key_pair;
use crate::metrics::{Metrics, ProposalOutcome};
use crate::raft::{Group, Standing};
use crate::state::{Action, Command, Outcome, Rotation};
use crate::storage::Directory;
use crate::wire::{ADOPT, ASK, HELLO, Link, LostKind};

/// Between two tries to reach a leader that has just gone.
const PAUSE: Duration = Duration::from_millis(25);
const HELLO_TIMEOUT: Duration = Duration::from_millis(500);

/// Shared by the API and by what the replica does by itself.
pub(crate) struct Service {
    pub(crate) config: Config,
    /// Where the others reach this replica.
    pub(crate) address: String,
    pub(crate) group: Group,
    pub(crate) plane: Plane,
    pub(crate) link: Link,
    pub(crate) metrics: Metrics,
    pub(crate) chance: Chance,
    pub(super) auth: Auth,
    /// Tells this process from another one that says it is the same replica.
    pub(crate) incarnation: String,
    directory: Mutex<Directory>,
    clock: TermClock,
    /// The lead is being handed over: whatever is sent to the others now would keep them with this leader.
    pub(super) leaving: AtomicBool,
}

/// How a replica introduces itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) id: u64,
    pub(crate) incarnation: String,
    pub(crate) cluster: Option<String>,
    /// It has never been part of anything.
    pub(crate) pristine: bool,
    /// The list that it was started with.
    pub(crate) peers: String,
    /// The members that it knows, and where they are.
    pub(crate) members: BTreeMap<u64, String>,
    /// It leads, and a quorum has said so lately.
    pub(crate) leads: bool,
    /// It has heard of a leader or a candidate within a lease, so that it would not vote for another one.
    pub(crate) hears: bool,
    /// Term and index of its last entry: it would not vote for a replica that has less.
    pub(crate) last_entry: Option<(u64, u64)>,
}

/// What a replica takes from its machine besides disk and network.
pub(crate) struct Outside {
    pub(crate) chance: Chance,
    pub(crate) wall: Wall,
}

impl Service {
    pub(crate) fn new(
        config: Config,
        address: String,
        group: Group,
        plane: Plane,
        link: Link,
        directory: Directory,
        Outside { chance, wall }: Outside,
    ) -> Self {
        let (directory, clock) = (Mutex::new(directory), TermClock::new(wall));
        let (metrics, incarnation) = (Metrics::new(group.counts()), chance.name().to_string());
        Self {
            config,
            address,
            group,
            plane,
            link,
            metrics,
            chance,
            auth: Auth::new(),
            incarnation,
            directory,
            clock,
            leaving: AtomicBool::new(false),
        }
    }

    /// Has something decided.
    pub(crate) async fn propose(
        &self,
        request: Option<IdempotencyKey>,
        action: Action,
    ) -> Result<Decided, Refused> {
        let request = request.or_else(|| self.name());
        decided(self.ask(Ask::Propose { request, action }).await?)
    }

    /// Has something decided that is not remembered by a name: a repetition is told by what it says. Nodes
    /// renew their leases all the time, and would push out the names that people rely on.
    pub(crate) async fn propose_unnamed(&self, action: Action) -> Result<Decided, Refused> {
        decided(self.ask(Ask::Propose { request: None, action }).await?)
    }

    /// Lets a new key take over the signing of tokens.
    pub(crate) async fn rotate(
        &self,
        request: Option<IdempotencyKey>,
        rotation: Rotation,
    ) -> Result<Decided, Refused> {
        let request = request.or_else(|| self.name());
        decided(self.ask(Ask::Rotate { request, rotation }).await?)
    }

    /// The time in the plane, as this replica reckons it; that of commands, if it leads.
    pub(crate) fn now(&self, standing: &Standing) -> Timestamp {
        self.clock.now(standing.term, self.plane.read(|state| state.clock()))
    }

    /// With a name it can be sent again when it is not known what became of it.
    pub(crate) fn name(&self) -> Option<IdempotencyKey> {
        IdempotencyKey::new(&self.chance.name().to_string()).ok()
    }

    /// Does what only a leader can, here or there.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Told, Refused> {
        let decision = Instant::now() + DECISION;
        let end = decision.max(Instant::now() + ask.patience());
        let mut changes = self.group.changes();
        loop {
            let leads = self.group.standing().leads;
            if leads {
                match self.answer(ask.clone()).await {
                    Err(Asked::NotLeader) => {}
                    Err(Asked::Refused(refused)) => return Err(refused),
                    Ok(told) => return Ok(told),
                }
            } else if let Some((leader, address)) = self.group.leader()
                && let Some(told) = self.forward(&ask, leader, &address, end).await
            {
                return told;
            }
            let pause = async {
                tokio::select! {
                    biased;
                    // A try of its own changes what the library shows; it must not lead to the next at once.
                    () = changes.next(), if !leads => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            };
            if timeout_at(decision, pause).await.is_err() {
                return Err(no_quorum("no leader has been found in time"));
            }
        }
    }

    /// None when it was not the leader or could not be reached, so that another try makes sense: everything
    /// that is forwarded may be done twice.
    async fn forward(
        &self,
        ask: &Ask,
        leader: u64,
        address: &str,
        end: Instant,
    ) -> Option<Result<Told, Refused>> {
        let body = Bytes::from(serde_json::to_vec(ask).expect("a question has only text as keys"));
        let left = end.saturating_duration_since(Instant::now());
        match self.link.post(address, leader, ASK, body, left).await {
            Ok((StatusCode::OK, body)) => {
                let internal =
                    |error: serde_json::Error| Refused::new(ProblemKind::Internal, error.to_string());
                Some(serde_json::from_slice(&body).map_err(internal).and_then(|told| told))
            }
            // It does not lead any more, or does not know yet that it does.
            Ok(_) => None,
            Err(error) if error.kind == LostKind::Timeout && Instant::now() >= end => {
                Some(Err(no_quorum("the leader has not answered in time")))
            }
            Err(_) => None,
        }
    }

    /// Does it, if this replica leads.
    pub(crate) async fn answer(&self, ask: Ask) -> Result<Told, Asked> {
        let standing = self.group.standing();
        if !standing.leads || self.leaving.load(Ordering::SeqCst) {
            return Err(Asked::NotLeader);
        }
        let deadline = Instant::now() + ask.patience();
        if ask.patience() > DECISION && !self.group.is_fresh() {
            return Err(Asked::Refused(no_quorum("the leader has lost its quorum")));
        }
        match ask {
            Ask::Propose { request, action } => self.decide(&standing, request, action, deadline).await,
            Ask::PreviewLimits { patch } => {
                self.group.catch_up(deadline).await?;
                let changes = self.plane.read(|state| state.preview_limits(&patch));
                Ok(Told::Limits(changes.map_err(refused)?))
            }
            Ask::PreviewContract { push } => {
                self.group.catch_up(deadline).await?;
                let pushed = self.plane.read(|state| state.preview_contract(&push));
                Ok(Told::Contract(Box::new(pushed.map_err(refused)?)))
            }
            Ask::Rotate { request, rotation } => {
                let made = key_pair::make(&self.chance);
                let key = made.map_err(|error| Refused::new(ProblemKind::Internal, error.to_string()))?;
                let action = Action::RotateKey { key, rotation, overlap: self.config.tokens.overlap };
                self.decide(&standing, request, action, deadline).await
            }
            Ask::Keys => {
                self.group.catch_up(deadline).await?;
                let now = self.now(&standing);
                Ok(Told::Keys(self.plane.read(|state| state.keys(now))))
            }
            Ask::View => {
                self.group.catch_up(deadline).await?;
                let view = self.plane.read(|state| state.view());
                let view = view.ok_or_else(|| no_quorum("the cluster has no first state yet"))?;
                Ok(Told::View(Box::new(view)))
            }
            Ask::Login { email, password, address } => {
                self.log_in(&standing, &email, password, address.as_deref(), deadline).await
            }
            Ask::Refresh { token } => self.refresh(&standing, &token, deadline).await,
            Ask::Logout { family } => self.log_out(&standing, family, deadline).await,
            Ask::LogoutBy { token } => self.log_out_by(&standing, &token, deadline).await,
            Ask::AddUser { request, email, full_name, role, password } => {
                let new = NewAccount { email, full_name, role, password };
                self.add_user(&standing, request, new, deadline).await
            }
            Ask::SetPassword { request, user, password } => {
                self.set_password(&standing, request, user, password, deadline).await
            }
            Ask::User { id } => self.user(&id, deadline).await,
            Ask::Users => self.users(deadline).await,
            Ask::Add { id, address } => self.add(id, &address, deadline).await,
            Ask::Promote { id } => Ok(self.group.promote(id, deadline).await.map(|()| Told::Done)?),
            Ask::Remove { id } => Ok(self.group.remove(id, deadline).await.map(|()| Told::Done)?),
            Ask::Transfer { to } => self.transfer(&standing, to, deadline).await,
        }
    }

    pub(super) async fn decide(
        &self,
        standing: &Standing,
        request: Option<IdempotencyKey>,
        action: Action,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        if !matches!(action, Action::Init(_)) && self.plane.read(|state| state.cluster_id().is_none()) {
            // The first state is on its way.
            return Err(Asked::NotLeader);
        }
        let command = Command::new(self.now(standing), request, action);
        let command = serde_json::to_string(&command).expect("a command has only text as keys");
        let begun = Instant::now();
        let outcome = self.group.propose(command, deadline).await.inspect_err(|undecided| {
            self.metrics.proposed(undecided.into(), begun.elapsed());
        })?;
        let outcome: Outcome = serde_json::from_str(&outcome).expect("we have just written it");
        self.metrics.proposed(ProposalOutcome::of(&outcome), begun.elapsed());
        match outcome {
            Outcome::Done { revision, changed, reply } => {
                let (leader, term) = (self.config.id, standing.term);
                Ok(Told::Decided(Decided { revision, changed, reply, leader, term }))
            }
            Outcome::Refused(refusal) => Err(refused(refusal).into()),
        }
    }

    async fn add(&self, id: u64, address: &str, deadline: Instant) -> Result<Told, Asked> {
        let invalid = |detail: String| Asked::Refused(Refused::new(ProblemKind::InvalidData, detail));
        if check_address(address).is_err() || id == 0 {
            return Err(invalid(format!("`{id}={address}` is not id=host:port")));
        }
        let members = self.group.standing().members;
        if let Some(other) = members.get(&id)
            && other.address != address
        {
            let detail = format!("replica {id} is a member already, at {}", other.address);
            return Err(Refused::new(ProblemKind::AlreadyExists, detail).into());
        }
        if let Some((other, _)) =
            members.iter().find(|(other, member)| **other != id && member.address == address)
        {
            return Err(invalid(format!("{address} is replica {other}")));
        }
        self.adopt(id, address).await.map_err(invalid)?;
        if !members.contains_key(&id) {
            self.group.add(id, address, deadline).await?;
        }
        Ok(Told::Done)
    }

    /// Makes the replica at an address part of this cluster, or finds that it is.
    pub(super) async fn adopt(&self, id: u64, address: &str) -> Result<(), String> {
        let hello = self
            .hello(id, address)
            .await
            .map_err(|error| format!("replica {id} does not answer: {error}"))?;
        if hello.id != id {
            return Err(format!("the replica at {address} has id {}, not {id}", hello.id));
        }
        let cluster = self.link.cluster().ok_or("this replica has no cluster itself")?;
        let body = Bytes::from(cluster);
        match self.link.post(address, id, ADOPT, body, HELLO_TIMEOUT).await {
            Ok((StatusCode::OK, _)) => Ok(()),
            Ok((_, body)) => Err(String::from_utf8_lossy(&body).into_owned()),
            Err(error) => Err(format!("replica {id} does not answer: {error}")),
        }
    }

    /// Asks whoever is at an address who it is.
    pub(super) async fn hello(&self, id: u64, address: &str) -> Result<Hello, String> {
        let answer =
            self.link.get(address, id, HELLO, HELLO_TIMEOUT).await.map_err(|error| error.to_string())?;
        match answer {
            (StatusCode::OK, body) => serde_json::from_slice(&body).map_err(|error| error.to_string()),
            (StatusCode::UNAUTHORIZED, _) => Err("it has another cluster secret".to_owned()),
            (status, _) => Err(format!("it answers {status}")),
        }
    }

    /// Asks another replica for something that only a leader can do.
    pub(super) async fn ask_at(
        &self,
        id: u64,
        address: &str,
        ask: &Ask,
        path: &str,
        timeout: Duration,
    ) -> Result<(), String> {
        let body = Bytes::from(serde_json::to_vec(ask).expect("a question has only text as keys"));
        let answer =
            self.link.post(address, id, path, body, timeout).await.map_err(|error| error.to_string())?;
        let told: Result<Told, Refused> = match answer {
            (StatusCode::OK, body) => serde_json::from_slice(&body).map_err(|error| error.to_string())?,
            (_, body) => return Err(String::from_utf8_lossy(&body).into_owned()),
        };
        told.map(|_| ()).map_err(|refused| refused.detail)
    }

    /// Introduces this replica.
    pub(crate) fn introduce(&self) -> Hello {
        let standing = self.group.standing();
        Hello {
            id: self.config.id,
            incarnation: self.incarnation.clone(),
            cluster: self.link.cluster(),
            pristine: self.group.is_pristine(),
            peers: self.config.peers.to_string(),
            members: standing.members.into_iter().map(|(id, member)| (id, member.address)).collect(),
            leads: standing.leads && self.group.is_fresh(),
            hears: self.group.silence() < Group::lease(),
            last_entry: self.group.last_entry(),
        }
    }

    /// Becomes part of a cluster, unless it is part of another.
    pub(crate) fn be_adopted(&self, cluster: &str) -> Result<(), String> {
        let mut directory = self.directory.lock();
        match &directory.identity().cluster {
            Some(own) if own == cluster => return Ok(()),
            Some(own) => {
                let (id, path) = (self.config.id, directory.path().display());
                return Err(format!("the data directory {path} of replica {id} belongs to cluster {own}"));
            }
            None => {}
        }
        directory.set_cluster(cluster).map_err(|error| error.to_string())?;
        self.link.set_cluster(cluster);
        tracing::info!(cluster, "part of a cluster");
        Ok(())
    }

    /// How this replica is, and what it knows of the others.
    pub(crate) fn status(&self) -> ControlStatus {
        let standing = self.group.standing();
        let members = standing.members.iter().map(|(id, member)| ControlMember {
            id: *id,
            address: member.address.clone(),
            voter: member.voter,
            lag: if *id == self.config.id && standing.leads { Some(0) } else { member.lag },
        });
        ControlStatus {
            id: self.config.id,
            address: self.address.clone(),
            cluster_id: self.link.cluster(),
            role: standing.role.to_owned(),
            term: standing.term,
            leader: standing.leader,
            quorum: self.group.is_fresh(),
            last_log_index: standing.last_log,
            last_applied_index: standing.last_applied,
            revision: self.plane.read(|state| state.view_revision()),
            members: members.collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    pub(super) fn peers(&self) -> &Peers {
        &self.config.peers
    }
}

fn decided(told: Told) -> Result<Decided, Refused> {
    match told {
        Told::Decided(decided) => Ok(decided),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(told: &Told) -> Refused {
    Refused::new(ProblemKind::Internal, format!("the leader answered something else: {told:?}"))
}
