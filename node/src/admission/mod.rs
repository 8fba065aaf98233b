//! Who may come in under the limits of the whole cluster. Handshakes take a [`Place`] here, a session keeps
//! it until its registration is dropped, and the shards learn here when what was borrowed has run out.
//!
//! A node without control replicas borrows nothing: its registry counts, exactly, for this one node. What is
//! to be asked for is decided by the pure [`Holder`]; `renewal` carries it out.

mod holder;
mod renewal;
mod share;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hiveops_proto::id::UserId;
use hiveops_proto::{Limits, NodeId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

pub(crate) use holder::{Era, Standing};
pub(crate) use renewal::{AskOutcome, Renewal};

use crate::time::{Clock, Moment};
use holder::Holder;

/// How long a handshake waits for a place: long enough to ask control, short enough not to be felt.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// Handshakes that may wait at once; beyond it there is no hope for one more within its time.
const WAITING_MAX: u64 = 10_000;

/// A moment that does not come.
const NEVER: u64 = u64::MAX;

/// What the node has borrowed; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// None when nothing is borrowed. Held for one step of the holder, never across an await, and no other
    /// lock is taken meanwhile.
    holder: Option<Mutex<Holder>>,
    /// Written with the lock held, read by the shards without it: when what is held runs out, and how often
    /// it has.
    good_until: AtomicU64,
    era_all: AtomicU64,
    era_users: AtomicU64,
    waiting: AtomicU64,
    /// Wakes handshakes that wait for a place.
    room: Notify,
    /// Wakes the renewal.
    work: Notify,
    phase: watch::Sender<Phase>,
}

/// Why a handshake gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The cluster has as many connections as it may.
    ClusterFull,
    /// The user has.
    UserFull,
    /// The node has not been lent one, and has not heard that there is none: control is slow, or away.
    NotLent,
}

/// How far the node's going away is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last session has gone; control is to be told.
    Ending,
    Ended,
}

/// A session's place under the limits of the cluster; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    inner: Arc<Inner>,
    era: Era,
    user: Option<UserId>,
    /// Whether its session was told to end.
    told: bool,
}

/// A handshake that waits; dropped also when its client goes away.
struct Waiting<'a> {
    inner: &'a Inner,
    user: Option<&'a UserId>,
}

impl Budget {
    /// Borrows for a node; for none, when there is nobody to borrow from.
    pub(crate) fn new(borrower: Option<NodeId>, clock: Clock) -> Self {
        // A later start has a greater number; the random part tells twins apart that start together.
        let millis = u64::try_from(clock.timestamp().as_millis()).unwrap_or(0);
        let incarnation = millis * 1_024 + (crate::time::random() * 1_024.0) as u64;
        let holder = borrower.map(|node| Mutex::new(Holder::new(node, incarnation)));
        let inner = Inner {
            clock,
            holder,
            good_until: AtomicU64::new(NEVER),
            era_all: AtomicU64::new(0),
            era_users: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            room: Notify::new(),
            work: Notify::new(),
            phase: watch::Sender::new(Phase::Open),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a place, or waits a little for one.
    pub(crate) async fn enter(&self, user: Option<UserId>) -> Result<Place, NoPlace> {
        let inner = &self.inner;
        if let Some(place) = inner.take(user.as_ref()) {
            return Ok(place);
        }
        if inner.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return Err(inner.why_none(user.as_ref()));
        }
        let _waiting = Waiting::begin(inner, user.as_ref());
        let freed = async {
            loop {
                let woken = inner.room.notified();
                tokio::pin!(woken);
                // From here on it is woken, so that nothing is missed between the look and the wait.
                woken.as_mut().enable();
                if let Some(place) = inner.take(user.as_ref()) {
                    return place;
                }
                woken.await;
            }
        };
        let place = tokio::time::timeout(WAIT_MAX, freed).await;
        place.map_err(|_| inner.why_none(user.as_ref()))
    }

    /// Grants so many places, for so long from now.
    #[cfg(test)]
    pub(crate) fn grant(&self, total: u64, lease_ms: u64) {
        use hiveops_proto::control::Revision;
        use hiveops_proto::lease::{LeaseAnswer, LeaseGrant};
        self.view(Revision::default(), &Limits { max_connections_total: total, ..Limits::default() });
        self.inner.with(|holder, now| {
            let seq = holder.ask(now).seq;
            let grant = LeaseGrant { seq, lease_ms, total: Some(total), users: None, scarce: false };
            assert!(holder.answer(&LeaseAnswer { grant, revision: Revision::default() }, now));
        });
    }

    /// A place that is there.
    #[cfg(test)]
    pub(crate) fn place(&self) -> Place {
        self.inner.take(None).unwrap()
    }

    /// The same, for a user.
    #[cfg(test)]
    pub(crate) fn place_of(&self, user: &str) -> Place {
        self.inner.take(Some(&UserId::new(user).unwrap())).unwrap()
    }

    /// How often what was held has run out by now. A shard looks at this before anything else, so that a
    /// node that stood still serves nobody on a lease that it has lost meanwhile.
    pub(crate) fn era(&self, now: Moment) -> Era {
        let inner = &self.inner;
        if now.as_millis() >= inner.good_until.load(Ordering::Acquire) {
            inner.with(|holder, now| holder.era(now));
        }
        inner.era()
    }

    /// When a shard has to look, at the latest.
    pub(crate) fn good_until(&self) -> Option<Moment> {
        let until = self.inner.good_until.load(Ordering::Acquire);
        (until != NEVER).then(|| Moment::from_millis(until))
    }

    /// Gives back what sessions leave behind at once: the node goes away.
    pub(crate) fn drain(&self) {
        self.inner.with(|holder, _| holder.drain());
        self.inner.work.notify_one();
    }

    /// The last session has gone: ends the lease, and waits until control knows, or `patience` is over.
    pub(crate) async fn end(&self, patience: Duration) {
        if self.inner.with(|holder, _| holder.end()).is_none() {
            return;
        }
        let mut phase = self.inner.phase.subscribe();
        self.inner.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Open;
            if begins {
                *phase = Phase::Ending;
            }
            begins
        });
        let ended = phase.wait_for(|phase| *phase == Phase::Ended);
        if !matches!(tokio::time::timeout(patience, ended).await, Ok(Ok(_))) {
            tracing::warn!("control did not hear of the end of this node's lease");
        }
    }

    /// None when nothing is borrowed.
    pub(crate) fn standing(&self) -> Option<Standing> {
        self.inner.with(|holder, now| holder.standing(now))
    }

    /// What health says of it.
    pub(crate) fn component(&self) -> Value {
        match self.standing() {
            None => Value::Null,
            Some(Standing { held, used, scarce, age_ms }) => json!({
                "held": held,
                "used": used,
                "scarce": scarce,
                "age_seconds": age_ms.map(|ms| ms as f64 / 1_000.0),
            }),
        }
    }

    /// Puts the limits of a view in force.
    pub(crate) fn view(&self, revision: hiveops_proto::control::Revision, limits: &Limits) {
        self.inner.with(|holder, now| holder.view(revision, limits, now));
        self.inner.room.notify_waiters();
    }

    /// Sessions of an era, each of its user, were told to end because there are too many.
    fn told(&self, era: Era, sessions: Vec<Option<UserId>>) {
        self.inner.with(|holder, _| {
            for user in &sessions {
                holder.told(user.as_ref(), era, 1);
            }
        });
    }
}

