//! The bus inside the process: one thread owns every log, and the store when there is one.
//!
//! Publications are taken in batches; a batch is one transaction of the store, synced before any of its
//! publishers hears that it is stored. Without a data directory the logs live in memory, and every start
//! is a new epoch.

mod ledger;
mod store;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use hiveops_proto::{Epoch, SubscriptionName};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Ack, Bus, BusEvent, CALL_TIMEOUT, Call, Follow, Publish, PublishError, Reset, Unavailable};
use crate::time::Clock;

pub(crate) use store::StoreError;

/// Commands that may wait for the writer; beyond it publishers wait, at most [`CALL_TIMEOUT`].
const COMMANDS_MAX: usize = 1_024;

/// Publications that a follower may be behind before it catches up from the logs instead.
const FOLLOWER_LAG_MAX: usize = 1_024;

/// What the writer is asked.
enum Command {
    Publish(Box<Publish>, oneshot::Sender<Result<Ack, PublishError>>),
    /// Everything that is left of the logs beyond what the follower has, and the live end from there.
    Follow(Vec<(Epoch, u64)>, oneshot::Sender<Joined>),
    Probe(u64),
    Stop,
}

/// A follower's start: what it missed, and what comes.
struct Joined {
    missed: Vec<Missed>,
    live: broadcast::Receiver<BusEvent>,
}

/// What one log has for a follower.
enum Missed {
    /// It knew nothing, or too little: the whole.
    All(Reset),
    /// What came since.
    Rest(Vec<Arc<super::Stored>>),
}

/// The handle; the thread ends when it is dropped.
pub(crate) struct EmbeddedBus {
    commands: mpsc::Sender<Command>,
    writer: Option<JoinHandle<()>>,
    durable: bool,
}

impl EmbeddedBus {
    /// Opens the logs of `names`, in memory or in `data_dir`.
    pub(crate) fn open(
        names: &[SubscriptionName],
        data_dir: Option<&Path>,
        clock: Clock,
        new_epoch: impl FnMut() -> Epoch,
    ) -> Result<Self, StoreError> {
        let (store, logs) = store::open(names, data_dir, new_epoch)?;
        let durable = store.is_some();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (live, _) = broadcast::channel(FOLLOWER_LAG_MAX);
        let writer = writer::Writer::new(logs, store, live, clock);
        let writer = std::thread::Builder::new()
            .name("bus-writer".to_owned())
            .spawn(move || writer.run(inbox))
            .map_err(StoreError::Thread)?;
        Ok(Self { commands, writer: Some(writer), durable })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, PublishError> {
        let (reply, answer) = oneshot::channel();
        let call = async {
            self.commands.send(command(reply)).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())
        };
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(result) => result.map_err(PublishError::Unavailable),
            Err(_) => Err(PublishError::Timeout),
        }
    }

    async fn join(commands: &mpsc::Sender<Command>, known: Vec<(Epoch, u64)>) -> Option<Joined> {
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Follow(known, reply)).await.ok()?;
        answer.await.ok()
    }
}

fn stopped() -> Unavailable {
    Unavailable { reason: "the embedded bus has stopped".to_owned() }
}

impl Bus for EmbeddedBus {
    fn publish(&self, publish: Publish) -> Call<'_, Result<Ack, PublishError>> {
        Box::pin(async move { self.ask(|reply| Command::Publish(Box::new(publish), reply)).await? })
    }

    fn follow(&self) -> Call<'_, Result<Box<dyn Follow>, Unavailable>> {
        Box::pin(async move {
            let joined = Self::join(&self.commands, Vec::new()).await.ok_or_else(stopped)?;
            let follower = Follower {
                commands: self.commands.clone(),
                known: Vec::new(),
                pending: std::collections::VecDeque::new(),
                live: joined.live,
            };
            Ok(Box::new(follower.with(joined.missed)) as Box<dyn Follow>)
        })
    }

    fn probe(&self, nonce: u64) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(async move { self.commands.send(Command::Probe(nonce)).await.map_err(|_| stopped()) })
    }

    fn kind(&self) -> &'static str {
        if self.durable { "embedded (on disk)" } else { "embedded (in memory)" }
    }
}

impl Drop for EmbeddedBus {
    /// Lets the writer finish what it has accepted: the store is closed when this returns.
    fn drop(&mut self) {
        let stop = self.commands.clone();
        if let Some(writer) = self.writer.take() {
            // A full queue is emptied by the writer; a closed one means that it has ended already.
            while let Err(mpsc::error::TrySendError::Full(_)) = stop.try_send(Command::Stop) {
                std::thread::yield_now();
            }
            let _ = writer.join();
        }
    }
}

/// Follows the writer's live end and, when it falls behind, reads on from the logs.
struct Follower {
    commands: mpsc::Sender<Command>,
    /// Where this follower stands in each log, by [`SubId`](crate::catalog::SubId).
    known: Vec<(Epoch, u64)>,
    pending: std::collections::VecDeque<BusEvent>,
    live: broadcast::Receiver<BusEvent>,
}

impl Follower {
    fn with(mut self, missed: Vec<Missed>) -> Self {
        self.take(missed);
        self
    }

    fn take(&mut self, missed: Vec<Missed>) {
        for (index, missed) in missed.into_iter().enumerate() {
            match missed {
                Missed::All(reset) => {
                    let place = (reset.epoch.clone(), reset.head);
                    match self.known.get_mut(index) {
                        Some(known) => *known = place,
                        None => self.known.push(place),
                    }
                    self.pending.push_back(BusEvent::Reset(reset));
                }
                Missed::Rest(entries) => self.pending.extend(entries.into_iter().map(BusEvent::Stored)),
            }
        }
    }

    /// Notes where the event leaves the follower; false when it has it already.
    fn is_news(&mut self, event: &BusEvent) -> bool {
        let BusEvent::Stored(stored) = event else { return true };
        match self.known.get_mut(stored.sub.index()) {
            Some((_, seq)) if stored.seq > *seq => {
                *seq = stored.seq;
                true
            }
            _ => false,
        }
    }
}

impl Follow for Follower {
    fn next(&mut self) -> Call<'_, Option<BusEvent>> {
        Box::pin(async move {
            loop {
                let event = match self.pending.pop_front() {
                    Some(event) => event,
                    None => match self.live.recv().await {
                        Ok(event) => event,
                        Err(broadcast::error::RecvError::Closed) => return None,
                        Err(broadcast::error::RecvError::Lagged(missed)) => {
                            tracing::warn!(missed, "bus follower lags and reads on from the logs");
                            let joined = EmbeddedBus::join(&self.commands, self.known.clone()).await?;
                            self.live = joined.live;
                            self.take(joined.missed);
                            continue;
                        }
                    },
                };
                if self.is_news(&event) {
                    return Some(event);
                }
            }
        })
    }
}
