//! One replica's part in the agreement: what the rest of the crate can ask it, in words of our own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ChangeMembershipError, CheckIsLeaderError, ClientWriteError, Fatal, RaftError};
use openraft::{BasicNode, ChangeMembers, Raft, ServerState, Snapshot, SnapshotPolicy};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::log_store::{LogError, LogStore};
use super::machine_store::{MachineError, MachineStore};
use super::network::Network;
#[cfg(test)]
use super::simulated::Bell;
use super::{Answer, Counts, Fault, Machine, Proposal, Types, codec};
#[cfg(test)]
use crate::sim::planted::{Planted, is_planted};
use crate::wire::Link;

/// Also how long a message with entries may take, so that it leaves room for a slow disk.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// For this long after a leader's message nobody votes for another one.
const LEASE: Duration = Duration::from_millis(600);
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);
/// This part of the entries between two snapshots is kept behind one, for followers that were away for a moment.
const KEPT_PART: u64 = 5;
/// A leader that no quorum has answered for this long, or a follower that has heard of none, may be behind.
const FRESH: Duration = Duration::from_secs(1);
/// A learner this close behind is about to have everything, and may vote.
const NEARLY: u64 = 100;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Group {
    id: u64,
    raft: Raft<Types>,
    log: LogStore,
    fault: Fault,
    counts: Counts,
    /// When a leader's message was last accepted, or a vote given to a candidate.
    heard: Arc<Mutex<Option<Instant>>>,
    opened: Instant,
    #[cfg(test)]
    bell: Bell,
}

/// Why a replica cannot take part.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("{0}")]
    Library(String),
}

/// Why nothing was decided, or it is not known what was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecided {
    /// Another replica leads, or none.
    #[error("this replica does not lead")]
    NotLeader,
    /// No quorum has answered in time. What was proposed may still be decided later.
    #[error("no quorum of replicas has answered in time")]
    NoQuorum,
    /// The replicas refuse to change their number just now or like that.
    #[error("{0}")]
    Refused(String),
    /// The replica has stopped.
    #[error("this replica has stopped")]
    Stopped,
}

/// What a replica knows of the agreement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) role: &'static str,
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) leads: bool,
    pub(crate) last_log: Option<u64>,
    pub(crate) last_applied: Option<u64>,
    pub(crate) members: BTreeMap<u64, Member>,
}

/// Another replica, or this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: String,
    pub(crate) voter: bool,
    /// Known by the leader only.
    pub(crate) lag: Option<u64>,
}

impl Standing {
    pub(crate) fn has_vote(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| member.voter)
    }

    /// The members that have a vote.
    pub(crate) fn voters(&self) -> impl Iterator<Item = (&u64, &Member)> + Clone {
        self.members.iter().filter(|(_, member)| member.voter)
    }
}

