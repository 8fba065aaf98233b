//! The bus on NATS JetStream: one stream per subscription is its log, and the server's word is the order.
//!
//! Publishing is a compare-and-set on the last message of the key, decided by the node's own mirror of the
//! log and enforced by the server. So no condition is ever judged by a stale copy, and a publication that
//! arrives late, after something newer, is refused by the server and not stored.

mod connect;
mod entry;
mod intake;
mod key_locks;
mod link;
mod names;
mod read;
mod streams;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::context::GetStreamError;
use async_nats::{Request as NatsRequest, RequestErrorKind};
use futures_util::future::try_join_all;
use hiveops_proto::{Epoch, NodeId, Position, SubscriptionName, Timestamp};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use self::connect::Destination;
use self::intake::NatsIntake;
use self::key_locks::KeyLocks;
use self::link::{Link, Request};
use self::names::Names;
use super::counts::{Counts, count};
use super::follower::Follower;
use super::mirror::{Decision, Mirror};
use super::{
    Ack, Bus, CALL_TIMEOUT, Call, Follow, Intake, Publish, PublishError, SIGNAL_BYTES_MAX, Signal,
    Unavailable,
};
use crate::catalog::SubId;
use crate::config::{BusFiles, Namespace, Servers};
use crate::log::KEPT_MAX;
use crate::per_sub::PerSub;
use crate::tasks::{TaskKind, Tasks};
use crate::time::Clock;

/// How long a publication waits for a link before it is refused: long enough for a server that restarts,
/// short enough that nothing is stored that its publisher has given up.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// How long after its acknowledgement a publication may take to come back before the log is read on.
const ECHO_PATIENCE: Duration = Duration::from_millis(250);

/// Requests to the link that may wait; what is more would ask for the same.
const REQUESTS_MAX: usize = 64;

/// JetStream's codes for a last sequence that is not the expected one: with that sequence in the text, and
/// without while another message of the key is on its way through a cluster.
const WRONG_LAST_SEQUENCE: u64 = 10_071;
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10_164;

/// The server cannot tell yet: it has just become the leader, or has the same message on its way.
const NOT_READY: u64 = 10_163;
const SAME_ON_ITS_WAY: u64 = 10_158;

/// Between two attempts at one key that others want, too; from there on as much again at random.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(5);

/// Occurrences of one type that this node publishes between two cuts of the log.
const CUT_EVERY: u64 = KEPT_MAX as u64;

/// What a cut leaves of a type: more than a reader keeps of all types together, so that nothing is missing
/// that it would not drop by itself.
const CUT_KEEPS: u64 = 2 * KEPT_MAX as u64;

/// What the bus is made from.
pub(crate) struct Settings {
    pub(crate) servers: Servers,
    pub(crate) files: BusFiles,
    pub(crate) replicas: u8,
    pub(crate) namespace: Namespace,
    pub(crate) node_id: NodeId,
}

/// The handle.
pub(crate) struct NatsBus {
    inner: Arc<Inner>,
    requests: mpsc::Sender<Request>,
    deadline: Duration,
}

struct Inner {
    destination: Destination,
    replicas: u8,
    names: Names,
    node_id: NodeId,
    logs: PerSub<Log>,
    clock: Clock,
    mirror: Arc<Mirror>,
    counts: Counts,
    /// The link that stands, or why there is none. Written by the link's task only.
    link: watch::Sender<Result<Arc<Link>, LinkError>>,
    /// Where this node's probes go, and where they come back.
    probe_subject: String,
    probe_live: String,
    keys: KeyLocks,
    stopping: AtomicBool,
    stop: watch::Sender<bool>,
}

/// What the node knows of one log besides what is in its mirror.
struct Log {
    name: SubscriptionName,
    /// How far it was looked at, by this link or the ones before.
    seen: watch::Sender<Option<Seen>>,
    /// The last place that this node was acknowledged. Held for one look or change.
    acked: Mutex<Option<Position>>,
    /// How many occurrences this node has published.
    occurrences: AtomicU64,
}

impl Log {
    fn new(name: SubscriptionName) -> Self {
        Self { name, seen: watch::Sender::new(None), acked: Mutex::default(), occurrences: AtomicU64::new(0) }
    }
}

/// How far a log was looked at.
#[derive(Debug, Clone)]
struct Seen {
    epoch: Epoch,
    /// The stream's own count of its lives.
    generation: u64,
    seq: u64,
    at: Option<Timestamp>,
}