impl Inner {
    /// One step of the holder, at the time that it has once nobody else is at it. What shards look at is
    /// renewed with it.
    fn with<T>(&self, step: impl FnOnce(&mut Holder, Moment) -> T) -> Option<T> {
        let mut holder = self.holder.as_ref()?.lock();
        let now = self.clock.moment();
        let result = step(&mut holder, now);
        let era = holder.era(now);
        // The eras first: who sees the later deadline must see why it is later.
        self.era_all.store(era.all, Ordering::Release);
        self.era_users.store(era.users, Ordering::Release);
        let until = holder.good_until().map_or(NEVER, Moment::as_millis);
        self.good_until.store(until, Ordering::Release);
        Some(result)
    }

    fn era(&self) -> Era {
        Era { all: self.era_all.load(Ordering::Acquire), users: self.era_users.load(Ordering::Acquire) }
    }

    fn why_none(&self, user: Option<&UserId>) -> NoPlace {
        self.with(|holder, now| holder.why_none(user, now)).unwrap_or(NoPlace::NotLent)
    }

    fn take(self: &Arc<Self>, user: Option<&UserId>) -> Option<Place> {
        let era = match self.with(|holder, now| holder.admit(user, now)) {
            None => Era::default(),
            Some(admitted) => admitted?,
        };
        Some(Place { inner: Arc::clone(self), era, user: user.cloned(), told: false })
    }
}

impl Place {
    /// Whether places are counted for the whole cluster; otherwise the registry counts for this node.
    pub(crate) fn is_lent(&self) -> bool {
        self.inner.holder.is_some()
    }

    pub(crate) fn era(&self) -> Era {
        self.era
    }

    pub(crate) fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whether what it stands on has run out.
    pub(crate) fn is_lost(&self) -> bool {
        let now = self.inner.era();
        self.era.all != now.all || (self.user.is_some() && self.era.users != now.users)
    }

    /// Its session begins to end by itself; the place is taken until it has.
    pub(crate) fn ends(&mut self) {
        let told = std::mem::replace(&mut self.told, true);
        if !told {
            self.inner.with(|holder, _| holder.told(self.user.as_ref(), self.era, 1));
        }
    }

    /// Its session was counted as one that ends already.
    pub(crate) fn was_told(&mut self) {
        self.told = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { inner, era, user, told } = self;
        let left = inner.with(|holder, _| {
            holder.leave(user.as_ref(), *era, *told);
            user.is_some() && holder.users_are_limited()
        });
        // For one who waits here; else control may have it back.
        match left {
            None => return,
            // Only one of the same user can take it.
            Some(true) => inner.room.notify_waiters(),
            Some(false) => inner.room.notify_one(),
        }
        inner.work.notify_one();
    }
}

impl<'a> Waiting<'a> {
    fn begin(inner: &'a Inner, user: Option<&'a UserId>) -> Self {
        inner.waiting.fetch_add(1, Ordering::Relaxed);
        inner.with(|holder, _| holder.wait(user));
        inner.work.notify_one();
        Self { inner, user }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.inner.with(|holder, _| holder.wait_no_more(self.user));
        self.inner.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
