//! What a shard does for its sessions: beginning, carrying out their actions, deadlines, ending.

use std::sync::Arc;

use hiveops_proto::control::ControlView;
use hiveops_proto::{ConnectionId, DisconnectReason, ServerFrame};
use mio::{Interest, Token};

use super::drain::{Plan, Turn};
use super::env::Env;
use super::fan_out::{Attempt, Attempts};
use super::{Admission, EXPIRE_EVERY_MS, Intent, Refused, Shard, Stop, Stopping};
use crate::bus::Reset;
use crate::catalog::{Catalog, SubId, SubMask};
use crate::hub::books::Dropped;
use crate::hub::catch_up::CatchUp;
use crate::hub::connection::{Connection, Role};
use crate::hub::frame::{Publication, SealedFrame};
use crate::hub::outbox::{Item, Pushed, Room};
use crate::hub::socket::Socket;
use crate::session::{Action, Ending, Event, Session, Start};
use crate::telemetry::metrics::{Discarded, SnapshotReason};
use crate::trace::Lost;
use crate::ws::closing::{Cause, Closing, LINGER_LEASE_LOST, LINGER_MAX};
use crate::ws::{self, Parser};

impl Shard {
    pub(super) fn admit(&mut self, admission: Admission) {
        let Admission { socket, tls, read, coding, intent, working: _working } = admission;
        // Its handshake was under way when the node was told to stop, or when its place was lost.
        let refused = self.stopping.as_ref().map(|stopping| stopping.stop.reason);
        let refused = refused.or_else(|| self.place_lost(&intent)).or_else(|| self.credential_lost(&intent));
        let intent = refused.map_or(intent, |reason| Intent::Refuse(reason.into()));
        let mut socket = Socket::new(socket, tls);
        let entry = self.connections.vacant_entry();
        let key = entry.key() as u32;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(socket.source(), Token(entry.key()), interest) {
            // Out of memory or file descriptors: the socket closes as it is dropped.
            tracing::error!(error = %error, "socket could not be watched");
            return;
        }
        self.generation = self.generation.wrapping_add(1);
        let refused = if let Intent::Refuse(refused) = &intent { Some(*refused) } else { None };
        let (role, registration, actions) = self.begin(intent);
        // Shown at once: whoever deals with the sessions of the node finds each that has heard of itself.
        self.gauges.add_sessions(usize::from(registration.is_some()));
        self.connections.insert(Connection {
            socket,
            parser: Parser::new(),
            coding,
            role,
            registration,
            places: Vec::new(),
            live: SubMask::default(),
            pending: None,
            sent_at: None,
            visited: self.stamp,
            generation: self.generation,
            again: false,
            gone: None,
        });
        self.schedule(key);
        match refused {
            Some(Refused { reason, code }) => {
                let frame = ws::close_frame(code.as_u16(), reason.as_str());
                self.close_with(key, reason, frame, Cause::Ours);
            }
            None => self.apply(key, actions, None),
        }
        // What arrived in the socket before it was registered is reported by the next poll.
        self.consume_bytes(key, &read);
        self.read_taken(key);
    }

    fn begin(&self, intent: Intent) -> (Role, Option<crate::hub::registry::Registration>, Vec<Action>) {
        let mut actions = Vec::new();
        match intent {
            Intent::Open(setup, registration) => {
                tracing::info!(
                    correlation_id = %setup.correlation_id,
                    connection_id = %setup.connection_id,
                    node_id = %self.shared.node_id,
                    "session opened"
                );
                let session = Session::open(*setup, &self.env(), &mut actions);
                self.shared.metrics.connections.inc();
                (Role::Session(Box::new(session)), Some(registration), actions)
            }
            Intent::Refuse(_) => (Role::Closing(Closing::new(Cause::Ours)), None, actions),
            #[cfg(feature = "echo-endpoint")]
            Intent::Echo => (Role::Echo, None, actions),
        }
    }

