//! The link: one connection after the other, and on each the logs read and then followed.
//!
//! The server repeats everything that it stores on a plain subscription, which is the live path. Whatever
//! that may have lost (it is at most once) shows as a hole in the sequence, in the comparison of heads
//! after each probe, or as a notice of the library; all three lead to reading on from the stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::stream::{Info, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt;
use hiveops_proto::{Epoch, MessageType, SubscriptionName, Timestamp};
use tokio::sync::mpsc;

use super::connect::{self, ANSWER, Notices};
use super::entry::{self, BadEntry, Raw};
use super::read::{self, Source};
use super::{Inner, LinkError, streams};
use crate::bus::Reset;
use crate::bus::counts::count;
use crate::catalog::SubId;
use crate::log::CompactedLog;

/// What a connection gives to publishers.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) context: Context,
}

/// What the link is asked for while it stands.
pub(super) enum Request {
    /// Compare every head with the server's.
    Compare,
    /// This publication was acknowledged and has not come: read on.
    Missing(SubId),
    /// Rid the log of old occurrences of this type, beyond their number.
    Cut(SubId, MessageType),
    /// There are more logs now.
    Open,
}

/// One log as this link follows it.
struct Followed {
    sub: SubId,
    stream: Stream,
    epoch: Epoch,
    /// The highest count of lives that the stream has shown: one with an older disk counts from less.
    generation: u64,
    /// The last message that was looked at, publication or not.
    seen: u64,
    /// When the server stored it: another message in its place is another log.
    seen_at: Option<Timestamp>,
    /// The server's head at the last comparison, when it was ahead of ours.
    ahead: u64,
}

/// What the server's log is to the one that was followed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Continuity {
    /// Nothing new.
    Same,
    /// It goes on.
    Longer,
    /// It is another one: all nodes will see that.
    Other,
    /// It ends before what was seen, or has something else there: nodes must be told.
    Cut,
}

/// Follows until the connection ends, and says why.
pub(super) async fn run(inner: &Arc<Inner>, requests: &mut mpsc::Receiver<Request>) -> LinkError {
    let mut logs = Vec::new();
    match begin(inner, &mut logs).await {
        Ok(begun) => {
            drop(inner.link.send_replace(Ok(Arc::clone(&begun.link))));
            tracing::info!(node_id = %inner.node_id, "bus link is up");
            begun.follow(inner, &mut logs, requests).await
        }
        Err(error) => error,
    }
}

/// One thing that the link has to see to.
enum Turn {
    /// The connection has ended.
    Ended(String),
    /// Nobody will ask any more.
    Stopped,
    /// So many messages were dropped by now.
    Dropped(u64),
    Live(Message),
    Signal(Message),
    Asked(Request),
}

struct Begun {
    link: Arc<Link>,
    notices: Notices,
    live: Subscriber,
    signals: Subscriber,
}

/// Connects, checks the streams, listens, and only then reads: nothing falls between.
async fn begin(inner: &Arc<Inner>, logs: &mut Vec<Followed>) -> Result<Begun, LinkError> {
    let (client, notices) = connect::connect(&inner.destination).await?;
    let mut context = jetstream::new(client.clone());
    context.set_timeout(ANSWER);
    let names = &inner.names;
    streams::ensure(&context, &streams::probe(names, inner.replicas)).await?;
    streams::ensure(&context, &streams::incoming(names, inner.replicas)).await?;
    for (sub, log) in inner.logs.iter() {
        logs.push(Followed::open(inner, &context, sub, &log.name).await?);
    }
    let listen = |error| LinkError::broker("the bus cannot be listened to", error);
    let live = client.subscribe(names.all_live()).await.map_err(listen)?;
    let signals = client.subscribe(names.signals()).await.map_err(listen)?;
    let link = Arc::new(Link { client, context });
    // The server has both subscriptions once it has answered what was asked after them.
    for log in logs.iter_mut() {
        log.begin(inner, &link.context).await?;
    }
    Ok(Begun { link, notices, live, signals })
}

