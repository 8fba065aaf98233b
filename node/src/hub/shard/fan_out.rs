//! One batch of publications to every session that is joined: the hot path.
//!
//! Each session is visited once per batch, whatever number of its subscriptions is in it, and gets all
//! that is due to it in one vectored write. Nothing is allocated per session unless its socket is full.

use std::io::{ErrorKind, IoSlice, Write};
use std::sync::Arc;
use std::time::Instant;

use hiveops_proto::{DisconnectReason, SubscriptionName};
use prometheus::local::{LocalHistogram, LocalIntCounter};

use super::Shard;
use super::env::Env;
use crate::catalog::{SubId, SubMask};
use crate::hub::catch_up::CatchUp;
use crate::hub::connection::{Connection, Pending};
use crate::hub::frame::{Publication, SealedFrame};
use crate::hub::outbox::{Outbox, Pushed, Room};
use crate::session::Event;
use crate::telemetry::metrics::Metrics;
use crate::time::Moment;

/// Publications of one batch at most: one vectored write takes them all.
pub(super) const BATCH_MAX: usize = 64;

/// The shard's own counts, added to the node's once per turn.
pub(super) struct Local {
    pub(super) sent: LocalIntCounter,
    pub(super) bytes_sent: LocalIntCounter,
    pub(super) received: LocalIntCounter,
    pub(super) bytes_received: LocalIntCounter,
    delivery: LocalHistogram,
    pub(super) outbox_wait: LocalHistogram,
    pub(super) bytes_out: LocalHistogram,
    pub(super) bytes_in: LocalHistogram,
}

impl Local {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            sent: metrics.messages_sent.local(),
            bytes_sent: metrics.bytes_sent.local(),
            received: metrics.messages_received.local(),
            bytes_received: metrics.bytes_received.local(),
            delivery: metrics.delivery.local(),
            outbox_wait: metrics.outbox_wait.local(),
            bytes_out: metrics.message_bytes.with_label_values(&["out"]).local(),
            bytes_in: metrics.message_bytes.with_label_values(&["in"]).local(),
        }
    }

    pub(super) fn flush(&self) {
        self.sent.flush();
        self.bytes_sent.flush();
        self.received.flush();
        self.bytes_received.flush();
        self.delivery.flush();
        self.outbox_wait.flush();
        self.bytes_out.flush();
        self.bytes_in.flush();
    }
}

/// A batch, and what is the same for all sessions that take the same part of it.
struct Batch<'a> {
    publications: &'a [Arc<Publication>],
    /// The part that was last put together, and for which subscriptions.
    part: SubMask,
    slices: Vec<IoSlice<'a>>,
    bytes: usize,
    now: Moment,
    room: Room,
}

/// What a visit came to.
enum Visit {
    Fine,
    /// These frames could not be queued.
    Failed(Vec<SealedFrame>),
    /// The connection is broken.
    Gone,
}

impl<'a> Batch<'a> {
    fn subs(&self) -> SubMask {
        let mut subs = SubMask::default();
        for publication in self.publications {
            subs.insert(publication.sub());
        }
        subs
    }

    /// Puts together the frames of `part`.
    fn select(&mut self, part: SubMask) {
        if self.part == part && !self.slices.is_empty() {
            return;
        }
        self.part = part;
        self.slices.clear();
        let due = self.publications.iter().filter(|publication| part.contains(publication.sub()));
        self.slices.extend(due.map(|publication| IoSlice::new(publication.live().bytes())));
        self.bytes = self.slices.iter().map(|slice| slice.len()).sum();
    }
}

impl Shard {
    pub(super) fn fan_out(&mut self, publications: &[Arc<Publication>]) {
        if publications.is_empty() {
            return;
        }
        for publication in publications {
            self.views[publication.sub().index()].append(publication);
        }
        self.stamp += 1;
        let room = Room::of(&self.control.limits);
        let (part, now) = (SubMask::default(), self.now());
        let mut batch = Batch { publications, part, slices: Vec::new(), bytes: 0, now, room };
        let mut failed = Vec::new();
        let subs = batch.subs();
        for sub in subs.iter() {
            for index in 0..self.lists[sub.index()].len() {
                let key = self.lists[sub.index()][index];
                let Some(connection) = self.connections.get_mut(key as usize) else { continue };
                if connection.visited == self.stamp || connection.gone.is_some() {
                    continue;
                }
                connection.visited = self.stamp;
                match visit(connection, &mut batch, &mut self.local, &self.shared.metrics) {
                    Visit::Fine => {}
                    Visit::Failed(frames) => failed.push((key, frames)),
                    Visit::Gone => {
                        connection.gone = Some(DisconnectReason::ClientGone);
                        self.doomed.push(key);
                    }
                }
                if connection.pending.is_some() {
                    self.recount(key);
                }
            }
        }
        for (key, frames) in failed {
            self.on_send_failures(key, &frames);
        }
    }

