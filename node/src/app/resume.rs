//! A client that was on another node may know more than this one: how far the shards have been told, and
//! the wait until that is far enough.
//!
//! Without it such a client would get a snapshot from the past.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hiveops_proto::contract::SUBSCRIPTIONS_MAX;
use hiveops_proto::{Position, Positions};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::App;
use crate::bus::Bus;
use crate::catalog::SubId;

/// How long a handshake waits at most. A node that is behind by more has lost its bus, says so with
/// `live:false`, and is left by its balancer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far every shard has been told, by subscription.
pub(crate) struct Received {
    /// Held for one look or change.
    positions: Mutex<Vec<Option<Position>>>,
    changed: watch::Sender<()>,
    /// Questions to the bus that have begun.
    begun: AtomicU64,
    /// The number of the last one, and its answer. Held while it is asked, so that all who come meanwhile
    /// share the next one: a wave of clients is no wave for the bus.
    asked: tokio::sync::Mutex<(u64, Vec<(SubId, Position)>)>,
}

impl Received {
    pub(super) fn new() -> Self {
        Self {
            positions: Mutex::new(vec![None; SUBSCRIPTIONS_MAX]),
            changed: watch::Sender::new(()),
            begun: AtomicU64::new(0),
            asked: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn set(&self, sub: SubId, position: Position) {
        if let Some(place) = self.positions.lock().get_mut(sub.index()) {
            *place = Some(position);
        }
        self.changed.send_replace(());
    }

    /// Whether the shards have this log.
    pub(super) fn has_read(&self, sub: SubId) -> bool {
        self.positions.lock().get(sub.index()).is_some_and(Option::is_some)
    }

    /// Says when a log has been read, or has gone on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether a client at `position` knows nothing that the shards do not.
    fn covers(&self, sub: SubId, position: &Position) -> bool {
        let positions = self.positions.lock();
        let here = positions.get(sub.index()).and_then(Option::as_ref);
        here.is_some_and(|here| here.epoch == position.epoch && here.seq >= position.seq)
    }

    /// Where the logs are by the bus's word, in an answer to a question that began after this call.
    async fn ask(&self, bus: &dyn Bus) -> Vec<(SubId, Position)> {
        let before = self.begun.load(Ordering::Acquire);
        let mut asked = self.asked.lock().await;
        if asked.0 <= before {
            // A question that is given up half way has begun all the same, and is nobody's answer.
            let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
            *asked = (number, bus.catch_up().await);
        }
        asked.1.clone()
    }

    async fn reach(&self, places: &[(SubId, Position)]) {
        let mut changed = self.changed.subscribe();
        let is_there = |_: &()| places.iter().all(|(sub, position)| self.covers(*sub, position));
        // The sender is in `self`.
        let _ = changed.wait_for(is_there).await;
    }
}

/// Returns when the shards know as much as the client does, or as the bus does: a position that nobody
/// knows is answered with a snapshot. Waits at most [`PATIENCE`].
pub(crate) async fn wait(app: &App, since: &Positions) {
    let catalog = app.publisher.catalog();
    let known = since.iter().filter_map(|(name, position)| Some((catalog.id(name.as_str())?, position)));
    let ahead: Vec<SubId> =
        known.filter(|(sub, position)| !app.received.covers(*sub, position)).map(|(sub, _)| sub).collect();
    if ahead.is_empty() {
        return;
    }
    let caught_up = async {
        let mut places = app.received.ask(app.bus.as_ref()).await;
        places.retain(|(sub, _)| ahead.contains(sub));
        app.received.reach(&places).await;
    };
    if tokio::time::timeout(PATIENCE, caught_up).await.is_err() {
        tracing::warn!(node_id = %app.config.node_id, "client is ahead of this node, which cannot catch up");
    }
}