/// Why there is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// It has not been tried yet.
    #[error("the bus has not been reached yet")]
    NotYet,
    /// It may be there a moment later.
    #[error("{0}")]
    Broker(String),
    /// Only a person can help.
    #[error("{0}")]
    Permanent(String),
    #[error("the bus has stopped")]
    Stopped,
}

impl Inner {
    fn seen(&self, sub: SubId) -> Option<Seen> {
        self.logs[sub].seen.borrow().clone()
    }

    /// Waits until the log was looked at as far as this place; true as well when it is in another life, in
    /// which the place means nothing.
    async fn looked_at(&self, sub: SubId, place: &Position, patience: Duration) -> bool {
        self.wait_seen(sub, patience, |seen| seen.epoch != place.epoch || seen.seq >= place.seq).await
    }

    async fn wait_seen(&self, sub: SubId, patience: Duration, there: impl Fn(&Seen) -> bool) -> bool {
        let mut seen = self.logs[sub].seen.subscribe();
        let arrived = seen.wait_for(|seen| seen.as_ref().is_some_and(&there));
        // The sender is in `self`.
        matches!(tokio::time::timeout(patience, arrived).await, Ok(Ok(_)))
    }

    /// Ends when this link stands no more.
    async fn lost(&self, link: &Link) {
        let stands = |now: &Result<Arc<Link>, LinkError>| {
            now.as_ref().is_ok_and(|now| std::ptr::eq(Arc::as_ptr(now), link))
        };
        // The sender is in `self`.
        let _ = self.link.subscribe().wait_for(|now| !stands(now)).await;
    }
}

impl LinkError {
    fn broker(what: &str, error: impl std::error::Error) -> Self {
        Self::Broker(format!("{what}: {}", crate::telemetry::Chain(&error)))
    }
}

/// What the server answers a publication with.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<AnswerError>,
}

#[derive(Deserialize)]
struct AnswerError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// What one attempt came to.
enum Attempt {
    Done(Ack),
    /// Somebody else changed the key: its last message is this one, when the server says so.
    Conflict(Option<u64>),
    /// The server will know a moment later.
    NotReady,
}

impl NatsBus {
    /// Connects, makes or checks the streams and reads the logs. What may help itself is tried again for
    /// `patience`; what cannot is an error at once.
    pub(crate) async fn open(
        settings: Settings,
        subscriptions: &[SubscriptionName],
        clock: Clock,
        tasks: &Tasks,
        patience: Duration,
    ) -> Result<Self, Unavailable> {
        let names = Names::new(settings.namespace.as_str());
        let token = Uuid::now_v7().simple().to_string();
        let node = settings.node_id.to_string();
        let inner = Arc::new(Inner {
            destination: Destination { servers: settings.servers, files: settings.files, node },
            replicas: settings.replicas,
            probe_subject: names.probe(&token),
            probe_live: names.probe_live(&token),
            names,
            node_id: settings.node_id,
            logs: subscriptions.iter().cloned().map(Log::new).collect(),
            clock,
            mirror: Arc::new(Mirror::new(subscriptions.len())),
            counts: Counts::default(),
            link: watch::Sender::new(Err(LinkError::NotYet)),
            keys: KeyLocks::default(),
            stopping: AtomicBool::new(false),
            stop: watch::Sender::new(false),
        });
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        tasks.spawn(TaskKind::BusLink, keep_link(Arc::clone(&inner), asked, tasks.shutdown()));
        let bus = Self { inner, requests, deadline: CALL_TIMEOUT };
        bus.first_link(patience).await?;
        Ok(bus)
    }

    async fn first_link(&self, patience: Duration) -> Result<(), Unavailable> {
        let mut link = self.inner.link.subscribe();
        let decided = link.wait_for(|link| matches!(link, Ok(_) | Err(LinkError::Permanent(_))));
        match tokio::time::timeout(patience, decided).await {
            Ok(Ok(link)) => link.as_ref().map(drop).map_err(unavailable),
            Ok(Err(_)) => Err(unavailable(&LinkError::Stopped)),
            Err(_) => Err(self
                .inner
                .link
                .borrow()
                .as_ref()
                .err()
                .map_or_else(|| unavailable(&LinkError::NotYet), unavailable)),
        }
    }