    /// Tells the session of frames that it does not get; it may decide to end.
    pub(super) fn on_send_failures(&mut self, key: u32, frames: &[SealedFrame]) {
        let mut actions = Vec::new();
        let env = Env {
            shared: &self.shared,
            control: &self.control,
            views: &self.views,
            now: self.shared.clock.moment(),
            pending: None,
        };
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let Some(session) = connection.session() else { return };
        for frame in frames {
            env.shared.metrics.send_failures.inc();
            let subscription = frame.place().map(|place| env.shared.catalog.name(place.sub));
            tracing::warn!(
                correlation_id = %frame.correlation_id(),
                r#type = frame.frame_type(),
                subscription = subscription.map(SubscriptionName::as_str),
                connection_id = %session.connection_id(),
                node_id = %env.shared.node_id,
                "frame could not be queued for a session"
            );
            session.handle(Event::SendFailed, &env, &mut actions);
            if !actions.is_empty() {
                break;
            }
        }
        self.apply(key, actions, None);
    }
}

/// Gives one session what is due to it.
fn visit<'a>(
    connection: &mut Connection,
    batch: &mut Batch<'a>,
    local: &mut Local,
    metrics: &Metrics,
) -> Visit {
    if connection.pending.is_some() {
        return queue(connection, batch, metrics);
    }
    batch.select(connection.live);
    let written = if let [slice] = batch.slices.as_slice() {
        connection.socket.write(slice)
    } else {
        connection.socket.write_vectored(&batch.slices)
    };
    let written = match written {
        Ok(written) => written,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
        Err(_) => return Visit::Gone,
    };
    local.bytes_sent.inc_by(written as u64);
    if written == batch.bytes {
        local.sent.inc_by(batch.slices.len() as u64);
        let due = batch.publications.iter().filter(|publication| batch.part.contains(publication.sub()));
        let at = Instant::now();
        for publication in due {
            local.delivery.observe(at.duration_since(publication.received()).as_secs_f64());
            local.bytes_out.observe(publication.live().len() as f64);
        }
        if let Some(session) = connection.session() {
            session.sent(batch.now);
        }
        return Visit::Fine;
    }
    keep_rest(connection, batch, written, local)
}

/// The socket took less than was due: the rest waits from now on.
fn keep_rest(connection: &mut Connection, batch: &Batch<'_>, written: usize, local: &mut Local) -> Visit {
    let live = connection.live;
    let mut failed = Vec::new();
    let mut skip = written;
    let mut pending = Pending::default();
    for publication in batch.publications.iter().filter(|publication| live.contains(publication.sub())) {
        let frame = publication.live();
        if skip >= frame.len() {
            skip -= frame.len();
            local.sent.inc();
            continue;
        }
        if skip > 0 {
            pending.outbox.push_forced(frame.clone(), batch.now);
            pending.outbox.begin_front(skip);
            skip = 0;
        } else if connection.live.contains(publication.sub()) {
            let pushed = pending.outbox.push(frame.clone(), batch.room, batch.now);
            if pushed == Pushed::Full {
                fall_behind(&mut connection.live, &mut pending, publication);
                failed.push(frame.clone());
            }
        }
    }
    connection.pending = Some(Box::new(pending));
    if failed.is_empty() { Visit::Fine } else { Visit::Failed(failed) }
}

/// Something waits already, so this waits behind it.
fn queue(connection: &mut Connection, batch: &Batch<'_>, metrics: &Metrics) -> Visit {
    let Connection { places, live, pending, role, .. } = connection;
    let Some(pending) = pending else { return Visit::Fine };
    let (mut failed, mut queued) = (Vec::new(), false);
    for publication in batch.publications {
        let sub = publication.sub();
        if live.contains(sub) {
            match pending.outbox.push(publication.live().clone(), batch.room, batch.now) {
                Pushed::Queued => queued = true,
                Pushed::Coalesced => count_coalesced(metrics, &publication.stored().envelope.subscription),
                Pushed::Full => {
                    fall_behind(live, pending, publication);
                    failed.push(publication.live().clone());
                }
            }
        } else if places.iter().any(|(joined, _)| *joined == sub)
            && pending.catch_up(sub).is_some_and(CatchUp::is_behind)
        {
            failed.push(publication.live().clone());
        }
    }
    if queued
        && failed.is_empty()
        && let crate::hub::connection::Role::Session(session) = role
    {
        session.sent(batch.now);
    }
    if failed.is_empty() { Visit::Fine } else { Visit::Failed(failed) }
}

fn count_coalesced(metrics: &Metrics, subscription: &SubscriptionName) {
    metrics.coalesced.with_label_values(&[subscription.as_str()]).inc();
}

/// The frame finds no room: from here on the log keeps what the session lacks.
fn fall_behind(live: &mut SubMask, pending: &mut Pending, publication: &Publication) {
    let sub: SubId = publication.sub();
    live.remove(sub);
    let seq = tail(&pending.outbox, publication);
    pending.set_catch_up(sub, CatchUp::After { seq, behind: true });
}

fn tail(outbox: &Outbox, publication: &Publication) -> u64 {
    outbox.tail(publication.sub()).unwrap_or(publication.stored().seq.saturating_sub(1))
}
