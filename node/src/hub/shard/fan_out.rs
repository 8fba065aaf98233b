//! One batch of publications to every session that is joined: the hot path.
//!
//! Each session is visited once per batch, whatever number of its subscriptions is in it, and gets all
//! that is due to it in one vectored write. Nothing is allocated per session unless its socket is full.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hiveops_proto::{DisconnectReason, SubscriptionName};

use super::Shard;
use super::batch::{Batch, Part};
use super::env::Env;
use super::local::{Local, Reckoning};
use super::uring::{self, Sent};
use crate::catalog::{SubId, SubMask};
use crate::hub::books::Dropped;
use crate::hub::catch_up::CatchUp;
use crate::hub::connection::{Connection, Role};
use crate::hub::frame::{Publication, SealedFrame};
use crate::hub::outbox::Room;
use crate::hub::pending::Offered;
use crate::session::Event;
use crate::trace::Lost;
use crate::ws::Coding;

/// Publications of one batch at most: one write takes them all.
pub(super) const BATCH_MAX: usize = 64;

/// Frames that were due to a session, in their order: those that found no room, and between them a mark
/// for each that did.
pub(super) type Attempts = Vec<Attempt>;

/// What became of one frame.
pub(super) enum Attempt {
    Placed,
    Refused(SealedFrame),
}

/// What a visit came to.
enum Visit {
    Fine,
    /// From the first frame on that could not be queued.
    Refused(Attempts),
    /// The connection is broken.
    Gone,
}

/// Sessions that take the same part of a batch, until it is sent to them.
#[derive(Default)]
struct Group {
    part: (SubMask, Coding),
    keys: Vec<u32>,
}

impl Shard {
    pub(super) fn fan_out(&mut self, publications: &[Arc<Publication>]) {
        if publications.is_empty() {
            return;
        }
        let begun = Instant::now();
        let time = Reckoning { wall: self.shared.clock.timestamp(), begun };
        for publication in publications {
            self.local.wait.observe(begun.duration_since(publication.received()).as_secs_f64());
        }
        self.local.sending = Duration::ZERO;
        self.due(publications);
        let holes = self.append(publications);
        let skipped = self.hold_back(&holes);
        self.stamp += 1;
        let room = Room::of(&self.control.limits);
        let mut batch = Batch::new(publications, (self.now(), time), room);
        let (subs, mut group, mut refused) = (batch.subs(), Group::default(), Vec::new());
        for sub in subs.iter() {
            for index in 0..self.lists[sub.index()].len() {
                let key = self.lists[sub.index()][index];
                let Some(connection) = self.connections.get_mut(key as usize) else { continue };
                if connection.visited == self.stamp {
                    continue;
                }
                connection.visited = self.stamp;
                if connection.gone.is_some() {
                    // It is still in the lists, and was counted with them; what it catches up on is
                    // given up when it is removed.
                    lose(&batch, connection.live);
                    continue;
                }
                if let Some(pending) = &connection.pending {
                    // Something waits already, so this waits behind it.
                    for publication in publications {
                        let due = pending.is_due(connection.live, publication.sub());
                        self.local.books.due(publication.sub(), u64::from(due));
                    }
                    let visit = queue(connection, &batch, batch.publications, &mut self.local);
                    self.visited(key, visit, &mut refused);
                    continue;
                }
                let part = (connection.live.and(subs), connection.coding);
                if part.0.is_empty() {
                    continue;
                }
                if group.part != part || group.keys.len() == uring::SENDS_MAX {
                    self.send_group(&mut group, &mut batch, &mut refused);
                    group.part = part;
                }
                group.keys.push(key);
            }
        }
        self.send_group(&mut group, &mut batch, &mut refused);
        for (key, attempts) in refused {
            self.on_attempts(key, attempts);
        }
        self.catch_up_over(skipped);
        publications.iter().for_each(|publication| publication.walked());
        let sending = self.local.sending;
        self.local.send.observe(sending.as_secs_f64());
        self.local.own.observe(begun.elapsed().saturating_sub(sending).as_secs_f64());
    }

    /// Counts to whom each publication is due: whoever is joined now.
    fn due(&self, publications: &[Arc<Publication>]) {
        for publication in publications {
            if let Some(tally) = publication.tally() {
                tally.due_to(self.lists[publication.sub().index()].len());
            }
        }
    }

