//! The hub: everything that is written to sessions goes through here.
//!
//! A hub is a handful of shards, one thread each. A shard owns its sockets, its sessions and its own copy
//! of every log, so that fanning out and joining take no lock. The rest of the node talks to a shard only
//! through its mailbox. The hub knows neither the bus nor HTTP.

mod books;
mod catch_up;
mod connection;
#[cfg(feature = "counted")]
pub(crate) mod counted;
mod frame;
mod gauges;
mod outbox;
mod pending;
mod registry;
mod shard;
mod socket;
#[cfg(test)]
pub(crate) mod testing;
mod view;
mod wheel;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hiveops_proto::ConnectionId;
use hiveops_proto::control::ControlView;
use hiveops_proto::id::UserId;
use tokio::sync::{oneshot, watch};

pub(crate) use books::{Account, Books, Dropped};
pub(crate) use frame::Publication;
pub(crate) use gauges::Gauges;
pub(crate) use registry::{Full, Registration, Registry, SessionInfo};
pub(crate) use shard::{
    Admission, Answers, Command, Hints, Intent, Mailbox, Refused, ShardError, Shared, Stop, Working,
};

use crate::admission::Era;
use crate::bus::Reset;
use crate::catalog::{Catalog, SubId};
use crate::session::Ending;
use shard::{Handle, Turn};

/// All shards of the node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    mailboxes: Vec<Mailbox>,
    gauges: Vec<Arc<Gauges>>,
    registry: Registry,
    /// Where the next session goes: round robin, since every session costs about the same.
    next: AtomicUsize,
    /// Whether the shards were told to stop. Each ends when its last session has gone; from then on it is
    /// passed over, while the others go on.
    stopping: AtomicBool,
    /// How many publications and resets have begun to go out. Only the receive loop sends them, one after
    /// the other.
    begun: AtomicU64,
    /// How many of them are in every mailbox.
    ended: watch::Sender<u64>,
}

/// One publication or reset on its way into the mailboxes; it has ended when this is dropped, also when
/// the receive loop is stopped half way.
struct Round<'a> {
    inner: &'a Inner,
    number: u64,
}

/// The threads of the shards: joined by whoever started them.
pub(crate) struct Threads {
    handles: Vec<Handle>,
}

/// The books of all shards, each as of one moment of its own between two fan-outs.
#[derive(Debug)]
pub(crate) struct Audit {
    pub(crate) books: Books,
    /// Shards whose books are older, because they did not answer in time.
    pub(crate) unanswered: usize,
}

/// A shard has stopped taking commands; the node cannot go on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shard has ended")]
pub(crate) struct Ended;

impl Hub {
    /// Starts `count` shards, each from the logs as they are now.
    pub(crate) fn start(count: usize, shared: &Arc<Shared>) -> Result<(Self, Threads), ShardError> {
        let mut handles = Vec::new();
        for index in 0..count.max(1) {
            handles.push(shard::start(index, Arc::clone(shared))?);
        }
        let mailboxes = handles.iter().map(|handle| handle.mailbox.clone()).collect();
        let gauges = handles.iter().map(|handle| Arc::clone(&handle.gauges)).collect();
        let registry = shared.registry.clone();
        let (next, begun, ended) = (AtomicUsize::new(0), AtomicU64::new(0), watch::Sender::new(0));
        let stopping = AtomicBool::new(false);
        let inner = Inner { mailboxes, gauges, registry, next, stopping, begun, ended };
        Ok((Self { inner: Arc::new(inner) }, Threads { handles }))
    }

    /// Sends a publication to every session that is joined. Waits for room in the mailboxes: a shard that
    /// is behind slows the reading of the bus down, and loses nothing.
    pub(crate) async fn fan_out(&self, publication: Arc<Publication>) -> Result<(), Ended> {
        let _round = self.inner.begin_round();
        let passed_over = self.inner.tell_all(|| Command::Publish(Arc::clone(&publication))).await?;
        // A shard that has ended has no sessions to go through.
        for _ in 0..passed_over {
            publication.walked();
        }
        Ok(())
    }

    /// Replaces a log by what is left of it.
    pub(crate) async fn reset(&self, reset: Reset, entries: Vec<Arc<Publication>>) -> Result<(), Ended> {
        let _round = self.inner.begin_round();
        let reset = Arc::new(reset);
        let entries: Arc<[Arc<Publication>]> = entries.into();
        self.inner.tell_all(|| Command::Reset(Arc::clone(&reset), Arc::clone(&entries))).await.map(drop)
    }

    /// Puts another control view in force, and the contract that goes with it.
    pub(crate) async fn control(&self, view: &Arc<ControlView>, catalog: &Arc<Catalog>) -> Result<(), Ended> {
        self.inner.tell_all(|| Command::Control(Arc::clone(view), Arc::clone(catalog))).await.map(drop)
    }

    /// Chooses so many sessions of an era, or of a user in it, to end for a limit of the cluster, the youngest
    /// first, and returns whose they are. [`Hub::review`] ends them.
    pub(crate) fn condemn(&self, count: u64, era: Era, user: Option<&UserId>) -> Vec<Option<UserId>> {
        self.inner.registry.condemn(count, era, user)
    }

