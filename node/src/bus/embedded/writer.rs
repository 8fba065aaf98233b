//! The thread that owns the logs: takes commands in batches, stores a batch, then tells everybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use hiveops_proto::{Epoch, SubscriptionName, Timestamp};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::ledger::{Accepted, Ledger, Taken};
use super::store::{Change, Store, StoreError};
use super::{Command, NewEpoch, Reply, SharedWriter};
use crate::bus::follower::{Joined, LAG_MAX, Places};
use crate::bus::{Ack, BusEvent, Publish, PublishError, Reset, Stored, Unavailable};
use crate::catalog::SubId;
use crate::telemetry::Chain;
use crate::time::{Clock, Moment};

/// Commands of one batch at most: enough to share a sync, few enough to answer soon.
const BATCH_MAX: usize = 256;

/// How often the logs are rid of what is too old, however quiet they are, and a store that failed is
/// opened again. Far below the 15 minutes for which occurrences are kept and the 2 for repeats.
const TICK_EVERY: Duration = Duration::from_secs(5);

/// Followers that may wait for a store that failed: one per node is the rule, the rest is for tests.
const WAITING_MAX: usize = 64;

pub(super) struct Writer {
    /// The truth, except while `broken`.
    ledgers: Vec<Ledger>,
    store: Option<Store>,
    live: broadcast::Sender<BusEvent>,
    /// The head of each log as followers were told of it, by index of the ledger.
    announced: Vec<u64>,
    /// The store failed and could not be read back, so nobody knows what the logs hold.
    broken: bool,
    /// Followers that joined meanwhile.
    waiting: Vec<(Places, oneshot::Sender<Joined>)>,
    clock: Clock,
    new_epoch: NewEpoch,
}

/// Serves until everybody has gone, or `stopping` is set and the queue is empty. The logs end with it.
pub(super) fn run(
    writer: &SharedWriter,
    mut inbox: mpsc::Receiver<Command>,
    stopping: &AtomicBool,
    clock: Clock,
) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut due = clock.moment();
    let mut inbox_open = true;
    while inbox_open {
        if clock.moment() >= due {
            with(writer, |writer| writer.tick(clock.timestamp()));
            due = clock.moment().plus(TICK_EVERY);
        }
        if stopping.load(Ordering::Acquire) {
            // What is queued is still served; nothing more gets in.
            inbox.close();
        }
        match receive(&mut inbox, &waker, due, clock) {
            Some(Some(first)) => with(writer, |writer| writer.serve_batch(first, &mut inbox)),
            Some(None) => inbox_open = false,
            None => {}
        }
    }
    // Whoever holds the handle cannot append any more, and followers see the end.
    drop(writer.lock().take());
}

/// Only [`run`] takes the writer away, as the last thing that it does.
fn with(writer: &SharedWriter, work: impl FnOnce(&mut Writer)) {
    if let Some(writer) = writer.lock().as_mut() {
        work(writer);
    }
}

/// One batch in the making.
#[derive(Default)]
struct Batch {
    answers: Vec<(Reply, Result<Ack, PublishError>)>,
    changes: BTreeMap<SubId, Change>,
    /// In the order in which they were accepted, over all logs.
    stored: Vec<Arc<Stored>>,
}

impl Writer {
    pub(super) fn new(ledgers: Vec<Ledger>, store: Option<Store>, clock: Clock, new_epoch: NewEpoch) -> Self {
        let (live, _) = broadcast::channel(LAG_MAX);
        let announced = ledgers.iter().map(|ledger| ledger.log.head()).collect();
        let (broken, waiting) = (false, Vec::new());
        Self { ledgers, store, live, announced, broken, waiting, clock, new_epoch }
    }

    /// One publication that comes by no queue.
    pub(super) fn publish(&mut self, publish: Publish) -> Result<Ack, PublishError> {
        let mut batch = Batch::default();
        let result = self.accept(publish, self.clock.timestamp(), &mut batch);
        self.finish(batch);
        result
    }

    fn serve_batch(&mut self, first: Command, inbox: &mut mpsc::Receiver<Command>) {
        if self.broken {
            self.recover();
        }
        let mut batch = Batch::default();
        let mut next = Some(first);
        let mut count = 0;
        while let Some(command) = next {
            match command {
                Command::Publish(publish, reply) => {
                    // Whoever has stopped waiting was told that it is not known to be stored; storing it
                    // late would only surprise.
                    if !reply.is_closed() {
                        let result = self.accept(*publish, self.clock.timestamp(), &mut batch);
                        batch.answers.push((reply, result));
                    }
                }
                other => {
                    // The others see what came before them as stored.
                    self.finish(std::mem::take(&mut batch));
                    self.serve(other);
                }
            }
            count += 1;
            next = if count < BATCH_MAX { inbox.try_recv().ok() } else { None };
        }
        self.finish(batch);
    }