    /// Sends to the sessions of a group what is due to them, and empties it.
    fn send_group(&mut self, group: &mut Group, batch: &mut Batch<'_>, refused: &mut Vec<(u32, Attempts)>) {
        if group.keys.is_empty() {
            return;
        }
        let mut sent = std::mem::take(&mut self.sent);
        for publication in batch.due(group.part.0) {
            self.local.books.due(publication.sub(), group.keys.len() as u64);
        }
        let part = batch.part(group.part);
        let all = Sent::Bytes(part.bytes);
        let begun = Instant::now();
        // For a batch of several frames, which is far larger, plain writes measured cheaper.
        match &part.slices[..] {
            [only] if self.ring.is_some() && group.keys.len() > 1 => {
                self.send_through_ring(&group.keys, only, &mut sent);
            }
            _ => self.write_each(&group.keys, part, &mut sent),
        }
        // One look at the clock for the group: it costs a hundredth of a send.
        let at = Instant::now();
        self.local.sending += at.duration_since(begun);
        let (mut whole, results) = (0, sent.iter().copied().chain(std::iter::repeat(Sent::NotTried)));
        for (key, sent) in group.keys.drain(..).zip(results) {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            if sent == all {
                connection.sent_at = Some(batch.now);
                whole += 1;
                continue;
            }
            let visit = visit(connection, batch, group.part, (sent, at), &mut self.local);
            if let Visit::Gone = visit {
                for publication in batch.due(group.part.0) {
                    self.local.books.dropped(publication.sub(), Dropped::Broken, 1);
                }
            }
            self.visited(key, visit, refused);
        }
        batch.delivered(group.part, at, whole, &mut self.local);
        self.sent = sent;
    }

    fn send_through_ring(&mut self, keys: &[u32], bytes: &[u8], sent: &mut Vec<Sent>) {
        sent.clear();
        let Some(ring) = &mut self.ring else { return };
        let plain = |key: &u32| self.connections.get(*key as usize)?.socket.plain();
        // A node that ends TLS opens no ring. If one of them could not be sent to so, all are written to one by one.
        let Some(sockets) = keys.iter().map(plain).collect::<Option<Vec<BorrowedFd<'_>>>>() else { return };
        if let Err(error) = ring.send(&sockets, bytes, sent) {
            tracing::error!(error = %error, "io_uring has failed, sockets are written to one by one");
            self.ring = None;
        }
    }

    fn write_each(&mut self, keys: &[u32], part: &Part<'_>, sent: &mut Vec<Sent>) {
        sent.clear();
        part.give(|slices| {
            sent.extend(keys.iter().map(|key| match self.connections.get_mut(*key as usize) {
                Some(connection) => connection.socket.write(slices).map_or(Sent::Broken, Sent::Bytes),
                None => Sent::NotTried,
            }));
        });
    }