impl Begun {
    async fn follow(
        mut self,
        inner: &Arc<Inner>,
        logs: &mut Vec<Followed>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> LinkError {
        loop {
            let turn = self.next(requests).await;
            if let Err(error) = self.take(inner, logs, turn).await {
                return error;
            }
        }
    }

    async fn next(&mut self, requests: &mut mpsc::Receiver<Request>) -> Turn {
        // Before anything else: what comes on a connection that the library has made anew is not to be
        // trusted.
        if let Some(why) = &*self.notices.ended.borrow() {
            return Turn::Ended(why.clone());
        }
        // All are cancel-safe: what is not taken stays in its queue, and levels stay as they are.
        tokio::select! {
            ended = self.notices.ended.wait_for(Option::is_some) => {
                Turn::Ended(ended.ok().and_then(|why| why.clone()).unwrap_or_default())
            }
            Ok(()) = self.notices.dropped.changed() => Turn::Dropped(*self.notices.dropped.borrow_and_update()),
            message = self.live.next() => message.map_or(Turn::Ended(String::new()), Turn::Live),
            Some(message) = self.signals.next() => Turn::Signal(message),
            request = requests.recv() => request.map_or(Turn::Stopped, Turn::Asked),
        }
    }

    async fn take(&self, inner: &Arc<Inner>, logs: &mut Vec<Followed>, turn: Turn) -> Result<(), LinkError> {
        match turn {
            Turn::Ended(why) => Err(LinkError::Broker(format!("the connection ended: {why}"))),
            Turn::Stopped => Err(LinkError::Stopped),
            Turn::Dropped(dropped) => {
                // However many there were, one look at each log finds them all.
                count(&inner.counts.lagged);
                tracing::warn!(node_id = %inner.node_id, dropped, "bus dropped messages for this node");
                self.resync_all(inner, logs).await
            }
            Turn::Live(message) => self.on_live(inner, logs, &message).await,
            Turn::Signal(message) => {
                if let Ok(signal) = String::from_utf8(message.payload.into()) {
                    inner.mirror.told(signal.into());
                }
                Ok(())
            }
            Turn::Asked(Request::Compare) => self.compare(inner, logs).await,
            Turn::Asked(Request::Missing(sub)) => match logs.get_mut(sub.index()) {
                Some(log) => log.resync(inner, &self.link.context).await,
                None => Ok(()),
            },
            Turn::Asked(Request::Cut(sub, message_type)) => match logs.get(sub.index()) {
                Some(log) => log.cut(inner, &message_type).await,
                None => Ok(()),
            },
            Turn::Asked(Request::Open) => self.open_more(inner, logs).await,
        }
    }

    /// What is said on the new logs meanwhile is in them when they are read.
    async fn open_more(&self, inner: &Arc<Inner>, logs: &mut Vec<Followed>) -> Result<(), LinkError> {
        for (sub, log) in inner.logs.iter().skip(logs.len()) {
            let mut log = Followed::open(inner, &self.link.context, sub, &log.name).await?;
            log.begin(inner, &self.link.context).await?;
            logs.push(log);
        }
        Ok(())
    }

    async fn on_live(
        &self,
        inner: &Arc<Inner>,
        logs: &mut [Followed],
        message: &Message,
    ) -> Result<(), LinkError> {
        let subject = message.subject.as_str();
        if subject == inner.probe_live {
            if let Some(nonce) = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok())
            {
                inner.mirror.probed(nonce);
            }
            return Ok(());
        }
        let found = message.headers.as_ref().and_then(entry::republished);
        let Some((original, seq, at)) = found else {
            // Somebody publishes where only the server should; it is in no log.
            return Ok(());
        };
        let name = original.split('.').nth(3);
        let log = logs.iter_mut().find(|log| Some(inner.logs[log.sub].name.as_str()) == name);
        let Some(log) = log else { return Ok(()) };
        let raw =
            Raw { subject: original, headers: message.headers.as_ref(), payload: &message.payload, seq, at };
        log.on_live(inner, &self.link.context, &raw).await
    }

    async fn resync_all(&self, inner: &Arc<Inner>, logs: &mut [Followed]) -> Result<(), LinkError> {
        for log in logs {
            log.resync(inner, &self.link.context).await?;
        }
        Ok(())
    }

    /// A head that was ahead of ours at the last comparison already is one whose message got lost.
    async fn compare(&self, inner: &Arc<Inner>, logs: &mut [Followed]) -> Result<(), LinkError> {
        for log in logs {
            let info = log.info().await?;
            let ahead = log.ahead;
            log.ahead = if info.state.last_sequence > log.seen { info.state.last_sequence } else { 0 };
            let lost = ahead > log.seen;
            let broken = matches!(log.continuity(&info).await?, Continuity::Other | Continuity::Cut);
            if lost || broken {
                log.resync(inner, &self.link.context).await?;
            }
        }
        Ok(())
    }
}

