//! The receiving end of the embedded bus: the writer's live end, and the logs for whoever falls behind it.

use std::collections::{BTreeMap, VecDeque};

use hiveops_proto::Epoch;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Command, Joined};
use crate::bus::{BusEvent, Call, Follow};
use crate::catalog::SubId;

/// Where a follower stands in each log.
pub(super) type Places = BTreeMap<SubId, (Epoch, u64)>;

/// Follows the writer's live end and, when it falls behind, reads on from the logs.
pub(super) struct Follower {
    commands: mpsc::Sender<Command>,
    known: Places,
    /// What the logs had for this follower when it joined; the live end begins after it.
    pending: VecDeque<BusEvent>,
    live: broadcast::Receiver<BusEvent>,
    /// The live end has dropped something. Kept here and not on the stack of `next`, whose future may be
    /// dropped while it waits for the logs.
    behind: bool,
}

impl Follower {
    pub(super) fn new(commands: mpsc::Sender<Command>, joined: Joined) -> Self {
        Self {
            commands,
            known: Places::new(),
            pending: joined.missed.into(),
            live: joined.live,
            behind: false,
        }
    }

    /// The next event in order, whether it is news or not.
    async fn receive(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            if self.behind {
                self.catch_up().await?;
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

    async fn catch_up(&mut self) -> Option<()> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Follow(self.known.clone(), reply)).await.ok()?;
        let joined = answer.await.ok()?;
        self.live = joined.live;
        self.pending.extend(joined.missed);
        self.behind = false;
        Some(())
    }

    /// Notes where the event leaves the follower; false when it has it already.
    fn is_news(&mut self, event: &BusEvent) -> bool {
        match event {
            BusEvent::Probe(_) => true,
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

impl Follow for Follower {
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