    #[cfg(test)]
    pub(crate) fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    async fn link(&self) -> Result<Arc<Link>, Unavailable> {
        if self.inner.stopping.load(Ordering::Acquire) {
            return Err(unavailable(&LinkError::Stopped));
        }
        let mut link = self.inner.link.subscribe();
        let up = link.wait_for(Result::is_ok);
        if let Ok(Ok(link)) = tokio::time::timeout(LINK_PATIENCE, up).await
            && let Ok(link) = &*link
        {
            return Ok(Arc::clone(link));
        }
        match &*self.inner.link.borrow() {
            Ok(link) => Ok(Arc::clone(link)),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// Publications of one key go one after the other; the others do not wait for them.
    async fn store(&self, publish: &Publish) -> Result<Ack, PublishError> {
        let inner = &self.inner;
        let sub = publish.sub;
        let _turn = match &publish.key {
            Some(key) => Some(inner.keys.lock(sub, key).await),
            None => None,
        };
        let unique = Uuid::now_v7().simple().to_string();
        // The key's last message by the server's word, once it has given it: the mirror may have forgotten an
        // old removal that the server has, or still know one that has expired there.
        let mut told = None;
        for attempt in 0_u32.. {
            if attempt > 1 {
                tokio::time::sleep(ATTEMPT_PAUSE.mul_f64(1.0 + crate::time::random())).await;
            }
            let link = self.link().await?;
            // What this node was acknowledged is known to it before it decides anything else.
            let acked = inner.logs[sub].acked.lock().clone();
            if let Some(acked) = acked {
                self.echoed(sub, &acked).await;
            }
            let (decision, reserved) = inner.mirror.decide(publish)?;
            let latest = match decision {
                Decision::Repeat(ack) => return Ok(ack),
                Decision::Store { latest } => told.unwrap_or(latest),
            };
            match self.attempt(&link, publish, latest, &unique).await? {
                Attempt::Done(ack) => {
                    drop(reserved);
                    return self.settled(publish, ack).await;
                }
                Attempt::NotReady => {}
                Attempt::Conflict(actual) => {
                    count(&inner.counts.retries);
                    told = actual;
                    // The next decision is made with that message in view.
                    if let Some((seq, seen)) = actual.zip(inner.seen(sub)) {
                        self.echoed(sub, &Position { epoch: seen.epoch, seq }).await;
                    }
                }
            }
        }
        Err(PublishError::Timeout)
    }

    async fn attempt(
        &self,
        link: &Link,
        publish: &Publish,
        latest: u64,
        unique: &str,
    ) -> Result<Attempt, PublishError> {
        let inner = &self.inner;
        let refused = |reason: String| PublishError::Unavailable(Unavailable { reason });
        let epoch = inner.seen(publish.sub).map(|seen| seen.epoch);
        let epoch = epoch.ok_or_else(|| refused("the log has not been read yet".to_owned()))?;
        let message = entry::encode(&inner.names, publish, latest, unique)
            .map_err(|error| refused(format!("the publication cannot be written: {error}")))?;
        let request = NatsRequest::new()
            .headers(message.headers)
            .payload(message.payload.into())
            // The caller's deadline is the shorter one.
            .timeout(Some(self.deadline));
        let answer = tokio::select! {
            answer = link.client.send_request(message.subject, request) => answer,
            // Nobody will answer on it any more; whether the server has the publication is not known.
            () = inner.lost(link) => return Err(refused("the connection to the bus was lost".to_owned())),
        };
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => PublishError::Timeout,
            RequestErrorKind::NoResponders => refused("the log's stream is gone".to_owned()),
            _ => refused(format!("the bus did not take the publication: {error}")),
        })?;
        let answer: Answer = serde_json::from_slice(&answer.payload)
            .map_err(|error| refused(format!("the bus gave an answer that cannot be read: {error}")))?;
        match answer.error {
            None if inner.seen(publish.sub).is_some_and(|seen| seen.epoch == epoch) => {
                Ok(Attempt::Done(Ack { epoch, seq: answer.seq, duplicate: answer.duplicate }))
            }
            // Nobody can say which life it went to; the publisher's own name tells when it asks again.
            None => Err(refused("the log began anew meanwhile".to_owned())),
            Some(error) => match error.err_code {
                WRONG_LAST_SEQUENCE => {
                    let seq = error.description.rsplit(' ').next().and_then(|seq| seq.parse().ok());
                    Ok(Attempt::Conflict(seq))
                }
                WRONG_LAST_SEQUENCE_CONSTANT => Ok(Attempt::Conflict(None)),
                NOT_READY | SAME_ON_ITS_WAY => Ok(Attempt::NotReady),
                _ => Err(refused(format!("the bus refuses the publication: {}", error.description))),
            },
        }
    }

