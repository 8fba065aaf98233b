//! The bus inside the process: one thread owns every log, and the store when there is one.
//!
//! Publications are taken in batches; a batch is one transaction of the store, synced before any of its
//! publishers hears that it is stored. Without a data directory the logs live in memory, every start is a
//! new epoch, and a publisher that finds the logs free appends by itself: waking two threads for it would
//! cost more than the appending.

mod ledger;
mod store;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hiveops_proto::{Epoch, SubscriptionName};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use self::ledger::Ledger;
use self::store::Store;
use self::writer::Writer;
use super::follower::{Follower, Joined, Logs, Places};
use super::{Ack, Bus, CALL_TIMEOUT, Call, Follow, Intake, Publish, PublishError, Signal, Unavailable};
use crate::catalog::SubId;
use crate::time::Clock;

pub(crate) use store::StoreError;

/// Commands that may wait for the writer; beyond it publishers wait, at most [`CALL_TIMEOUT`].
const COMMANDS_MAX: usize = 1_024;

/// Where a publisher waits for its answer.
type Reply = oneshot::Sender<Result<Ack, PublishError>>;

/// What the writer is asked.
enum Command {
    Publish(Box<Publish>, Reply),
    /// Everything that is left of the logs beyond these places, and the live end from there.
    Follow(Places, oneshot::Sender<Joined>),
    Probe(u64),
    /// For every follower.
    Tell(Signal),
    /// Begin more logs.
    Open(Vec<(SubId, SubscriptionName)>, oneshot::Sender<Result<(), Unavailable>>),
    /// Look whether to stop.
    Wake,
    /// Do nothing until the other end is dropped.
    #[cfg(test)]
    Hold(oneshot::Sender<()>, std::sync::mpsc::Receiver<()>),
}

/// Makes the epoch of a log that begins.
type NewEpoch = Box<dyn FnMut() -> Epoch + Send>;

/// Asks the writer for the logs.
#[derive(Clone)]
struct Ask(mpsc::Sender<Command>);

impl Logs for Ask {
    fn join(&self, known: Places) -> Call<'_, Option<Joined>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.0.send(Command::Follow(known, reply)).await.ok()?;
            answer.await.ok()
        })
    }
}

/// None once the thread has ended.
type SharedWriter = Mutex<Option<Writer>>;

/// The handle; the thread ends when it is dropped.
pub(crate) struct EmbeddedBus {
    commands: mpsc::Sender<Command>,
    /// Read by the writer: take what is queued, then end. A flag beside the queue, because the queue may
    /// be full.
    stopping: Arc<AtomicBool>,
    /// Closed by the writer as the last thing that it does.
    ended: watch::Receiver<()>,
    writer: Option<JoinHandle<()>>,
    /// The logs, held by the thread for as long as it runs; none when they are also on a disk, whose syncs
    /// are no business of a publisher's thread.
    in_memory: Option<Arc<SharedWriter>>,
    deadline: Duration,
    durable: bool,
}

impl EmbeddedBus {
    /// Opens the logs of `names`, in memory or in `data_dir`.
    pub(crate) fn open(
        names: &[SubscriptionName],
        data_dir: Option<&Path>,
        clock: Clock,
        mut new_epoch: impl FnMut() -> Epoch + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (store, ledgers) = match data_dir {
            None => (None, store::in_memory(names, &mut new_epoch)?),
            Some(dir) => {
                let (store, ledgers) = Store::open(dir, names, &mut new_epoch)?;
                (Some(store), ledgers)
            }
        };
        Self::start(ledgers, store, clock, Box::new(new_epoch))
    }

    fn start(
        ledgers: Vec<Ledger>,
        store: Option<Store>,
        clock: Clock,
        new_epoch: NewEpoch,
    ) -> Result<Self, StoreError> {
        let durable = store.is_some();
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (end, ended) = watch::channel(());
        let stopping = Arc::new(AtomicBool::new(false));
        let writer = Arc::new(Mutex::new(Some(Writer::new(ledgers, store, clock, new_epoch))));
        let in_memory = (!durable).then(|| Arc::clone(&writer));
        let stop = Arc::clone(&stopping);
        let writer = std::thread::Builder::new()
            .name("bus-writer".to_owned())
            .spawn(move || {
                writer::run(&writer, inbox, &stop, clock);
                // By now the writer is gone and its store closed.
                drop(end);
            })
            .map_err(StoreError::Thread)?;
        Ok(Self {
            commands,
            stopping,
            ended,
            writer: Some(writer),
            in_memory,
            deadline: CALL_TIMEOUT,
            durable,
        })
    }