    fn accept(&mut self, publish: Publish, now: Timestamp, batch: &mut Batch) -> Result<Ack, PublishError> {
        let index = publish.sub.index();
        let Some(ledger) = self.ledgers.get_mut(index).filter(|_| !self.broken) else {
            return Err(PublishError::Unavailable(unwritable()));
        };
        let change = batch.changes.entry(ledger.sub).or_insert_with(|| Change::new(ledger.sub));
        change.forget(ledger.forget_old(now));
        let taken = ledger.take(publish, now);
        let accepted = match taken? {
            Taken::Repeat(ack) => return Ok(ack),
            Taken::New(accepted) => accepted,
        };
        let Accepted { stored, replaced, repeat } = accepted;
        change.add(&stored, repeat);
        change.remove(replaced);
        change.remove(ledger.log.expire(now));
        let ack = ledger.ack(stored.seq, false);
        batch.stored.push(stored);
        Ok(ack)
    }

    /// Stores the batch; only then its publishers and followers hear of it.
    fn finish(&mut self, batch: Batch) {
        let Batch { answers, changes, stored } = batch;
        if let Err(error) = self.commit(changes) {
            tracing::error!(error = %Chain(&error), "bus store refused a batch");
            self.recover();
            for (reply, _) in answers {
                // Even a refusal may rest on something of this batch.
                let _ = reply.send(Err(PublishError::Unavailable(unwritable())));
            }
            return;
        }
        for stored in stored {
            self.announced[stored.sub.index()] = stored.seq;
            // Nobody following is no error: the log has it.
            let _ = self.live.send(BusEvent::Stored(stored));
        }
        for (reply, result) in answers {
            let _ = reply.send(result);
        }
    }

    fn commit(&mut self, changes: BTreeMap<SubId, Change>) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut changes: Vec<Change> = changes.into_values().filter(|change| !change.is_empty()).collect();
        for change in &mut changes {
            let log = &self.ledgers[change.sub.index()].log;
            (change.head, change.floor) = (log.head(), log.floor());
        }
        if changes.is_empty() { Ok(()) } else { store.commit(&changes) }
    }

    /// Reads the logs back after the store failed: what it did not store may not be remembered, and what
    /// it stored all the same is told to the followers, although its publishers heard that it failed.
    fn recover(&mut self) {
        let Some(store) = &mut self.store else { return };
        match store.reload() {
            Ok(ledgers) => {
                self.ledgers = ledgers;
                self.broken = false;
                tracing::info!("bus store was read back");
                self.announce_found();
                for (known, reply) in std::mem::take(&mut self.waiting) {
                    self.join(&known, reply);
                }
            }
            // Tried again with every batch, so only the first time is news.
            Err(error) if self.broken => {
                tracing::debug!(error = %Chain(&error), "bus store still cannot be read back");
            }
            Err(error) => {
                self.broken = true;
                tracing::error!(error = %Chain(&error), "bus store cannot be read back");
            }
        }
    }

    fn announce_found(&mut self) {
        for (ledger, announced) in self.ledgers.iter().zip(&mut self.announced) {
            match ledger.log.after(*announced) {
                Some(found) => {
                    for stored in found {
                        let _ = self.live.send(BusEvent::Stored(Arc::clone(stored)));
                    }
                }
                None => {
                    let _ = self.live.send(BusEvent::Reset(reset(ledger)));
                }
            }
            *announced = ledger.log.head();
        }
    }

    /// Drops what has become too old.
    fn tick(&mut self, now: Timestamp) {
        if self.broken {
            self.recover();
        }
        if self.broken {
            return;
        }
        let mut batch = Batch::default();
        for ledger in &mut self.ledgers {
            let mut change = Change::new(ledger.sub);
            change.forget(ledger.forget_old(now));
            change.remove(ledger.log.expire(now));
            batch.changes.insert(ledger.sub, change);
        }
        self.finish(batch);
    }

    /// Answers anything but a publication.
    fn serve(&mut self, command: Command) {
        match command {
            Command::Publish(..) | Command::Wake => {}
            Command::Follow(known, reply) => {
                self.waiting.retain(|(_, reply)| !reply.is_closed());
                if !self.broken {
                    self.join(&known, reply);
                } else if self.waiting.len() < WAITING_MAX {
                    self.waiting.push((known, reply));
                }
            }
            Command::Open(logs, reply) => {
                // Whoever asked may have stopped waiting, and will ask again.
                let _ = reply.send(self.open(logs));
            }
            Command::Probe(nonce) if self.broken => {
                tracing::debug!(nonce, "bus store is broken, probe not answered");
            }
            Command::Probe(nonce) => {
                let _ = self.live.send(BusEvent::Probe(nonce));
            }
            Command::Tell(signal) => {
                let _ = self.live.send(BusEvent::Told(signal));
            }
            #[cfg(test)]
            Command::Hold(held, release) => {
                let _ = held.send(());
                let _ = release.recv();
            }
        }
    }

    /// Begins the logs that there are not yet, and tells the followers of each.
    fn open(&mut self, logs: Vec<(SubId, SubscriptionName)>) -> Result<(), Unavailable> {
        if self.broken {
            return Err(unwritable());
        }
        for (sub, name) in logs {
            if sub.index() != self.ledgers.len() {
                continue;
            }
            let ledger = match &mut self.store {
                None => Ok(Ledger::begin(sub, (self.new_epoch)())),
                Some(store) => store.begin(sub, name, &mut self.new_epoch),
            };
            let ledger = ledger.map_err(|error| {
                tracing::error!(error = %Chain(&error), "bus store cannot begin a log");
                self.recover();
                unwritable()
            })?;
            self.announced.push(ledger.log.head());
            let _ = self.live.send(BusEvent::Reset(reset(&ledger)));
            self.ledgers.push(ledger);
        }
        Ok(())
    }

    /// What was missed and what comes are cut here, on the one thread that appends: nothing falls between.
    fn join(&self, known: &Places, reply: oneshot::Sender<Joined>) {
        let live = self.live.subscribe();
        let mut missed = Vec::new();
        for ledger in &self.ledgers {
            match rest(ledger, known.get(&ledger.sub)) {
                Some(rest) => missed.extend(rest.map(|stored| BusEvent::Stored(Arc::clone(stored)))),
                None => missed.push(BusEvent::Reset(reset(ledger))),
            }
        }
        let _ = reply.send(Joined { missed, live });
    }
}