impl Followed {
    /// The log's stream, made if there is none.
    async fn open(
        inner: &Arc<Inner>,
        context: &Context,
        sub: SubId,
        name: &SubscriptionName,
    ) -> Result<Self, LinkError> {
        let stream = streams::ensure(context, &streams::log(&inner.names, name, inner.replicas)).await?;
        let epoch = streams::epoch(stream.cached_info());
        Ok(Self { sub, stream, epoch, generation: 0, seen: 0, seen_at: None, ahead: 0 })
    }

    async fn info(&self) -> Result<Info, LinkError> {
        self.stream.get_info().await.map_err(|error| LinkError::broker("a log's head cannot be read", error))
    }

    /// Goes on where the mirror stands, if that is a place of this log.
    async fn begin(&mut self, inner: &Arc<Inner>, context: &Context) -> Result<(), LinkError> {
        if let Some(seen) = inner.seen(self.sub) {
            self.epoch = seen.epoch;
            self.generation = seen.generation;
            self.seen = seen.seq;
            self.seen_at = seen.at;
            return self.resync(inner, context).await;
        }
        let info = self.info().await?;
        self.reset(inner, &info).await
    }

    /// Compares with the server and reads what is missing.
    async fn resync(&mut self, inner: &Arc<Inner>, context: &Context) -> Result<(), LinkError> {
        count(&inner.counts.resyncs);
        let info = self.info().await?;
        self.ahead = 0;
        match self.continuity(&info).await? {
            Continuity::Same => Ok(()),
            Continuity::Longer if self.is_within_reach(inner) => self.read_on(inner).await,
            Continuity::Longer | Continuity::Other => self.reset(inner, &info).await,
            Continuity::Cut => {
                let info = streams::renew(context, &info, self.generation).await?;
                tracing::warn!(
                    subscription = inner.logs[self.sub].name.as_str(),
                    epoch = streams::epoch(&info).as_str(),
                    seq = info.state.last_sequence,
                    "log has lost its tail and begins a new epoch"
                );
                self.reset(inner, &info).await
            }
        }
    }

    async fn continuity(&self, info: &Info) -> Result<Continuity, LinkError> {
        let last = info.state.last_sequence;
        if streams::epoch(info) != self.epoch {
            let older = streams::generation(info) < self.generation
                && streams::epoch_of(info, self.generation) == self.epoch;
            return Ok(if older { Continuity::Cut } else { Continuity::Other });
        }
        if last < self.seen {
            return Ok(Continuity::Cut);
        }
        let at = |nanos: i128| Some(read::millis(nanos));
        // Nothing was seen, or what was seen is the server's last as well.
        if self.seen == 0 || last == self.seen {
            let same = self.seen == 0 || self.seen_at == at(info.state.last_timestamp.unix_timestamp_nanos());
            return Ok(match (same, last == self.seen) {
                (false, _) => Continuity::Cut,
                (true, true) => Continuity::Same,
                (true, false) => Continuity::Longer,
            });
        }
        // What was seen has become history. Compacted away it says nothing any more.
        match self.stream.direct_get(self.seen).await {
            Ok(message) if at(message.time.unix_timestamp_nanos()) != self.seen_at => Ok(Continuity::Cut),
            Ok(_) => Ok(Continuity::Longer),
            Err(error) if is_not_found(&error) => Ok(Continuity::Longer),
            Err(error) => Err(LinkError::broker("a log's past cannot be read", error)),
        }
    }

    /// Whether every hole behind what was seen is one of compaction: nothing of it can have expired.
    fn is_within_reach(&self, inner: &Arc<Inner>) -> bool {
        let created = self.seen_at.unwrap_or(Timestamp::from_millis(0));
        read::floor(&[], self.seen + 1, created, inner.clock.timestamp()) == 0
    }

    async fn read_on(&mut self, inner: &Arc<Inner>) -> Result<(), LinkError> {
        let source = Source {
            names: &inner.names,
            sub: self.sub,
            name: &inner.logs[self.sub].name,
            epoch: &self.epoch,
        };
        let read = read::read(&self.stream, &source, self.seen + 1).await?;
        report_bad(inner, self.sub, &read.bad);
        let now = inner.clock.timestamp();
        for entry in read.entries {
            inner.mirror.append(entry.stored, now, entry.repeat);
        }
        if let Some((seq, at)) = read.present.last() {
            self.saw(inner, *seq, Some(*at));
        }
        Ok(())
    }