    fn visited(&mut self, key: u32, visit: Visit, refused: &mut Vec<(u32, Attempts)>) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        match visit {
            Visit::Fine => {}
            Visit::Refused(attempts) => refused.push((key, attempts)),
            Visit::Gone => {
                connection.gone = Some(DisconnectReason::ClientGone);
                self.doomed.push(key);
            }
        }
        if connection.pending.is_some() {
            self.recount(key);
        }
    }

    /// Adds the batch to the logs, and finds the subscriptions of which it does not go on where the log
    /// ended: the bus has compacted away what lay between. Each comes with that end.
    fn append(&mut self, publications: &[Arc<Publication>]) -> Vec<(SubId, u64)> {
        let mut holes: Vec<(SubId, u64)> = Vec::new();
        let mut heads: Vec<(SubId, u64)> = Vec::new();
        for publication in publications {
            let sub = publication.sub();
            let view = &mut self.views[sub.index()];
            let head = view.head();
            let begun = match heads.iter().find(|(known, _)| *known == sub) {
                Some((_, begun)) => *begun,
                None => {
                    heads.push((sub, head));
                    head
                }
            };
            if publication.stored().seq > head + 1 && !holes.contains(&(sub, begun)) {
                holes.push((sub, begun));
            }
            view.append(publication);
        }
        let now = self.shared.clock.timestamp();
        for (sub, _) in heads {
            self.views[sub.index()].expire(now);
        }
        holes
    }

    /// Sessions that are live on a subscription with a hole get this batch of it from the log instead,
    /// which tells them of what they do not get.
    fn hold_back(&mut self, holes: &[(SubId, u64)]) -> Vec<(u32, SubId, u64)> {
        let mut skipped = Vec::new();
        for (sub, head) in holes {
            for key in &self.lists[sub.index()] {
                let Some(connection) = self.connections.get_mut(*key as usize) else { continue };
                if connection.live.contains(*sub) {
                    connection.live.remove(*sub);
                    skipped.push((*key, *sub, *head));
                }
            }
        }
        skipped
    }

    fn catch_up_over(&mut self, skipped: Vec<(u32, SubId, u64)>) {
        for (key, sub, head) in skipped {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            let catch_up = CatchUp::After { seq: head, behind: false };
            // It may have ended or left over something else of the batch.
            if connection.session().is_none() || !connection.places.iter().any(|(joined, _)| *joined == sub) {
                catch_up.give_up(&self.views[sub.index()], Lost::Closed);
                continue;
            }
            let pending = connection.pending();
            pending.outbox.begin(sub, head);
            pending.set_catch_up(sub, catch_up);
            self.flush(key);
        }
    }

    /// Tells the session what became of its frames; it may decide to end.
    pub(super) fn on_attempts(&mut self, key: u32, attempts: Attempts) {
        let mut actions = Vec::new();
        let env = Env::of(&self.shared, (&self.control, &self.catalog), &self.views, None);
        let Some(session) = self.connections.get_mut(key as usize).and_then(Connection::session) else {
            return;
        };
        for attempt in attempts {
            let frame = match attempt {
                Attempt::Placed => {
                    session.sent(env.now);
                    continue;
                }
                Attempt::Refused(frame) => frame,
            };
            env.shared.metrics.send_failures.inc();
            let subscription = frame.place().map(|place| env.catalog.name(place.sub));
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

/// Gives one session what is due to it, unless that was done already.
fn visit(
    connection: &mut Connection,
    batch: &mut Batch<'_>,
    of: (SubMask, Coding),
    (sent, mut at): (Sent, Instant),
    local: &mut Local,
) -> Visit {
    let part = batch.part(of);
    let written = match sent {
        Sent::Bytes(written) => Ok(written),
        Sent::Broken => {
            lose(batch, of.0);
            return Visit::Gone;
        }
        Sent::NotTried => {
            let begun = Instant::now();
            let written = part.give(|slices| connection.socket.write(slices));
            at = Instant::now();
            local.sending += at.duration_since(begun);
            written
        }
    };
    let Ok(written) = written else {
        lose(batch, of.0);
        return Visit::Gone;
    };
    if written < part.bytes {
        local.bytes_sent.inc_by(written as u64);
        return keep_rest(connection, batch, (written, at), local);
    }
    batch.delivered(of, at, 1, local);
    connection.sent_at = Some(batch.now);
    Visit::Fine
}

/// A broken connection takes nothing any more.
fn lose(batch: &Batch<'_>, subs: SubMask) {
    batch.due(subs).for_each(|publication| publication.live().lost(Lost::Closed));
}

/// The socket took less than was due: the rest waits from now on.
fn keep_rest(
    connection: &mut Connection,
    batch: &Batch<'_>,
    (written, at): (usize, Instant),
    local: &mut Local,
) -> Visit {
    let (live, coding) = (connection.live, connection.coding);
    let pending = connection.pending();
    pending.blocked = true;
    let mut skip = written;
    for (index, publication) in batch.publications.iter().enumerate() {
        let frame = publication.live();
        if !live.contains(publication.sub()) {
            continue;
        }
        let len = frame.bytes(coding).len();
        if skip >= len {
            skip -= len;
            local.sent.inc();
            let seconds = at.duration_since(publication.received()).as_secs_f64();
            local.delivery.observe(seconds, 1, at, frame.is_sampled(), || frame.subject());
            local.reached(frame, 1, batch.time.age(frame, at), at);
            local.bytes_out.observe(len as f64);
            frame.left(at);
            continue;
        }
        let mut rest = index;
        if skip > 0 {
            pending.outbox.push_forced(frame.clone(), batch.now);
            pending.outbox.begin_front(skip);
            enqueued(publication);
            rest += 1;
        }
        return queue(connection, batch, &batch.publications[rest..], local);
    }
    Visit::Fine
}

/// Something waits already, so this waits behind it.
fn queue(
    connection: &mut Connection,
    batch: &Batch<'_>,
    publications: &[Arc<Publication>],
    local: &mut Local,
) -> Visit {
    connection.tell_sent();
    let Connection { live, pending: Some(pending), role: Role::Session(session), .. } = connection else {
        return Visit::Fine;
    };
    let mut attempts = Vec::new();
    for publication in publications {
        match pending.offer(live, publication, batch.room, batch.now) {
            Offered::Passed => continue,
            Offered::Refused => {
                local.books.dropped(publication.sub(), Dropped::Refused, 1);
                attempts.push(Attempt::Refused(publication.live().clone()));
                continue;
            }
            Offered::Queued | Offered::Coalesced => enqueued(publication),
        }
        // Failures count in a row, so the order in which both came matters.
        if attempts.is_empty() {
            session.sent(batch.now);
        } else {
            attempts.push(Attempt::Placed);
        }
    }
    if attempts.is_empty() { Visit::Fine } else { Visit::Refused(attempts) }
}

fn enqueued(publication: &Publication) {
    if let Some(tally) = publication.tally() {
        tally.enqueued();
    }
}