    pub(super) fn env(&self) -> Env<'_> {
        Env::of(&self.shared, (&self.control, &self.catalog), &self.views, None)
    }

    /// Carries out what a session decided, in its order. `ping` is the payload of the ping being handled.
    pub(super) fn apply(&mut self, key: u32, actions: Vec<Action>, ping: Option<&[u8]>) {
        if actions.is_empty() {
            return;
        }
        let mut attempts = Vec::new();
        for action in actions {
            match action {
                Action::Send(frame) => self.send(key, &frame, &mut attempts),
                Action::Join(sub, start) => self.join(key, sub, &start),
                Action::Leave(sub) => self.leave(key, sub),
                Action::Dropped => self.shared.metrics.dropped_rate_limit.inc(),
                Action::Denied(denial, id) => {
                    self.denied(denial, &id);
                }
                Action::Refreshed => {
                    self.shared.metrics.auth_refreshed.inc();
                    self.schedule_anew(key);
                }
                Action::KeptInOutage => self.shared.metrics.auth_kept.inc(),
                Action::Pong => self.send_control(key, ws::pong_frame(ping.unwrap_or_default())),
                Action::Ping => self.send_control(key, ws::ping_frame(&[])),
                Action::Close(reason) => self.begin_close(key, reason),
            }
        }
        // Several frames leave in one write.
        self.flush(key);
        if !attempts.is_empty() {
            self.on_attempts(key, attempts);
        }
    }

    fn send(&mut self, key: u32, frame: &ServerFrame, attempts: &mut Attempts) {
        let metrics = &self.shared.metrics;
        match frame {
            ServerFrame::ErrorFrame(error) => {
                metrics.errors_sent.with_label_values(&[error.code.as_str()]).inc()
            }
            ServerFrame::DataError(error) => {
                metrics.errors_sent.with_label_values(&[error.code.as_str()]).inc()
            }
            _ => {}
        }
        if let ServerFrame::DisconnectNotice(notice) = frame
            && is_for_its_pace(notice.reason)
        {
            self.discard_queue(key, Discarded::Backpressure);
        }
        let sealed = SealedFrame::seal(frame);
        let (room, now) = (Room::of(&self.control.limits), self.now());
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let notice = matches!(frame, ServerFrame::DisconnectNotice(_));
        let pending = connection.pending();
        if notice {
            // Nothing may come between the notice and the close, and the notice must find room.
            pending.forget_all(&self.views, lost_by(frame));
            pending.outbox.push_forced(sealed, now);
        } else if pending.outbox.push(sealed.clone(), room, now) == Pushed::Full {
            attempts.push(Attempt::Refused(sealed));
        } else if !attempts.is_empty() {
            attempts.push(Attempt::Placed);
        } else if let Some(session) = connection.session() {
            session.sent(now);
        }
    }

    pub(super) fn send_control(&mut self, key: u32, frame: bytes::Bytes) {
        let now = self.now();
        if let Some(connection) = self.connections.get_mut(key as usize) {
            // Beyond the bound the peer does not read what it asked for, and misses nothing by it.
            let _ = connection.pending().outbox.push_control(frame, now);
        }
    }

    fn join(&mut self, key: u32, sub: SubId, start: &Start) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let list = &mut self.lists[sub.index()];
        connection.places.push((sub, list.len() as u32));
        list.push(key);
        self.gauges.set_joined(sub, list.len());
        let view = &mut self.views[sub.index()];
        let metrics = &self.shared.metrics;
        let frames: Arc<[SealedFrame]> = match start {
            Start::Snapshot => {
                metrics.snapshots.with_label_values(&[SnapshotReason::Join.as_str()]).inc();
                let clock = self.shared.clock;
                view.snapshot(clock.timestamp(), || clock.correlation_id())
            }
            Start::After(seq) => {
                let frames = view.replay_after(*seq);
                metrics.replayed.inc_by(frames.len() as u64);
                frames.into()
            }
        };
        connection.pending().set_catch_up(sub, CatchUp::Frames { frames, next: 0, then: view.head() });
    }

    pub(super) fn leave(&mut self, key: u32, sub: SubId) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.live.remove(sub);
        if let Some(pending) = connection.pending.as_mut() {
            let waited = pending.forget(&self.views[sub.index()], Lost::Unsubscribed);
            self.local.books.dropped(sub, Dropped::Left, waited);
        }
        let Some(at) = connection.places.iter().position(|(joined, _)| *joined == sub) else { return };
        let (_, place) = connection.places.swap_remove(at);
        let list = &mut self.lists[sub.index()];
        list.swap_remove(place as usize);
        let moved = list.get(place as usize).copied();
        self.gauges.set_joined(sub, list.len());
        // The last of the list has taken the place.
        let moved = moved.and_then(|moved| self.connections.get_mut(moved as usize));
        if let Some((_, known)) =
            moved.and_then(|moved| moved.places.iter_mut().find(|(joined, _)| *joined == sub))
        {
            *known = place;
        }
    }

    /// Takes the session out of everything and lets the connection end in order.
    pub(super) fn begin_close(&mut self, key: u32, reason: DisconnectReason) {
        self.close_with(
            key,
            reason,
            ws::close_frame(reason.close_code().as_u16(), reason.as_str()),
            Cause::Ours,
        );
    }

    pub(super) fn close_with(
        &mut self,
        key: u32,
        reason: DisconnectReason,
        frame: bytes::Bytes,
        cause: Cause,
    ) {
        self.end_session(key, reason);
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.role = Role::Closing(Closing::new(cause));
        let pending = connection.pending();
        pending.forget_all(&self.views, Lost::Closed);
        pending.outbox.push_close(frame, now);
        self.generation = self.generation.wrapping_add(1);
        connection.generation = self.generation;
        let linger = if reason == DisconnectReason::LeaseLost { LINGER_LEASE_LOST } else { LINGER_MAX };
        self.wheel.insert((key, self.generation), now.plus(linger));
        self.flush(key);
    }

    /// The session is over: it leaves every list and is counted, once.
    fn end_session(&mut self, key: u32, reason: DisconnectReason) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let Some(session) = connection.session() else { return };
        let metrics = &self.shared.metrics;
        metrics.disconnections.with_label_values(&[reason.as_str()]).inc();
        if reason == DisconnectReason::Backpressure {
            metrics.backpressure_disconnects.with_label_values(&["outbox_full"]).inc();
        }
        if reason == DisconnectReason::IdleTimeout {
            metrics.idle_disconnects.inc();
        }
        tracing::info!(
            connection_id = %session.connection_id(),
            node_id = %self.shared.node_id,
            reason = reason.as_str(),
            code = reason.close_code().as_u16(),
            "session ended"
        );
        let joined: Vec<SubId> = connection.places.iter().map(|(sub, _)| *sub).collect();
        if let Some(registration) = &mut connection.registration {
            registration.ends();
        }
        for sub in joined {
            self.leave_list(key, sub);
        }
    }

    /// Like [`Shard::leave`], but what is queued may still be sent.
    fn leave_list(&mut self, key: u32, sub: SubId) {
        let waiting = self.connections.get_mut(key as usize).and_then(|connection| connection.pending.take());
        self.leave(key, sub);
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.pending = waiting;
        }
    }

    /// Throws away what waits for a session that did not keep up, so that its notice gets through.
    pub(super) fn discard_queue(&mut self, key: u32, reason: Discarded) {
        let Some(pending) = self.connections.get_mut(key as usize).and_then(|it| it.pending.as_mut()) else {
            return;
        };
        let gone = pending.outbox.clear();
        let frames = gone.iter().filter_map(Item::frame);
        frames.for_each(|frame| frame.lost(Lost::Backpressure));
        for sub in gone.iter().filter_map(Item::due) {
            self.local.books.dropped(sub, Dropped::Backpressure, 1);
        }
        self.shared.metrics.discarded.with_label_values(&[reason.as_str()]).inc_by(gone.len() as u64);
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, key: u32) {
        let Some(connection) = self.connections.get(key as usize) else { return };
        let reason = connection.gone.unwrap_or(DisconnectReason::ClientGone);
        self.end_session(key, reason);
        let Some(mut connection) = self.connections.try_remove(key as usize) else { return };
        if let Some(pending) = &mut connection.pending {
            pending.outbox.count_replaced(|sub| self.local.books.coalesced(sub));
            pending.outbox.due().for_each(|sub| self.local.books.dropped(sub, Dropped::Closed, 1));
            pending.abandon(&self.views);
            let label = [Discarded::Closed.as_str()];
            let left = pending.outbox.frames() as u64;
            self.shared.metrics.discarded.with_label_values(&label).inc_by(left);
            self.outbox_frames -= pending.counted;
        }
        // The kernel forgets a closed socket by itself; an error here changes nothing.
        let _ = self.poll.registry().deregister(connection.socket.source());
        // Its name and its place are free before it is seen to have gone.
        let counted = connection.registration.take().is_some();
        self.gauges.take_sessions(usize::from(counted));
        if self.connections.is_empty() {
            // After a storm the slab gives its memory back.
            self.connections.shrink_to_fit();
        }
    }

    /// Sets the timer of a session that has none.
    fn schedule(&mut self, key: u32) {
        let limits = &self.control.limits;
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        let generation = connection.generation;
        if let Some(session) = connection.session() {
            let at = session.next_deadline(limits);
            self.wheel.insert((key, generation), at);
        }
    }

    /// The same for one whose deadline may have moved forward.
    fn schedule_anew(&mut self, key: u32) {
        self.generation = self.generation.wrapping_add(1);
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.generation = self.generation;
        }
        self.schedule(key);
    }

    /// Lets every session whose time may have come look at its deadlines.
    pub(super) fn tick(&mut self) {
        let now = self.now();
        let mut due = Vec::new();
        self.wheel.advance(now, &mut due);
        for (key, generation) in due {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            if connection.generation != generation {
                continue;
            }
            if matches!(connection.role, Role::Closing(..)) {
                self.on_close_deadline(key);
                continue;
            }
            self.handle(key, Event::Tick);
            self.schedule(key);
        }
        if now >= self.expired_at.plus_millis(EXPIRE_EVERY_MS) {
            self.expired_at = now;
            let timestamp = self.shared.clock.timestamp();
            self.views.iter_mut().for_each(|view| view.expire(timestamp));
        }
    }

    /// Lets a session handle an event that does not come from its socket.
    pub(super) fn handle(&mut self, key: u32, event: Event<'_>) {
        let mut actions = Vec::new();
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.tell_sent();
        let Connection { role, pending, .. } = connection;
        let env = Env::of(&self.shared, (&self.control, &self.catalog), &self.views, pending.as_deref());
        if let Role::Session(session) = role {
            session.handle(event, &env, &mut actions);
        }
        self.apply(key, actions, None);
    }

    pub(super) fn doom(&mut self, key: u32, reason: DisconnectReason) {
        if let Some(connection) = self.connections.get_mut(key as usize)
            && connection.gone.is_none()
        {
            connection.gone = Some(reason);
            self.doomed.push(key);
        }
    }

    /// A log was read anew: everybody who is joined gets its state.
    pub(super) fn reset(&mut self, reset: &Reset, entries: &[Arc<Publication>]) {
        let index = reset.sub.index();
        // A log that the node did not have before begins like this.
        self.make_room();
        let sessions = self.lists[index].clone();
        for key in &sessions {
            let pending = self.connections.get_mut(*key as usize).and_then(|it| it.pending.as_mut());
            if let Some(pending) = pending {
                let waited = pending.forget(&self.views[index], Lost::Reset);
                self.local.books.dropped(reset.sub, Dropped::Reset, waited);
            }
        }
        self.views[index].reset(reset, entries);
        if sessions.is_empty() {
            return;
        }
        let clock = self.shared.clock;
        let frames = self.views[index].snapshot(clock.timestamp(), || clock.correlation_id());
        let reason = [SnapshotReason::Epoch.as_str()];
        self.shared.metrics.snapshots.with_label_values(&reason).inc_by(sessions.len() as u64);
        for key in sessions {
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            connection.live.remove(reset.sub);
            let pending = connection.pending();
            let catch_up = CatchUp::Frames { frames: Arc::clone(&frames), next: 0, then: reset.head };
            pending.set_catch_up(reset.sub, catch_up);
            self.flush(key);
        }
    }

    /// New limits hold from now on, for the deadlines that run as well. Sessions leave what the contract does
    /// not declare any more, and hear whether it serves their version.
    pub(super) fn set_control(&mut self, view: Arc<ControlView>, catalog: Arc<Catalog>) {
        let before = std::mem::replace(&mut self.control, view);
        let contract = std::mem::replace(&mut self.catalog, catalog);
        let is_news = !Arc::ptr_eq(&contract, &self.catalog)
            || before.contract.supported_versions != self.control.contract.supported_versions;
        let is_access_news = before.access != self.control.access;
        let keys: Vec<u32> = self.connections.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            if is_access_news {
                self.handle(key, Event::Access);
            }
            if is_news {
                self.handle(key, Event::Contract);
            }
            let limits = &self.control.limits;
            let Some(connection) = self.connections.get_mut(key as usize) else { continue };
            // One that comes up early is set again; only one that would come up late needs another timer.
            let sooner = connection
                .session()
                .is_some_and(|session| session.next_deadline(limits) < session.next_deadline(&before.limits));
            if sooner {
                self.schedule_anew(key);
            }
        }
    }

    pub(super) fn disconnect(&mut self, id: &ConnectionId, ending: Ending) -> bool {
        let named = |connection: &Connection| match &connection.role {
            Role::Session(session) => session.connection_id() == id,
            _ => false,
        };
        let found =
            self.connections.iter().find(|(_, connection)| named(connection)).map(|(key, _)| key as u32);
        if let Some(key) = found {
            self.handle(key, Event::Disconnect(ending));
        }
        found.is_some()
    }

    /// Ends every session in its slot; the shard ends when all are gone, or `linger` after the last slot.
    pub(super) fn begin_stop(&mut self, stop: Stop, turn: Turn) {
        let sessions =
            self.connections.iter().filter(|(_, connection)| matches!(connection.role, Role::Session(_)));
        let keys = sessions.map(|(key, _)| key as u32);
        let plan = Plan::new(keys, self.now(), stop.window, turn);
        let until = plan.last().plus(stop.linger);
        self.stopping = Some(Stopping { stop, plan, until });
    }

    /// Ends those sessions whose slot has come. What waits for them leaves before the notice.
    pub(super) fn send_off(&mut self) {
        let now = self.now();
        while let Some(Stopping { stop, plan, .. }) = self.stopping.as_mut()
            && let Some(key) = plan.take_due(now)
        {
            let retry_after_ms = Some(self.shared.hints.next(stop.window));
            // One that has gone by itself, or whose key is another's by now, is no session and hears nothing.
            let ending = Ending { retry_after_ms, ..Ending::new(stop.reason) };
            self.handle(key, Event::Disconnect(ending));
        }
    }
}

/// Why a session that gets this notice does not get what it still lacks.
fn lost_by(frame: &ServerFrame) -> Lost {
    match frame {
        ServerFrame::DisconnectNotice(notice) if is_for_its_pace(notice.reason) => Lost::Backpressure,
        _ => Lost::Closed,
    }
}

/// Whether what waits for such a session is thrown away.
fn is_for_its_pace(reason: DisconnectReason) -> bool {
    matches!(reason, DisconnectReason::Backpressure | DisconnectReason::RateLimitAbuse)
}