    /// The log has it. Its key is given to the next one when this node knows that, too.
    async fn settled(&self, publish: &Publish, ack: Ack) -> Result<Ack, PublishError> {
        let inner = &self.inner;
        let place = Position { epoch: ack.epoch.clone(), seq: ack.seq };
        {
            let mut acked = inner.logs[publish.sub].acked.lock();
            if acked.as_ref().is_none_or(|acked| acked.epoch != place.epoch || acked.seq < place.seq) {
                *acked = Some(place.clone());
            }
        }
        if publish.key.is_some() || ack.duplicate {
            self.echoed(publish.sub, &place).await;
        }
        if ack.duplicate {
            // The server knows names only; whether the data is the same, the mirror knows.
            return inner.mirror.repeated(publish).unwrap_or(Ok(ack));
        }
        if publish.key.is_none() {
            let count = inner.logs[publish.sub].occurrences.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_multiple_of(CUT_EVERY) {
                self.ask(Request::Cut(publish.sub, publish.envelope.message_type.clone()));
            }
        }
        Ok(ack)
    }

    /// Waits until the log was looked at as far as this place; has it read on when that takes too long.
    async fn echoed(&self, sub: SubId, place: &Position) {
        if !self.inner.looked_at(sub, place, ECHO_PATIENCE).await {
            self.ask(Request::Missing(sub));
            self.inner.looked_at(sub, place, LINK_PATIENCE).await;
        }
    }

    /// Asks the server how far each log goes, and waits until the mirror is there: who begins to follow has
    /// then been told of everything that was stored before.
    async fn meet_heads(&self) -> Result<(), Unavailable> {
        let link = self.link().await?;
        // One that has just been opened is not there yet, and nobody can miss anything of it.
        let begun = self.inner.logs.iter().filter(|(_, log)| log.seen.borrow().is_some());
        let heads = begun.map(|(sub, log)| {
            let (context, stream) = (&link.context, self.inner.names.log_stream(&log.name));
            async move {
                let stream = context.get_stream(stream).await?;
                let info = stream.cached_info();
                let head = Position { epoch: streams::epoch(info), seq: info.state.last_sequence };
                Ok::<_, GetStreamError>((sub, head))
            }
        });
        let heads = try_join_all(heads).await;
        let heads =
            heads.map_err(|error| Unavailable { reason: format!("the bus does not answer: {error}") })?;
        for (sub, head) in heads {
            let there = |seen: &Seen| seen.epoch == head.epoch && seen.seq >= head.seq;
            if self.inner.wait_seen(sub, ECHO_PATIENCE, there).await {
                continue;
            }
            self.ask(Request::Missing(sub));
            if !self.inner.wait_seen(sub, LINK_PATIENCE, there).await {
                return Err(Unavailable { reason: "a log is not read in time".to_owned() });
            }
        }
        Ok(())
    }

    /// When the queue is full, the link is about to do it anyway.
    fn ask(&self, request: Request) {
        let _ = self.requests.try_send(request);
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Unavailable>>) -> Result<T, Unavailable> {
        let silent = || Unavailable { reason: "the bus did not answer in time".to_owned() };
        tokio::time::timeout(self.deadline, call).await.unwrap_or_else(|_| Err(silent()))
    }
}