    /// Appends on the caller's own thread when the logs are in memory and nobody has them; else gives the
    /// publication back for the queue. Nothing here waits.
    fn append(&self, publish: Box<Publish>) -> Result<Result<Ack, PublishError>, Box<Publish>> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(publish);
        }
        let mut writer = self.in_memory.as_ref().and_then(|writer| writer.try_lock());
        match writer.as_mut().and_then(|writer| writer.as_mut()) {
            Some(writer) => Ok(writer.publish(*publish)),
            None => Err(publish),
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, PublishError> {
        let (reply, answer) = oneshot::channel();
        let call = async {
            self.commands.send(command(reply)).await.map_err(|_| stopped())?;
            answer.await.map_err(|_| stopped())
        };
        match tokio::time::timeout(self.deadline, call).await {
            Ok(result) => result.map_err(PublishError::Unavailable),
            Err(_) => Err(PublishError::Timeout),
        }
    }

    /// A command that nobody answers.
    async fn order(&self, command: Command) -> Result<(), Unavailable> {
        match self.commands.send_timeout(command, self.deadline).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(stopped()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(unavailable(PublishError::Timeout)),
        }
    }

    /// Tells the writer to take what is queued and then to end.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // When the queue is full the writer has yet to take from it, and then sees the flag; when it is
        // closed the writer has ended already.
        let _ = self.commands.try_send(Command::Wake);
    }
}

fn stopped() -> Unavailable {
    Unavailable { reason: "the embedded bus has stopped".to_owned() }
}

/// Calls other than to publish have no timeout of their own to report.
fn unavailable(error: PublishError) -> Unavailable {
    match error {
        PublishError::Unavailable(unavailable) => unavailable,
        other => Unavailable { reason: other.to_string() },
    }
}

impl Bus for EmbeddedBus {
    fn publish(&self, publish: Publish) -> Call<'_, Result<Ack, PublishError>> {
        Box::pin(async move {
            match self.append(Box::new(publish)) {
                Ok(result) => result,
                Err(publish) => self.ask(|reply| Command::Publish(publish, reply)).await?,
            }
        })
    }

    fn follow(&self) -> Call<'_, Result<Box<dyn Follow>, Unavailable>> {
        Box::pin(async move {
            let joined =
                self.ask(|reply| Command::Follow(Places::new(), reply)).await.map_err(unavailable)?;
            Ok(Box::new(Follower::new(Ask(self.commands.clone()), joined)) as Box<dyn Follow>)
        })
    }

    fn open(&self, logs: Vec<(SubId, SubscriptionName)>) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(async move { self.ask(|reply| Command::Open(logs, reply)).await.map_err(unavailable)? })
    }

    fn probe(&self, nonce: u64) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(self.order(Command::Probe(nonce)))
    }

    fn tell(&self, signal: Signal) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(self.order(Command::Tell(signal)))
    }

    /// Nobody from outside reaches a bus inside the process.
    fn intake(&self) -> Option<Box<dyn Intake>> {
        None
    }

    fn shutdown(&self) -> Call<'_, ()> {
        Box::pin(async move {
            self.stop();
            let mut ended = self.ended.clone();
            let end = async { while ended.changed().await.is_ok() {} };
            if tokio::time::timeout(self.deadline, end).await.is_err() {
                tracing::warn!("embedded bus did not end in time");
            }
        })
    }

    fn kind(&self) -> &'static str {
        if self.durable { "embedded (on disk)" } else { "embedded (in memory)" }
    }
}

impl Drop for EmbeddedBus {
    /// Lets the writer finish what it has accepted: the store is closed when this returns. It blocks for
    /// as long as that takes; async code calls [`Bus::shutdown`] first, after which it does not.
    fn drop(&mut self) {
        self.stop();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("bus thread panicked");
        }
    }
}
