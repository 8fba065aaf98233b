//! The thread that owns the logs: takes commands in batches, stores a batch, then tells everybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use hiveops_proto::Epoch;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::ledger::{Accepted, Ledger};
use super::store::{Change, Store};
use super::{Command, Joined, Missed};
use crate::bus::{Ack, BusEvent, Publish, PublishError, Reset, Stored, Unavailable};
use crate::catalog::SubId;
use crate::telemetry::Chain;
use crate::time::Clock;

/// Publications of one transaction at most: enough to share a sync, few enough to answer soon.
const BATCH_MAX: usize = 256;

pub(super) struct Writer {
    ledgers: Vec<Ledger>,
    store: Option<Store>,
    live: broadcast::Sender<BusEvent>,
    clock: Clock,
}

/// One batch in the making.
#[derive(Default)]
struct Batch {
    answers: Vec<(oneshot::Sender<Result<Ack, PublishError>>, Result<Ack, PublishError>)>,
    changes: BTreeMap<usize, Change>,
    /// In the order in which they were accepted, over all logs.
    stored: Vec<Arc<Stored>>,
}

impl Writer {
    pub(super) fn new(
        ledgers: Vec<Ledger>,
        store: Option<Store>,
        live: broadcast::Sender<BusEvent>,
        clock: Clock,
    ) -> Self {
        Self { ledgers, store, live, clock }
    }

    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while let Some(first) = inbox.blocking_recv() {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(command) = next.take() {
                match command {
                    Command::Publish(publish, reply) => {
                        let result = self.accept(*publish, &mut batch);
                        batch.answers.push((reply, result));
                    }
                    other => {
                        // The others see what came before them as stored.
                        self.finish(std::mem::take(&mut batch));
                        if !self.serve(other) {
                            return;
                        }
                    }
                }
                if batch.answers.len() < BATCH_MAX {
                    next = inbox.try_recv().ok();
                }
            }
            self.finish(batch);
        }
    }

    fn accept(&mut self, publish: Publish, batch: &mut Batch) -> Result<Ack, PublishError> {
        let now = self.clock.timestamp();
        let sub = publish.sub;
        let Some(ledger) = self.ledgers.get_mut(sub.index()) else {
            return Err(PublishError::Unavailable(Unavailable { reason: "no such log".to_owned() }));
        };
        let forgotten = ledger.forget_old(now);
        let repeated = ledger.repeated(&publish);
        let accepted = match repeated {
            Ok(None) => ledger.accept(publish, now),
            Ok(Some(ack)) => return Ok(ack),
            Err(conflict) => return Err(conflict),
        }?;
        let ack = ledger.ack(accepted.stored.seq, false);
        let mut removed = ledger.log.expire(now);
        let change = batch.changes.entry(sub.index()).or_insert_with(|| Change::new(sub));
        change.forgotten.extend(forgotten);
        change.head = ledger.log.head();
        change.floor = ledger.log.floor();
        let Accepted { stored, replaced, repeat } = accepted;
        removed.extend(replaced);
        change.repeats.extend(repeat);
        change.added.push(Arc::clone(&stored));
        change.removed.extend(removed);
        batch.stored.push(stored);
        Ok(ack)
    }

    /// Stores the batch; only then its publishers and followers hear of it.
    fn finish(&mut self, batch: Batch) {
        let Batch { answers, changes, stored } = batch;
        let changes: Vec<Change> = changes.into_values().collect();
        let committed = match &self.store {
            Some(store) if !changes.is_empty() => store.commit(&changes),
            _ => Ok(()),
        };
        if let Err(error) = committed {
            self.roll_back(&error);
            for (reply, result) in answers {
                let unavailable = Unavailable { reason: "the bus store cannot be written".to_owned() };
                let _ = reply.send(result.and(Err(PublishError::Unavailable(unavailable))));
            }
            return;
        }
        for stored in stored {
            // Nobody following is no error: the log has it.
            let _ = self.live.send(BusEvent::Stored(stored));
        }
        for (reply, result) in answers {
            let _ = reply.send(result);
        }
    }

    /// Nothing of the batch was stored, so nothing of it may be remembered.
    fn roll_back(&mut self, error: &super::StoreError) {
        tracing::error!(error = %Chain(error), "bus store refused a batch");
        let Some(store) = &self.store else { return };
        match store.load() {
            Ok(ledgers) => self.ledgers = ledgers,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "bus store cannot be read back");
            }
        }
    }

    /// Answers anything but a publication; false to stop.
    fn serve(&mut self, command: Command) -> bool {
        match command {
            Command::Publish(..) => {}
            Command::Follow(known, reply) => {
                let live = self.live.subscribe();
                let missed = self
                    .ledgers
                    .iter()
                    .enumerate()
                    .map(|(index, ledger)| missed(ledger, SubId::from_index(index), known.get(index)));
                let _ = reply.send(Joined { missed: missed.collect(), live });
            }
            Command::Probe(nonce) => {
                let _ = self.live.send(BusEvent::Probe(nonce));
            }
            Command::Stop => return false,
        }
        true
    }
}

/// What a follower at `known` has missed of a log.
fn missed(ledger: &Ledger, sub: Option<SubId>, known: Option<&(Epoch, u64)>) -> Missed {
    let log = &ledger.log;
    let rest = known.filter(|(epoch, _)| epoch == log.epoch()).and_then(|(_, seq)| log.after(*seq));
    match (rest, sub) {
        (Some(rest), _) => Missed::Rest(rest.cloned().collect()),
        (None, Some(sub)) => Missed::All(Reset {
            sub,
            epoch: log.epoch().clone(),
            head: log.head(),
            floor: log.floor(),
            entries: log.entries().cloned().collect(),
        }),
        (None, None) => Missed::Rest(Vec::new()),
    }
}

impl Change {
    fn new(sub: SubId) -> Self {
        Self {
            sub,
            added: Vec::new(),
            removed: Vec::new(),
            repeats: Vec::new(),
            forgotten: Vec::new(),
            head: 0,
            floor: 0,
        }
    }
}