/// Keeps a link until the node stops: one attempt after the other, and never gives up.
async fn keep_link(
    inner: Arc<Inner>,
    mut requests: mpsc::Receiver<Request>,
    shutdown: impl Future<Output = ()>,
) {
    /// A link that stood so long was a good one: the next wait is short again.
    const GOOD_AFTER: Duration = Duration::from_secs(5);
    let mut stop = inner.stop.subscribe();
    let stopped = async move {
        tokio::select! {
            () = shutdown => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    };
    tokio::pin!(stopped);
    let mut attempt = 0;
    loop {
        let begun = inner.clock.moment();
        let error = tokio::select! {
            // What a link was about to do is done by the next one.
            () = &mut stopped => return,
            error = link::run(&inner, &mut requests) => error,
        };
        let lived = inner.clock.moment().millis_since(begun);
        attempt = if u128::from(lived) >= GOOD_AFTER.as_millis() { 0 } else { attempt + 1 };
        count(&inner.counts.reconnects);
        tracing::warn!(node_id = %inner.node_id, attempt, error = %error, "bus link is down");
        drop(inner.link.send_replace(Err(error)));
        let wait = link::backoff(attempt, crate::time::random());
        tokio::select! {
            () = &mut stopped => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn unavailable(error: &LinkError) -> Unavailable {
    Unavailable { reason: error.to_string() }
}

impl Bus for NatsBus {
    fn publish(&self, publish: Publish) -> Call<'_, Result<Ack, PublishError>> {
        Box::pin(async move {
            let stored = tokio::time::timeout(self.deadline, self.store(&publish)).await;
            stored.unwrap_or(Err(PublishError::Timeout))
        })
    }

    fn follow(&self) -> Call<'_, Result<Box<dyn Follow>, Unavailable>> {
        Box::pin(self.in_time(async move {
            self.meet_heads().await?;
            let joined = self.inner.mirror.joined(&BTreeMap::new());
            let joined = joined.ok_or_else(|| unavailable(&LinkError::Stopped))?;
            Ok(Box::new(Follower::new(Arc::clone(&self.inner.mirror), joined)) as Box<dyn Follow>)
        }))
    }

    fn open(&self, logs: Vec<(SubId, SubscriptionName)>) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(self.in_time(async move {
            for (sub, name) in logs {
                if self.inner.logs.get(sub).is_none() {
                    // The mirror first: who finds the log finds its copy.
                    self.inner.mirror.open();
                    self.inner.logs.push(Log::new(name));
                }
            }
            // A link that is down does it when it is up again.
            let sent = self.requests.send(Request::Open).await;
            sent.map_err(|_| unavailable(&LinkError::Stopped))
        }))
    }

    fn probe(&self, nonce: u64) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(self.in_time(async move {
            let link = self.link().await?;
            // Also when the probe fails: a server that does not answer ends the link.
            self.ask(Request::Compare);
            let request = NatsRequest::new().payload(nonce.to_string().into()).timeout(Some(self.deadline));
            let answer = link.client.send_request(self.inner.probe_subject.clone(), request).await;
            let answer =
                answer.map_err(|error| Unavailable { reason: format!("a probe got no answer: {error}") })?;
            let answer: Answer = serde_json::from_slice(&answer.payload)
                .map_err(|error| Unavailable { reason: format!("a probe got no answer: {error}") })?;
            if let Some(error) = answer.error {
                return Err(Unavailable { reason: format!("the bus cannot store: {}", error.description) });
            }
            Ok(())
        }))
    }

    fn tell(&self, signal: Signal) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(self.in_time(async move {
            if signal.len() > SIGNAL_BYTES_MAX {
                return Err(Unavailable { reason: "the signal is too large".to_owned() });
            }
            let link = self.link().await?;
            let published = link.client.publish(self.inner.names.signals(), signal.to_string().into()).await;
            published.map_err(|error| Unavailable { reason: format!("the bus took no signal: {error}") })
        }))
    }

    fn catch_up(&self) -> Call<'_, Vec<(SubId, Position)>> {
        Box::pin(async move {
            // When the server does not answer, what is known here is the best answer there is.
            let _ = self.in_time(self.meet_heads()).await;
            self.inner.mirror.positions()
        })
    }

    fn counts(&self) -> Option<&Counts> {
        Some(&self.inner.counts)
    }

    fn intake(&self) -> Option<Box<dyn Intake>> {
        Some(Box::new(NatsIntake::new(Arc::clone(&self.inner))))
    }

    fn shutdown(&self) -> Call<'_, ()> {
        Box::pin(async move {
            let inner = &self.inner;
            inner.stopping.store(true, Ordering::Release);
            let all = async {
                for (sub, log) in inner.logs.iter() {
                    let acked = log.acked.lock().clone();
                    let Some(acked) = acked else { continue };
                    inner.looked_at(sub, &acked, self.deadline).await;
                }
            };
            if tokio::time::timeout(self.deadline, all).await.is_err() {
                tracing::warn!("bus did not give back in time what it had stored");
            }
            inner.mirror.end();
            inner.stop.send_replace(true);
        })
    }

    fn kind(&self) -> &'static str {
        "nats"
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        self.inner.stop.send_replace(true);
        self.inner.mirror.end();
    }
}