    /// Has every session ended that has lost its place.
    pub(crate) async fn review(&self) -> Result<(), Ended> {
        self.inner.tell_all(|| Command::Review).await.map(drop)
    }

    /// The shard that the next session goes to.
    pub(crate) fn next_shard(&self) -> usize {
        self.inner.next.fetch_add(1, Ordering::Relaxed) % self.inner.mailboxes.len()
    }

    /// Hands a socket to a shard.
    ///
    /// Its client may have been on another shard just now, and may have seen there what is still on its
    /// way to this one. It would then know more than the shard, and get a snapshot from the past; so what
    /// is on its way goes first.
    pub(crate) async fn admit(&self, shard: usize, admission: Admission) -> Result<(), Ended> {
        let begun = self.inner.begun.load(Ordering::Acquire);
        // The sender is in `self`, so this only fails when nobody is left to ask.
        self.inner.ended.subscribe().wait_for(|ended| *ended >= begun).await.map_err(|_| Ended)?;
        match self.inner.mailboxes.get(shard) {
            Some(mailbox) => mailbox.send(Command::Admit(Box::new(admission))).await,
            None => Err(Ended),
        }
    }

    /// Ends one session of this node with a notice; false when there is none of that name.
    pub(crate) async fn disconnect(&self, id: &ConnectionId, ending: Ending) -> Result<bool, Ended> {
        let Some(mailbox) = self.inner.registry.shard_of(id).and_then(|at| self.inner.mailboxes.get(at))
        else {
            return Ok(false);
        };
        let (reply, found) = oneshot::channel();
        mailbox.send(Command::Disconnect { id: id.clone(), ending, reply }).await?;
        found.await.map_err(|_| Ended)
    }

    /// Has every shard close its books within a time, and adds them up. One that does not answer is in the sum
    /// with its last ones, and so is one that has ended.
    pub(crate) async fn audit(&self, within: Duration) -> Audit {
        let asked = self.inner.mailboxes.iter().map(|mailbox| tokio::time::timeout(within, mailbox.audit()));
        let answers = futures_util::future::join_all(asked).await;
        // An error in time says that the shard has ended, and its last books are its final ones.
        let unanswered = answers.iter().filter(|answer| answer.is_err()).count();
        Audit { books: self.books(), unanswered }
    }

    /// The books that the shards have shown last, whoever asked for them. They never go back.
    pub(crate) fn books(&self) -> Books {
        let mut books = Books::default();
        self.inner.gauges.iter().for_each(|gauges| books.add(&gauges.books()));
        books
    }

    /// Ends every session, each in its turn, and then the shards. Called again, it gives those who are left
    /// other turns.
    pub(crate) async fn stop(&self, stop: Stop) {
        self.inner.stopping.store(true, Ordering::Release);
        let sessions: Vec<usize> = self.inner.gauges.iter().map(|gauges| gauges.sessions()).collect();
        for (mailbox, turn) in self.inner.mailboxes.iter().zip(Turn::deal(&sessions)) {
            // One that has ended already needs no telling.
            let _ = mailbox.send(Command::Stop(stop, turn)).await;
        }
    }

    /// Ends when a shard has ended.
    pub(crate) async fn ended(&self) {
        let ended = self.inner.mailboxes.iter().map(|mailbox| Box::pin(mailbox.ended()));
        futures_util::future::select_all(ended).await;
    }

    /// Sessions joined to a subscription.
    pub(crate) fn joined(&self, sub: SubId) -> usize {
        self.inner.gauges.iter().map(|gauges| gauges.joined(sub)).sum()
    }

    /// Sessions of the node.
    pub(crate) fn sessions(&self) -> usize {
        self.inner.gauges.iter().map(|gauges| gauges.sessions()).sum()
    }

    /// Frames that wait in outboxes.
    pub(crate) fn outbox_frames(&self) -> usize {
        self.inner.gauges.iter().map(|gauges| gauges.outbox_frames()).sum()
    }
}

impl Inner {
    fn begin_round(&self) -> Round<'_> {
        Round { inner: self, number: self.begun.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    /// Tells every shard, and returns how many were passed over because they have ended in a stop.
    async fn tell_all(&self, command: impl Fn() -> Command) -> Result<usize, Ended> {
        let mut passed_over = 0;
        for mailbox in &self.mailboxes {
            if let Err(ended) = mailbox.send(command()).await {
                if !self.stopping.load(Ordering::Acquire) {
                    return Err(ended);
                }
                passed_over += 1;
            }
        }
        Ok(passed_over)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.inner.ended.send_replace(self.number);
    }
}

impl Threads {
    /// Waits until every shard has ended, and says how; blocks.
    pub(crate) fn join(self) -> Result<(), ShardError> {
        let mut result = Ok(());
        for handle in self.handles {
            let ended = handle.thread.join().unwrap_or(Err(ShardError::Panicked));
            result = result.and(ended);
        }
        result
    }
}