impl Group {
    /// Reads what is on the disk and begins to take part, as far as it is a member of anything.
    pub(crate) async fn open(
        id: u64,
        directory: &Path,
        machine: Box<dyn Machine>,
        link: Link,
        snapshot_entries: u64,
    ) -> Result<Self, OpenError> {
        let (fault, counts) = (Fault::default(), Counts::new());
        let mut log = LogStore::open(directory, &fault)?;
        log.step_back(id);
        let machine = MachineStore::open(directory, machine, &fault, &counts)?;
        log.keep_what_is_not_in(machine.covered());
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: "hiveops".to_owned(),
            heartbeat_interval: millis(HEARTBEAT),
            // Only the lease is taken from it: elections are begun by `replica::elect`.
            election_timeout_min: millis(LEASE) - 1,
            election_timeout_max: millis(LEASE),
            enable_elect: false,
            install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_entries),
            max_in_snapshot_log_to_keep: snapshot_entries / KEPT_PART,
            replication_lag_threshold: snapshot_entries * 2,
            ..openraft::Config::default()
        };
        let config = config.validate().map_err(|error| OpenError::Library(error.to_string()))?;
        let raft =
            Raft::new(id, Arc::new(config), Network { link, counts: counts.clone() }, log.clone(), machine)
                .await;
        let raft =
            raft.map_err(|error| OpenError::Library(fault.get().unwrap_or_else(|| error.to_string())))?;
        Ok(Self {
            id,
            #[cfg(test)]
            bell: Bell::of(raft.metrics()),
            raft,
            log,
            fault,
            counts,
            heard: Arc::default(),
            opened: Instant::now(),
        })
    }

    /// Has never been part of anything.
    pub(crate) fn is_pristine(&self) -> bool {
        self.log.is_pristine()
    }

    /// Term and index of the last entry.
    pub(crate) fn last_entry(&self) -> Option<(u64, u64)> {
        self.log.last().map(|log_id| (log_id.leader_id.term, log_id.index))
    }

    /// What happened beneath the agreement.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The size of the log's files.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// Makes a cluster of replicas that are all pristine. Doing it on several of them with the same list is
    /// the same as on one.
    pub(crate) async fn begin(&self, members: &BTreeMap<u64, String>) -> Result<(), Undecided> {
        let nodes: BTreeMap<u64, BasicNode> =
            members.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
        match self.raft.initialize(nodes).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(error)) => Err(Undecided::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(Undecided::Stopped),
        }
    }

    /// Has a proposal agreed on and applied, and returns its outcome.
    pub(crate) async fn propose(&self, proposal: String, deadline: Instant) -> Result<String, Undecided> {
        let written = timeout_at(deadline, self.raft.client_write(Proposal(proposal))).await;
        match written.map_err(|_| Undecided::NoQuorum)? {
            Ok(response) => {
                let Answer(outcome) = response.data;
                Ok(outcome.expect("a proposal has an outcome"))
            }
            Err(error) => Err(undecided(error)),
        }
    }

    /// Waits until the machine shows everything that was decided before the call.
    pub(crate) async fn catch_up(&self, deadline: Instant) -> Result<(), Undecided> {
        #[cfg(test)]
        if is_planted(Planted::ReadWithoutQuorum) {
            return Ok(());
        }
        let read = timeout_at(deadline, self.raft.get_read_log_id()).await;
        match read.map_err(|_| Undecided::NoQuorum)? {
            Ok((read, _)) => {
                let applied = timeout_at(deadline, self.applied(read.map(|read| read.index))).await;
                applied.map_err(|_| Undecided::NoQuorum)
            }
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => Err(Undecided::NotLeader),
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Err(Undecided::NoQuorum),
            Err(RaftError::Fatal(_)) => Err(Undecided::Stopped),
        }
    }

    /// Waits until the machine shows an entry and all before it.
    async fn applied(&self, index: Option<u64>) {
        let mut changes = self.changes();
        while self.standing().last_applied < index {
            changes.next().await;
        }
    }

    /// Lets a replica follow without a vote.
    pub(crate) async fn add(&self, id: u64, address: &str, deadline: Instant) -> Result<(), Undecided> {
        let added = timeout_at(deadline, self.raft.add_learner(id, BasicNode::new(address), false)).await;
        added.map_err(|_| Undecided::NoQuorum)?.map(|_| ()).map_err(undecided)
    }

    /// Gives a replica that follows a vote.
    pub(crate) async fn promote(&self, id: u64, deadline: Instant) -> Result<(), Undecided> {
        let standing = self.standing();
        match standing.members.get(&id) {
            None if standing.leads => {
                return Err(Undecided::Refused(format!("replica {id} is not a member; add it first")));
            }
            Some(Member { voter: true, .. }) => return Ok(()),
            Some(Member { lag, .. }) if standing.leads && lag.is_none_or(|lag| lag > NEARLY) => {
                let lag = lag.map_or("an unknown number of".to_owned(), |lag| lag.to_string());
                return Err(Undecided::Refused(format!(
                    "replica {id} is {lag} entries behind; wait a little"
                )));
            }
            Some(_) | None => {}
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), deadline).await
    }

    /// Takes a replica out, with its vote.
    pub(crate) async fn remove(&self, id: u64, deadline: Instant) -> Result<(), Undecided> {
        let standing = self.standing();
        let voters = standing.voters().count();
        match standing.members.get(&id) {
            None => Ok(()),
            Some(Member { voter: true, .. }) if voters == 1 => {
                Err(Undecided::Refused(format!("replica {id} is the only one that has a vote")))
            }
            Some(Member { voter: true, .. }) => {
                self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), deadline).await
            }
            Some(_) => self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), deadline).await,
        }
    }

    /// Writes down that a member is at another address now.
    pub(crate) async fn move_to(&self, id: u64, address: &str, deadline: Instant) -> Result<(), Undecided> {
        let nodes = BTreeMap::from([(id, BasicNode::new(address))]);
        self.change(ChangeMembers::SetNodes(nodes), deadline).await
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, BasicNode>,
        deadline: Instant,
    ) -> Result<(), Undecided> {
        let changed = timeout_at(deadline, self.raft.change_membership(change, false)).await;
        changed.map_err(|_| Undecided::NoQuorum)?.map(|_| ()).map_err(undecided)
    }

    /// Stops telling the others that it leads, until what is returned is dropped: after [`Group::lease`] they
    /// elect whoever asks.
    pub(crate) fn fall_silent(&self) -> Silent<'_> {
        self.raft.runtime_config().heartbeat(false);
        Silent(self)
    }

    /// How long a follower stays with a leader that it hears nothing of.
    pub(crate) fn lease() -> Duration {
        LEASE
    }

    /// For how long this replica has heard of no leader and no candidate.
    pub(crate) fn silence(&self) -> Duration {
        match *self.heard.lock() {
            Some(at) => at.elapsed(),
            // Nobody who was there before the start is owed any patience.
            None => self.opened.elapsed() + LEASE,
        }
    }

    /// Asks the others for their votes now.
    pub(crate) async fn elect(&self) -> Result<(), Undecided> {
        self.counts.elections.inc();
        self.raft.trigger().elect().await.map_err(|_| Undecided::Stopped)
    }

    pub(crate) fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let voters: BTreeSet<u64> = metrics.membership_config.membership().voter_ids().collect();
        let lag = |id: u64| {
            let matched =
                metrics.replication.as_ref()?.get(&id)?.as_ref().map_or(0, |log_id| log_id.index + 1);
            Some(metrics.last_log_index.map_or(0, |last| last + 1).saturating_sub(matched))
        };
        let member = |(id, node): (&u64, &BasicNode)| {
            let member = Member { address: node.addr.clone(), voter: voters.contains(id), lag: lag(*id) };
            (*id, member)
        };
        Standing {
            role: match metrics.state {
                ServerState::Learner => "learner",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Leader => "leader",
                ServerState::Shutdown => "stopped",
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            // A leader that was removed is still named as one, but decides nothing any more.
            leads: metrics.state == ServerState::Leader && metrics.current_leader == Some(self.id),
            last_log: metrics.last_log_index,
            last_applied: metrics.last_applied.map(|log_id| log_id.index),
            members: metrics.membership_config.membership().nodes().map(member).collect(),
        }
    }

    /// Where the leader is, when it is another one.
    pub(crate) fn leader(&self) -> Option<(u64, String)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some((leader, node.addr.clone()))
    }

    /// Whether what this replica knows is as good as current.
    pub(crate) fn is_fresh(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.current_leader == Some(self.id) {
            // The only voter is a quorum by itself, and nobody acknowledges anything to it.
            let alone = metrics.membership_config.membership().voter_ids().count() == 1;
            let millis = u128::from(metrics.millis_since_quorum_ack.unwrap_or(u64::MAX));
            return alone || millis < FRESH.as_millis();
        }
        metrics.current_leader.is_some() && self.heard.lock().is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Waits for the next change of what [`Group::standing`] shows.
    pub(crate) fn changes(&self) -> Changes {
        Changes {
            metrics: self.raft.metrics(),
            #[cfg(test)]
            bell: self.bell.clone(),
        }
    }

    /// Why the replica cannot go on, once it cannot.
    pub(crate) async fn failed(&self) -> String {
        let mut changes = self.changes();
        loop {
            let stopped = self.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string);
            if let Some(stopped) = stopped {
                return self.fault.get().unwrap_or(stopped);
            }
            changes.next().await;
        }
    }

    /// Ends in order: what was acknowledged is on the disk already.
    pub(crate) async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(error = %error, "replica did not stop in order");
        }
    }

    /// Takes entries from a leader.
    pub(crate) async fn append(&self, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let answer = self.raft.append_entries(read(body)?).await;
        if matches!(&answer, Ok(answer) if !matches!(answer, openraft::raft::AppendEntriesResponse::HigherVote(_)))
        {
            *self.heard.lock() = Some(Instant::now());
        }
        write(answer)
    }

    /// Is asked for its vote.
    pub(crate) async fn vote(&self, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let answer = self.raft.vote(read(body)?).await;
        if answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
            *self.heard.lock() = Some(Instant::now());
        }
        write(answer)
    }

    /// Takes a snapshot from a leader; none when the bytes are none.
    pub(crate) async fn snapshot(&self, body: &[u8]) -> Option<Vec<u8>> {
        let (vote, snapshot) = body.split_at_checked(codec::VOTE_BYTES)?;
        let vote = codec::read_vote(vote).ok()?;
        let (meta, data) = codec::read_snapshot(snapshot).ok()?;
        let snapshot = Snapshot { meta, snapshot: Box::new(data) };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        serde_json::to_vec(&installed).ok()
    }
}

