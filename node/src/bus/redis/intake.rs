//! What publishers send over plain pub/sub, without asking a node (CONTRACT section 12).
//!
//! Every subscriber gets every such message, so one node at a time takes them in: the one that holds a lease
//! in Redis. While it changes hands, messages may find nobody.

mod message;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hiveops_proto::SubscriptionName;
use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, watch};

use self::message::Source;
use super::Shared;
use super::backoff::{Backoff, random};
use super::fault::Fault;
use super::inbox::{Inbox, Push, inbox};
use super::names::{envelopes, intake_lease};
use super::script;
use super::server::{Facts, OPEN_TIMEOUT, ask, open};
use crate::bus::counts::count;
use crate::bus::{Call, Incoming, Intake};
use crate::telemetry::Chain;

/// How long a lease holds that nobody renews.
const LEASE: Duration = Duration::from_secs(3);

/// How often it is renewed, or asked for by the others. An answer that takes as long again still comes
/// before the lease has run out.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// Messages and bytes that may wait for the node; beyond it they are dropped and counted.
const WAITING_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What the node reads.
pub(super) struct Taken {
    queue: mpsc::Receiver<Incoming>,
    bytes: Arc<AtomicUsize>,
}

impl Intake for Taken {
    fn next(&mut self) -> Call<'_, Option<Incoming>> {
        Box::pin(async move {
            let incoming = self.queue.recv().await?;
            self.bytes.fetch_sub(incoming.payload.len(), Ordering::Relaxed);
            Some(incoming)
        })
    }
}

/// What the node holds that takes in, and what it then takes in.
pub(super) struct Lease {
    key: String,
    slot: u16,
    channels: watch::Receiver<Channels>,
}

/// The channels that are taken in, and what each carries.
pub(super) type Channels = Arc<[(String, Source)]>;

/// Takes in what comes, while it holds the lease.
pub(super) struct Taking {
    shared: Arc<Shared>,
    lease: Lease,
    queue: mpsc::Sender<Incoming>,
    bytes: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
}

pub(super) fn taking(shared: Arc<Shared>, lease: Lease, stop: watch::Receiver<bool>) -> (Taking, Taken) {
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    let taken = Taken { queue, bytes: Arc::clone(&bytes) };
    (Taking { shared, lease, queue: sender, bytes, stop }, taken)
}

