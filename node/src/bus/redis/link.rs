//! One link: a connection to the server of one log, made again and again for as long as the node runs.
//!
//! A connection is subscribed and carries the calls as well, so that answers and publications come in one
//! order. Whatever goes wrong with it (a hole, a timeout, another master) ends the connection, and the next
//! one reads from the log what was missed. There is no other way to recover.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::Epoch;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;

use super::Shared;
use super::backoff::{Backoff, random};
use super::continuity::{Known, Verdict, continuity};
use super::fault::Fault;
use super::inbox::{Inbox, Push, inbox};
use super::live::Live;
use super::names::Names;
use super::record::{self, Said};
use super::script;
use super::server::{Facts, OPEN_TIMEOUT, ask, open};
use super::sync::{Left, Synced, Wanted, readable, settle, sync};
use crate::bus::Reset;
use crate::bus::counts::count;
use crate::catalog::SubId;
use crate::config::Address;
use crate::telemetry::Chain;
use crate::time::Moment;

/// Times that a log is read until it holds still. It changes only where nodes find out at the same moment
/// that a server was started anew, and each of them once.
const READS_MAX: usize = 8;

/// A link that was up for less has not succeeded: its waits go on growing.
const STEADY: Duration = Duration::from_secs(2);

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Log(SubId),
    /// What nodes say to each other.
    Notices,
}

pub(super) struct Link {
    shared: Arc<Shared>,
    purpose: Purpose,
    names: Arc<Names>,
    up: watch::Sender<Option<Arc<Live>>>,
    stop: watch::Receiver<bool>,
    backoff: Backoff,
    up_since: Option<Moment>,
    /// Where the node stands in the log; none of it after something there could not be read.
    known: Option<Known>,
    /// What was said before the log was read is in what was read: the first message that counts is the one
    /// after this mark.
    mark: Option<String>,
}

impl Link {
    pub(super) fn new(
        shared: Arc<Shared>,
        purpose: Purpose,
        names: Arc<Names>,
        up: watch::Sender<Option<Arc<Live>>>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let backoff = Backoff::default();
        Self { shared, purpose, names, up, stop, backoff, up_since: None, known: None, mark: None }
    }

