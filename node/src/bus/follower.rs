//! The receiving end of a bus whose logs are at hand: its live end, and the logs for whoever falls behind.

use std::collections::{BTreeMap, VecDeque};

use hiveops_proto::Epoch;
use tokio::sync::broadcast;

use super::{BusEvent, Call, Follow};
use crate::catalog::SubId;

/// Events that a follower may be behind before it catches up from the logs instead.
pub(super) const LAG_MAX: usize = 1_024;

/// Where a follower stands in each log.
pub(super) type Places = BTreeMap<SubId, (Epoch, u64)>;

/// A follower's start: what it missed, and what comes.
pub(super) struct Joined {
    pub(super) missed: Vec<BusEvent>,
    pub(super) live: broadcast::Receiver<BusEvent>,
}

/// The owner of the logs.
pub(super) trait Logs: Send + Sync {
    /// Everything that is left of the logs beyond these places, and the live end from there; `None` when the
    /// bus has ended.
    fn join(&self, known: Places) -> Call<'_, Option<Joined>>;
}

/// Follows the live end and, when it falls behind, reads on from the logs.
pub(super) struct Follower<L> {
    logs: L,
    known: Places,
    /// What the logs had for this follower when it joined; the live end begins after it.
    pending: VecDeque<BusEvent>,
    live: broadcast::Receiver<BusEvent>,
    /// The live end has dropped something. Kept here and not on the stack of `next`, whose future may be
    /// dropped while it waits for the logs.
    behind: bool,
}

impl<L: Logs> Follower<L> {
    pub(super) fn new(logs: L, joined: Joined) -> Self {
        let Joined { missed, live } = joined;
        Self { logs, known: Places::new(), pending: missed.into(), live, behind: false }
    }

    /// The next event in order, whether it is news or not.
    async fn receive(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.behind {
                let joined = self.logs.join(self.known.clone()).await?;
                self.live = joined.live;
                self.pending.extend(joined.missed);
                self.behind = false;
                continue;
            }
            match self.live.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "bus follower lags and reads on from the logs");
                    self.behind = true;
                }
            }
        }
    }

    /// Notes where the event leaves the follower; false when it has it already.
    fn is_news(&mut self, event: &BusEvent) -> bool {
        match event {
            BusEvent::Probe(_) | BusEvent::Told(_) => true,
            BusEvent::Reset(reset) => {
                self.known.insert(reset.sub, (reset.epoch.clone(), reset.head));
                true
            }
            BusEvent::Stored(stored) => match self.known.get_mut(&stored.sub) {
                Some((_, seq)) if stored.seq > *seq => {
                    *seq = stored.seq;
                    true
                }
                _ => false,
            },
        }
    }
}

impl<L: Logs> Follow for Follower<L> {
    fn next(&mut self) -> Call<'_, Option<BusEvent>> {
        Box::pin(async move {
            loop {
                let event = self.receive().await?;
                if self.is_news(&event) {
                    return Some(event);
                }
            }
        })
    }
}