impl Taking {
    /// Runs until the bus is shut down.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut stop = self.stop.clone();
        loop {
            let Err(fault) = self.session(&mut backoff).await else { return };
            self.say(&fault, backoff.attempts() + 1);
            tokio::select! {
                // An error means that the bus is gone.
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(backoff.next(random())) => {}
            }
        }
    }

    fn say(&self, fault: &Fault, attempt: u32) {
        let (node_id, error) = (self.shared.node_id.as_str(), Chain(fault));
        if attempt == 1 {
            tracing::warn!(node_id, attempt, error = %error, "redis intake is down");
        } else {
            tracing::debug!(node_id, attempt, error = %error, "redis intake is still down");
        }
    }

    /// One connection; `Ok` when the bus is shut down.
    async fn session(&self, backoff: &mut Backoff) -> Result<(), Fault> {
        let mut stop = self.stop.clone();
        let (sender, inbox) = inbox();
        let opening = async {
            let address = self.shared.topology.owner(self.lease.slot).await?;
            open(&address, &self.shared.topology.login, Some(sender)).await
        };
        let (connection, driver) = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
            opened = opening => opened?,
        };
        let working = async {
            let result = tokio::select! {
                // Dropped between two messages or two calls; what had been taken is in the queue.
                _ = stop.wait_for(|stop| *stop) => Ok(()),
                result = self.work(&connection, inbox, backoff) => result.map(|never| match never {}),
            };
            if result.is_ok() {
                // The next node need not wait for it to run out, and does not when this fails.
                let _ = self.renew(&connection, Duration::ZERO).await;
            }
            result
        };
        tokio::select! {
            () = driver => Err(Fault::Closed),
            result = working => result,
        }
    }

    async fn work(
        &self,
        connection: &MultiplexedConnection,
        inbox: Inbox,
        backoff: &mut Backoff,
    ) -> Result<Infallible, Fault> {
        Facts::ask(connection).await?;
        script::load(connection, &[&script::RENEW_LEASE]).await?;
        let mut ticks = tokio::time::interval(RENEW_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.acquire(connection).await? {
                break;
            }
            backoff.reset();
        }
        let mut lease = self.lease.channels.clone();
        let channels = Channels::clone(&lease.borrow_and_update());
        self.subscribe(connection, &channels).await?;
        backoff.reset();
        tracing::info!(node_id = self.shared.node_id, "redis intake begins");
        self.take(connection, inbox, ticks, lease).await
    }

    async fn acquire(&self, connection: &MultiplexedConnection) -> Result<bool, Fault> {
        let mut command = redis::cmd("SET");
        command.arg(&self.lease.key).arg(&self.shared.origin).arg("NX").arg("PX").arg(millis(LEASE));
        let set: Option<String> = ask(connection, "SET", &command, RENEW_EVERY).await?;
        // It may still be ours, from a connection before this one.
        Ok(set.is_some() || self.renew(connection, LEASE).await?)
    }

    /// Holds the lease for as long, if it is ours; zero gives it up.
    async fn renew(&self, connection: &MultiplexedConnection, lease: Duration) -> Result<bool, Fault> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script::RENEW_LEASE.hash()).arg(1).arg(&self.lease.key);
        command.arg(&self.shared.origin).arg(millis(lease));
        ask(connection, "renew lease", &command, RENEW_EVERY).await
    }

    async fn subscribe(&self, connection: &MultiplexedConnection, channels: &Channels) -> Result<(), Fault> {
        let mut connection = connection.clone();
        let subscribing = async {
            let names: Vec<&str> = channels.iter().map(|(channel, _)| channel.as_str()).collect();
            connection.subscribe(&names).await?;
            connection.psubscribe(message::AGENT_EVENTS).await
        };
        match tokio::time::timeout(OPEN_TIMEOUT, subscribing).await {
            Ok(done) => done.map_err(|source| Fault::Command { command: "SUBSCRIBE", source }),
            Err(_) => Err(Fault::Silent { within: OPEN_TIMEOUT }),
        }
    }

    async fn take(
        &self,
        connection: &MultiplexedConnection,
        mut inbox: Inbox,
        mut ticks: tokio::time::Interval,
        mut lease: watch::Receiver<Channels>,
    ) -> Result<Infallible, Fault> {
        let clock = self.shared.clock;
        let mut held_until = clock.moment().plus(LEASE);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    // From before the question: the server counts from when it gets it.
                    let asked = clock.moment();
                    if !self.renew(connection, LEASE).await? {
                        return Err(Fault::Lease);
                    }
                    held_until = asked.plus(LEASE);
                }
                // The bus holds the other end; when it is gone, this ends as well.
                Ok(()) = lease.changed() => {
                    // To subscribe again to what is subscribed changes nothing.
                    let channels = Channels::clone(&lease.borrow_and_update());
                    self.subscribe(connection, &channels).await?;
                }
                push = inbox.next() => match push {
                    // A process that stood still wakes with what its successor has taken in.
                    Some(_) if clock.moment() >= held_until => return Err(Fault::Lease),
                    Some(Push::Message { channel, payload }) => self.put(&channel, payload),
                    Some(Push::Unsubscribed) => return Err(Fault::Moved),
                    None => {
                        count(&self.shared.counts.intake_dropped);
                        return Err(Fault::Lagged);
                    }
                }
            }
        }
    }

    fn put(&self, channel: &[u8], payload: Vec<u8>) {
        let channels = Channels::clone(&self.lease.channels.borrow());
        let subscribed = channels.iter().find(|(name, _)| name.as_bytes() == channel);
        let source = subscribed.map_or(&Source::AgentEvents, |(_, source)| source);
        let incoming = message::read(source, payload);
        let size = incoming.payload.len();
        let waiting = self.bytes.fetch_add(size, Ordering::Relaxed) + size;
        if waiting > WAITING_BYTES_MAX || self.queue.try_send(incoming).is_err() {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            count(&self.shared.counts.intake_dropped);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Lease {
    /// The lease of a namespace, and the channels that its holder takes in.
    pub(super) fn of(namespace: &str, channels: watch::Receiver<Channels>) -> Self {
        let (key, slot) = intake_lease(namespace);
        Self { key, slot, channels }
    }
}

/// The channels of these subscriptions, and those that have names of their own.
pub(super) fn channels<'a>(
    namespace: &str,
    subscriptions: impl Iterator<Item = &'a SubscriptionName>,
) -> Channels {
    let own = [
        (message::SYSTEM_EVENTS.to_owned(), Source::SystemEvents),
        (message::PROJECT_INDEX.to_owned(), Source::ProjectIndex),
    ];
    let envelopes = subscriptions
        .map(|name| (envelopes(namespace, name), Source::Envelopes { subscription: name.to_string() }));
    own.into_iter().chain(envelopes).collect()
}