    /// Reads the whole log.
    async fn reset(&mut self, inner: &Arc<Inner>, info: &Info) -> Result<(), LinkError> {
        self.epoch = streams::epoch(info);
        self.generation = streams::generation(info);
        let name = &inner.logs[self.sub].name;
        let source = Source { names: &inner.names, sub: self.sub, name, epoch: &self.epoch };
        let read = read::read(&self.stream, &source, 1).await?;
        report_bad(inner, self.sub, &read.bad);
        let now = inner.clock.timestamp();
        let read_last = read.present.last().copied();
        let head = info.state.last_sequence.max(read_last.map_or(0, |(seq, _)| seq));
        let created = read::millis(info.created.unix_timestamp_nanos());
        let floor = read::floor(&read.present, head, created, now);
        let (entries, repeats): (Vec<_>, Vec<_>) =
            read.entries.into_iter().map(|entry| (entry.stored, entry.repeat)).unzip();
        let mut log = CompactedLog::restore(self.epoch.clone(), head, floor, entries);
        log.expire(now);
        let (sub, epoch, floor) = (self.sub, self.epoch.clone(), log.floor());
        inner.mirror.reset(Reset { sub, epoch, head, floor, entries: log.entries().cloned().collect() });
        for repeat in repeats.into_iter().flatten() {
            inner.mirror.remember(self.sub, repeat, now);
        }
        let last_at = read::millis(info.state.last_timestamp.unix_timestamp_nanos());
        let at = read_last.filter(|(seq, _)| *seq == head).map_or(last_at, |(_, at)| at);
        self.saw(inner, head, Some(at));
        Ok(())
    }

    async fn on_live(
        &mut self,
        inner: &Arc<Inner>,
        context: &Context,
        raw: &Raw<'_>,
    ) -> Result<(), LinkError> {
        if raw.seq <= self.seen {
            // The streams were read after the subscription began, so this is an echo of what was read; if
            // it is not, the comparison of heads finds out.
            return Ok(());
        }
        if raw.seq > self.seen + 1 {
            count(&inner.counts.gaps);
            tracing::warn!(
                subscription = inner.logs[self.sub].name.as_str(),
                seq = raw.seq,
                seen = self.seen,
                "bus skipped messages, the log is read on"
            );
            return self.resync(inner, context).await;
        }
        let name = &inner.logs[self.sub].name;
        match entry::decode(&inner.names, self.sub, name, &self.epoch, raw) {
            Ok(entry) => {
                inner.mirror.append(entry.stored, inner.clock.timestamp(), entry.repeat);
            }
            Err(bad) => report_bad(inner, self.sub, &[(raw.seq, bad)]),
        }
        self.saw(inner, raw.seq, Some(raw.at));
        Ok(())
    }

    /// The server keeps occurrences for their time only; their number is bounded from here.
    async fn cut(&self, inner: &Arc<Inner>, message_type: &MessageType) -> Result<(), LinkError> {
        let subjects = inner.names.type_subjects(&inner.logs[self.sub].name, message_type);
        let purge = self.stream.purge().filter(subjects).keep(super::CUT_KEEPS);
        purge.await.map(drop).map_err(|error| LinkError::broker("a log cannot be cut", error))
    }

    /// Notes how far this log was looked at, for the next link as well.
    fn saw(&mut self, inner: &Arc<Inner>, seq: u64, at: Option<Timestamp>) {
        (self.seen, self.seen_at) = (seq, at);
        let seen = super::Seen { epoch: self.epoch.clone(), generation: self.generation, seq, at };
        inner.logs[self.sub].seen.send_replace(Some(seen));
    }
}

fn is_not_found(error: &jetstream::stream::DirectGetError) -> bool {
    matches!(error.kind(), jetstream::stream::DirectGetErrorKind::NotFound)
}

/// Whoever may write to the subjects of the logs is trusted not to; what they write anyway has a place in
/// the sequence, and nothing else.
fn report_bad(inner: &Arc<Inner>, sub: SubId, bad: &[(u64, BadEntry)]) {
    inner.counts.bad_entries.fetch_add(bad.len() as u64, Ordering::Relaxed);
    for (seq, reason) in bad {
        tracing::warn!(
            subscription = inner.logs[sub].name.as_str(),
            seq,
            reason = %reason,
            "log has an entry that no node wrote"
        );
    }
}

/// The wait before the `attempt`th connection: full jitter under a ceiling that doubles.
pub(super) fn backoff(attempt: u32, random: f64) -> Duration {
    const BASE: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(2);
    crate::time::jittered(BASE, CAP, attempt, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_to_a_cap_and_is_any_part_of_it() {
        assert_eq!(backoff(0, 1.0), Duration::from_millis(50));
        assert_eq!(backoff(3, 0.5), Duration::from_millis(200));
        assert_eq!(backoff(30, 1.0), Duration::from_secs(2));
        assert_eq!(backoff(30, 0.0), Duration::ZERO);
    }
}