/// What follows the known place, if anything is known and everything that follows is still there.
fn rest<'a>(
    ledger: &'a Ledger,
    known: Option<&(Epoch, u64)>,
) -> Option<impl Iterator<Item = &'a Arc<Stored>>> {
    let (_, seq) = known.filter(|(epoch, _)| epoch == ledger.log.epoch())?;
    ledger.log.after(*seq)
}

fn reset(ledger: &Ledger) -> Reset {
    let log = &ledger.log;
    Reset {
        sub: ledger.sub,
        epoch: log.epoch().clone(),
        head: log.head(),
        floor: log.floor(),
        entries: log.entries().cloned().collect(),
    }
}

fn unwritable() -> Unavailable {
    Unavailable { reason: "the bus store cannot be written".to_owned() }
}

/// Wakes the writer's thread. A runtime of its own for one channel and one timer would be more to own.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The next command; `None` when `due` comes first, `Some(None)` when there will be no more.
fn receive(
    inbox: &mut mpsc::Receiver<Command>,
    waker: &Waker,
    due: Moment,
    clock: Clock,
) -> Option<Option<Command>> {
    loop {
        if let Poll::Ready(command) = inbox.poll_recv(&mut Context::from_waker(waker)) {
            return Some(command);
        }
        let wait_ms = due.millis_since(clock.moment());
        if wait_ms == 0 {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(wait_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{names, occurrence, removal, update, with_key};
    use crate::bus::embedded::store::in_memory;
    use crate::bus::embedded::tests::epochs;
    use crate::log::KEPT_MS;

    fn publish(writer: &mut Writer, publish: Publish, now: Timestamp) -> Ack {
        let mut batch = Batch::default();
        let ack = writer.accept(publish, now, &mut batch).unwrap();
        writer.finish(batch);
        ack
    }

    #[test]
    fn a_quiet_log_drops_what_is_too_old_and_tells_nobody() {
        let clock = Clock::start();
        let now = clock.timestamp();
        let mut writer = Writer::new(in_memory(&names(), epochs()).unwrap(), None, clock, Box::new(epochs()));
        let mut live = writer.live.subscribe();
        for publication in [occurrence(0, 1), update(0, "a", 2), removal(0, "b"), update(1, "a", 4)] {
            publish(&mut writer, publication, now);
            assert!(live.try_recv().is_ok());
        }
        writer.tick(now);
        assert_eq!(writer.ledgers[0].log.entries().count(), 3);
        // A second for the clock to go on between the publications and now.
        writer.tick(now.plus_millis(KEPT_MS + 1_000));
        let log = &writer.ledgers[0].log;
        assert_eq!(log.entries().map(|stored| stored.seq).collect::<Vec<_>>(), [2]);
        assert_eq!((log.floor(), log.head(), writer.ledgers[1].log.floor()), (3, 3, 0));
        assert!(live.try_recv().is_err());
    }

    #[test]
    fn a_repeat_is_forgotten_though_what_forgets_it_is_refused() {
        let clock = Clock::start();
        let now = clock.timestamp();
        let mut writer = Writer::new(in_memory(&names(), epochs()).unwrap(), None, clock, Box::new(epochs()));
        publish(&mut writer, with_key("k1", update(0, "a", 1)), now);
        let mut batch = Batch::default();
        let refused = Publish { expect: crate::bus::Expect::Absent, ..update(0, "a", 2) };
        assert!(writer.accept(refused, now.plus_millis(120_001), &mut batch).is_err());
        assert!(batch.changes.into_values().any(|change| !change.is_empty()));
    }
}