    /// Runs until the bus is shut down.
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        loop {
            let fault = tokio::select! {
                // An error means that the bus is gone. What a dropped session had under way is what any
                // outage loses: publishers ask again, and the log has what it acknowledged.
                _ = stop.wait_for(|stop| *stop) => return,
                fault = self.session() => fault,
            };
            self.up.send_replace(None);
            let wait = self.after(&fault);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Counts and logs a fault, and says how long to wait.
    fn after(&mut self, fault: &Fault) -> Duration {
        let (shared, counts) = (&self.shared, &self.shared.counts);
        let steady = self
            .up_since
            .take()
            .is_some_and(|since| u128::from(shared.clock.moment().millis_since(since)) >= STEADY.as_millis());
        if steady {
            self.backoff.reset();
        }
        match fault {
            Fault::Gap { .. } => count(&counts.gaps),
            Fault::Lagged => count(&counts.lagged),
            _ => {}
        }
        count(&counts.reconnects);
        let (attempt, wait) = (self.backoff.attempts() + 1, self.backoff.next(random()));
        let (subscription, node_id) = (shared.name(self.purpose), shared.node_id.as_str());
        let error = Chain(fault);
        // The first says that it is down; what follows says it again.
        if attempt == 1 {
            tracing::warn!(subscription, node_id, attempt, error = %error, "redis link is down");
        } else {
            tracing::debug!(subscription, node_id, attempt, error = %error, "redis link is still down");
        }
        wait
    }

    /// One connection, from its beginning to its end.
    async fn session(&mut self) -> Fault {
        let result = async {
            let address = self.shared.topology.owner(self.names.slot()).await?;
            let (sender, inbox) = inbox();
            let (connection, driver) = open(&address, &self.shared.topology.login, Some(sender)).await?;
            tokio::select! {
                // The driver ends when the connection is closed; when the other arm ends it is dropped, which
                // closes the connection.
                () = driver => Err(Fault::Closed),
                result = self.serve(address, connection, inbox) => result,
            }
        };
        let Err(fault): Result<Infallible, Fault> = result.await;
        fault
    }

    async fn serve(
        &mut self,
        address: Address,
        connection: MultiplexedConnection,
        inbox: Inbox,
    ) -> Result<Infallible, Fault> {
        let shared = Arc::clone(&self.shared);
        let facts = Facts::ask(&connection).await?;
        if facts.evicts && self.purpose == Purpose::Notices {
            tracing::warn!(
                node_id = shared.node_id,
                "redis may evict logs: maxmemory-policy is not noeviction"
            );
        }
        script::load(&connection, &[&script::PUBLISH, &script::SYNC, &script::SETTLE, &script::PROBE])
            .await?;
        let (names, say) = (Arc::clone(&self.names), shared.verbs.say);
        let run = facts.run.clone();
        let live = Live::new(connection.clone(), names, address, run, say, shared.clock).await?;
        if let Purpose::Log(sub) = self.purpose {
            // All that is left may be more than Redis lets a subscribed connection owe to us: that is read
            // before, and after it only what came meanwhile.
            self.catch_up(sub, &connection, &facts, false).await?;
            count(&shared.counts.resyncs);
        }
        self.subscribe(&connection).await?;
        if let Purpose::Log(sub) = self.purpose {
            self.catch_up(sub, &connection, &facts, true).await?;
        }
        tracing::info!(
            subscription = shared.name(self.purpose),
            node_id = shared.node_id,
            seq = self.known.as_ref().map_or(0, |known| known.head),
            "redis link is up"
        );
        self.up_since = Some(shared.clock.moment());
        let live = Arc::new(live);
        self.up.send_replace(Some(Arc::clone(&live)));
        self.follow(&live, inbox).await
    }

    async fn subscribe(&self, connection: &MultiplexedConnection) -> Result<(), Fault> {
        let verb = self.shared.verbs.subscribe;
        let mut command = redis::cmd(verb);
        command.arg(&self.names.live);
        let _: redis::Value = ask(connection, verb, &command, OPEN_TIMEOUT).await?;
        Ok(())
    }

    /// Brings the mirror to where the log is.
    async fn catch_up(
        &mut self,
        sub: SubId,
        connection: &MultiplexedConnection,
        facts: &Facts,
        subscribed: bool,
    ) -> Result<(), Fault> {
        let this_run = (facts.run.as_str(), facts.promoted);
        for _ in 0..READS_MAX {
            let fresh = (self.shared.new_epoch)();
            let known = self.known.as_ref();
            self.mark = subscribed.then(|| uuid::Uuid::now_v7().simple().to_string());
            let wanted = match &self.mark {
                None => Wanted::All,
                Some(mark) => Wanted::RestFromMark { say: self.shared.verbs.say, mark },
            };
            let synced = sync(connection, &self.names, known, this_run, &fresh, wanted).await?;
            let epoch = match continuity(known, &synced.found) {
                Verdict::Rest | Verdict::Compacted => return self.go_on(sub, synced),
                Verdict::Reset => return self.begin(sub, synced),
                Verdict::Keep => &synced.found.epoch,
                Verdict::Renew => &fresh,
            };
            let seen = (&synced.found.epoch, synced.run.as_str());
            let verb = self.shared.verbs.say;
            if settle(connection, &self.names, seen, this_run.0, epoch, verb).await? {
                let (subscription, renewed) = (self.shared.name(self.purpose), *epoch != synced.found.epoch);
                let node_id = self.shared.node_id.as_str();
                tracing::info!(subscription, node_id, renewed, seq = synced.found.head, "redis log settled");
            }
        }
        Err(Fault::Outrun)
    }

    /// The log begins as it is now.
    fn begin(&mut self, sub: SubId, synced: Synced) -> Result<(), Fault> {
        let Left::All { entries, last } = synced.left else { return Err(Fault::Outrun) };
        let found = synced.found;
        let left = readable(sub, (&found.epoch, found.head), &entries, &self.shared.counts);
        let reset =
            Reset { sub, epoch: found.epoch.clone(), head: found.head, floor: found.floor, entries: left };
        self.shared.mirror.reset(reset);
        let tail = last.filter(|(seq, _)| *seq == found.head).map(|(_, record)| record);
        self.known = Some(Known { epoch: found.epoch, head: found.head, tail, run: Some(found.run) });
        Ok(())
    }

    /// The log goes on after what is known.
    fn go_on(&mut self, sub: SubId, synced: Synced) -> Result<(), Fault> {
        let (epoch, run) = (synced.found.epoch, synced.found.run);
        match synced.left {
            Left::Nothing => return Err(Fault::Outrun),
            Left::Rest(rest) => {
                for (seq, record) in rest {
                    self.append(sub, &epoch, seq, &record)?;
                }
            }
            Left::All { entries, last } => {
                let head = self.known.as_ref().map_or(0, |known| known.head);
                let newer: Vec<_> = entries.into_iter().filter(|(seq, _)| *seq > head).collect();
                let now = self.shared.clock.timestamp();
                for stored in readable(sub, (&epoch, synced.found.head), &newer, &self.shared.counts) {
                    self.shared.mirror.append(stored, now, None);
                }
                let tail = last.filter(|(seq, _)| *seq == synced.found.head).map(|(_, record)| record);
                self.known = Some(Known { epoch, head: synced.found.head, tail, run: None });
            }
        }
        if let Some(known) = &mut self.known {
            known.run = Some(run);
        }
        Ok(())
    }

    /// The next publication, from the log or from the channel.
    fn append(&mut self, sub: SubId, epoch: &Epoch, seq: u64, record: &str) -> Result<(), Fault> {
        // Until it has been taken: after a fault in between, everything is read again.
        let known = self.known.take();
        let expected = known.as_ref().map_or(1, |known| known.head + 1);
        let run = known.and_then(|known| known.run);
        if seq != expected {
            return Err(Fault::Gap { expected, got: seq });
        }
        let stored = record::read(sub, epoch, seq, record)?;
        if !self.shared.mirror.append(stored, self.shared.clock.timestamp(), None) {
            return Err(Fault::Epoch);
        }
        self.known = Some(Known { epoch: epoch.clone(), head: seq, tail: Some(record.to_owned()), run });
        Ok(())
    }

    /// Takes what comes, in order and without holes.
    async fn follow(&mut self, live: &Live, mut inbox: Inbox) -> Result<Infallible, Fault> {
        loop {
            let push = tokio::select! {
                fault = live.failed() => return Err(fault),
                push = inbox.next() => push,
            };
            let payload = match push {
                None => return Err(Fault::Lagged),
                Some(Push::Unsubscribed) => return Err(Fault::Moved),
                Some(Push::Message { payload, .. }) => payload,
            };
            let text = String::from_utf8_lossy(&payload);
            match self.purpose {
                Purpose::Log(sub) => self.take(sub, &text)?,
                Purpose::Notices => self.take_notice(&text),
            }
        }
    }

    fn take(&mut self, sub: SubId, text: &str) -> Result<(), Fault> {
        let said = Said::parse(text)?;
        if let Some(mark) = &self.mark {
            if said == (Said::Mark { mark }) {
                self.mark = None;
            }
            return Ok(());
        }
        let Some(known) = &self.known else { return Err(Fault::Epoch) };
        match said {
            Said::Stored { epoch, .. } | Said::Renewed { epoch } | Said::Probe { epoch, .. }
                if epoch != known.epoch.as_str() =>
            {
                Err(Fault::Epoch)
            }
            Said::Stored { seq, record, .. } => {
                // A hole is no reason to doubt what is known.
                if seq != known.head + 1 {
                    return Err(Fault::Gap { expected: known.head + 1, got: seq });
                }
                let epoch = known.epoch.clone();
                self.append(sub, &epoch, seq, record)
            }
            Said::Probe { origin, nonce, head, .. } => {
                if head != known.head {
                    return Err(Fault::Gap { expected: known.head + 1, got: head });
                }
                self.shared.probed(origin, nonce);
                Ok(())
            }
            Said::Renewed { .. } | Said::Mark { .. } => Ok(()),
        }
    }

    fn take_notice(&self, text: &str) {
        match Said::parse(text) {
            Ok(Said::Probe { origin, nonce, .. }) => self.shared.probed(origin, nonce),
            // Everything else is for the nodes to read.
            _ => self.shared.mirror.told(text.into()),
        }
    }
}