/// The leader is silent as long as this exists, however that ends.
pub(crate) struct Silent<'a>(&'a Group);

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        self.0.raft.runtime_config().heartbeat(true);
    }
}

/// Tells of changes.
pub(crate) struct Changes {
    metrics: Metrics,
    #[cfg(test)]
    bell: Bell,
}

pub(super) type Metrics = watch::Receiver<openraft::RaftMetrics<u64, BasicNode>>;

impl Changes {
    /// Cancel-safe: a change that nobody waited for is told the next time.
    pub(crate) async fn next(&mut self) {
        #[cfg(not(test))]
        let changed = self.metrics.changed();
        #[cfg(test)]
        let changed = self.bell.changed(&mut self.metrics);
        if changed.await.is_err() {
            // The replica has stopped, and nothing will change any more.
            std::future::pending::<()>().await;
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
}

/// What the other side's [`super::network`] expects: an answer, or that this replica has failed.
fn write<T: Serialize>(answer: Result<T, RaftError<u64>>) -> Result<Vec<u8>, serde_json::Error> {
    let answer: Result<T, Fatal<u64>> = answer.map_err(|error| match error {
        RaftError::Fatal(fatal) => fatal,
        RaftError::APIError(never) => match never {},
    });
    serde_json::to_vec(&answer)
}

fn undecided(error: RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Undecided {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Undecided::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => {
                Undecided::Refused("another change of the members is under way; try again".to_owned())
            }
            error @ (ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::LearnerNotFound(_)) => Undecided::Refused(error.to_string()),
        },
        RaftError::Fatal(_) => Undecided::Stopped,
    }
}
