//! A session that is never closed, against the rules that clients apply (the reference client's): whatever
//! is published and however slowly it reads, it sees no gap, misses no event and ends with the latest
//! values. And of each publication that was due to it, exactly one thing is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use hiveops_client::continuity::{Continuity, Effect};
use hiveops_proto::frame::{Coalesced, Pong, SubscriptionUpdated};
use hiveops_proto::{CorrelationId, Position, Positions, ServerFrame, SubscriptionName, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::board::testing::catalog;
use crate::hub::books::{Books, Dropped};
use crate::hub::frame::SealedFrame;
use crate::hub::outbox::{Item, Omission};
use crate::hub::testing::Source;
use crate::trace::Tally;

const NOW: Moment = Moment::from_millis(0);
const NAMES: [&str; 2] = ["agents", "tasks"];

/// What one step of a test does; `sub` is an index into [`NAMES`].
#[derive(Debug, Clone)]
enum Step {
    Update {
        sub: usize,
        key: u8,
        pad: usize,
    },
    Remove {
        sub: usize,
        key: u8,
    },
    Event {
        sub: usize,
        pad: usize,
    },
    /// An update behind some that the bus compacted away before the node read them: all of one key.
    Skip {
        sub: usize,
        key: u8,
        by: u64,
    },
    /// The peer takes this many bytes.
    Read(usize),
    Ping,
    /// Asks for a pong, which says where the session stands.
    Ask,
    Leave(usize),
    /// Joins from the start.
    Join(usize),
    /// Joins anew from where the client stands.
    Resume(usize),
    /// The log begins a new life, with the values that it has.
    Renew(usize),
}

/// The log of one subscription, as the bus has it.
struct Log {
    source: Source,
    epoch: u64,
    head: u64,
    values: BTreeMap<u8, u64>,
    events: BTreeSet<u64>,
}

/// The client, by its rules.
#[derive(Default)]
struct Client {
    continuity: Continuity,
    /// Per subscription: the position of the last snapshot, and the events since.
    events: BTreeMap<SubscriptionName, (u64, BTreeSet<u64>)>,
    /// The last live `seq` since the subscription was joined.
    last: BTreeMap<SubscriptionName, u64>,
    controls: usize,
    wishes: Vec<Positions>,
}

struct Session {
    logs: Vec<Log>,
    views: Vec<View>,
    live: SubMask,
    joined: SubMask,
    pending: Option<Pending>,
    room: Room,
    /// Bytes that the socket takes at present.
    free: usize,
    client: Client,
    /// Of everything that was published.
    tallies: Vec<Arc<Tally>>,
    /// As the shard keeps them.
    books: Books,
}

impl Client {
    fn take(&mut self, frame: &SealedFrame) {
        let bytes = frame.bytes(Coding::Plain);
        let header = match bytes[1] {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        let frame: ServerFrame = serde_json::from_slice(&bytes[header..]).unwrap();
        match &frame {
            ServerFrame::SubscriptionUpdated(updated) => {
                for name in updated.recovered.keys() {
                    self.last.remove(name);
                }
            }
            ServerFrame::Snapshot(snapshot) => drop(self.last.remove(&snapshot.subscription)),
            ServerFrame::Publication(publication) if !publication.replayed => {
                let before = self.last.insert(publication.subscription.clone(), publication.seq);
                assert!(before.is_none_or(|before| publication.seq > before), "seq only grows: {frame:?}");
            }
            _ => {}
        }
        for effect in self.continuity.handle(&frame) {
            self.note(effect, &frame);
        }
    }

    fn note(&mut self, effect: Effect, frame: &ServerFrame) {
        match (effect, frame) {
            (Effect::Gap { .. }, _) => panic!("a gap: {frame:?}"),
            (Effect::Resubscribe { since }, _) => self.wishes.push(since),
            (Effect::Deliver, ServerFrame::Publication(publication))
                if publication.message_type.as_str() == "task_event" =>
            {
                let (_, events) = self.events.entry(publication.subscription.clone()).or_default();
                assert!(events.insert(publication.seq), "an event comes once: {frame:?}");
            }
            (Effect::Snapshot { subscription, seq, .. }, _) => {
                self.events.insert(subscription, (seq, BTreeSet::new()));
            }
            (Effect::Left { subscription }, _) => drop(self.events.remove(&subscription)),
            _ => {}
        }
    }
}

impl Session {
    fn new(room: Room) -> Self {
        let logs = NAMES.map(|name| Log {
            source: Source::new(name),
            epoch: crate::hub::testing::EPOCH,
            head: 0,
            values: BTreeMap::new(),
            events: BTreeSet::new(),
        });
        let views = catalog().names().iter().map(|name| Source::new(name.as_str()).view()).collect();
        Self {
            logs: logs.into(),
            views,
            live: SubMask::default(),
            joined: SubMask::default(),
            pending: None,
            room,
            free: 0,
            client: Client::default(),
            tallies: Vec::new(),
            books: Books::default(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Update { sub, key, pad } => {
                self.publish(sub, Some(key), |source, seq| source.update(seq, &key.to_string(), pad))
            }
            Step::Remove { sub, key } => {
                self.publish(sub, None, |source, seq| source.removal(seq, &key.to_string()));
                self.logs[sub].values.remove(&key);
            }
            Step::Event { sub, pad } => {
                self.publish(sub, None, |source, seq| source.event(seq, pad));
                let log = &mut self.logs[sub];
                log.events.insert(log.head);
            }
            Step::Skip { sub, key, by } => {
                self.logs[sub].head += by;
                self.publish(sub, Some(key), |source, seq| source.update(seq, &key.to_string(), 0));
            }
            Step::Read(bytes) => {
                self.free += bytes;
                self.flush();
            }
            Step::Ping => {
                let pending = self.pending.get_or_insert_default();
                let _ = pending.outbox.push_control(bytes::Bytes::from_static(b"ping"), NOW);
                self.flush();
            }
            Step::Ask => self.tell(),
            Step::Leave(sub) => {
                self.leave(sub);
                self.answer(&[]);
            }
            Step::Join(sub) if self.joined.contains(self.logs[sub].source.sub) => {}
            Step::Join(sub) => self.join(sub, None),
            Step::Resume(sub) => {
                let name = &self.logs[sub].source.name;
                let since = self.client.continuity.positions().get(name).cloned();
                if self.joined.contains(self.logs[sub].source.sub) && since.is_some() {
                    self.join(sub, since);
                }
            }
            Step::Renew(sub) => self.renew(sub),
        }
        while let Some(since) = self.client.wishes.pop() {
            for (name, position) in since {
                let sub = NAMES.iter().position(|known| *known == name.as_str()).unwrap();
                self.join(sub, Some(position));
            }
        }
        self.check();
    }

    /// What the shard does with a publication, of one session.
    fn publish(&mut self, sub: usize, key: Option<u8>, make: impl Fn(&Source, u64) -> Arc<Publication>) {
        let log = &mut self.logs[sub];
        log.head += 1;
        let publication = make(&log.source, log.head);
        if let Some(key) = key {
            log.values.insert(key, log.head);
        }
        let id = log.source.sub;
        let tally = publication.tally().unwrap();
        tally.due_to(usize::from(self.joined.contains(id)));
        self.tallies.push(Arc::clone(tally));
        let view = &mut self.views[id.index()];
        let head = view.head();
        view.append(&publication);
        if publication.stored().seq > head + 1 && self.live.contains(id) {
            self.live.remove(id);
            let pending = self.pending.get_or_insert_default();
            pending.outbox.begin(id, head);
            pending.set_catch_up(id, CatchUp::After { seq: head, behind: false });
            return self.flush();
        }
        if let Some(pending) = &mut self.pending {
            self.books.due(id, u64::from(pending.is_due(self.live, id)));
            self.offer(&publication);
        } else if self.live.contains(id) {
            self.books.due(id, 1);
            self.write(&publication);
        }
    }

    fn offer(&mut self, publication: &Publication) {
        let pending = self.pending.get_or_insert_default();
        if pending.offer(&mut self.live, publication, self.room, NOW) == Offered::Refused {
            self.books.dropped(publication.sub(), Dropped::Refused, 1);
        }
    }

    fn write(&mut self, publication: &Publication) {
        let frame = publication.live();
        let written = self.free.min(frame.len());
        self.free -= written;
        if written == frame.len() {
            frame.left(Instant::now());
            self.books.delivered(publication.sub(), 1);
            return self.client.take(frame);
        }
        if written == 0 {
            self.offer(publication);
        } else {
            let pending = self.pending.get_or_insert_default();
            pending.outbox.push_forced(frame.clone(), NOW);
            pending.outbox.begin_front(written);
        }
    }

    /// What the shard does when the socket takes more.
    fn flush(&mut self) {
        while let Some(pending) = &mut self.pending {
            let books = &mut self.books;
            let feeding = pending.feed(&mut self.live, &self.views, (self.room, NOW), |sub| books.fed(sub));
            assert!(!feeding.lost);
            pending.outbox.count_replaced(|sub| books.coalesced(sub));
            if pending.outbox.is_empty() {
                assert!(pending.is_done(), "something is missing, and nothing will bring it");
                self.pending = None;
                return;
            }
            let views = &self.views;
            pending.outbox.prepare(|omission| notice(&omission, views));
            let due: usize = pending.outbox.slices().iter().map(|slice| slice.len()).sum();
            let written = due.min(self.free);
            self.free -= written;
            let client = &mut self.client;
            pending.outbox.advance(written, |item, _| {
                item.due().into_iter().for_each(|sub| books.delivered(sub, 1));
                match item {
                    Item::Frame(frame) => {
                        frame.left(Instant::now());
                        client.take(frame);
                    }
                    Item::Control(_) => client.controls += 1,
                }
            });
            pending.outbox.count_replaced(|sub| books.coalesced(sub));
            if written < due {
                return;
            }
        }
    }

    fn leave(&mut self, sub: usize) {
        let sub = self.logs[sub].source.sub;
        self.live.remove(sub);
        self.joined.remove(sub);
        if let Some(pending) = &mut self.pending {
            let waited = pending.forget(&self.views[sub.index()], Lost::Unsubscribed);
            self.books.dropped(sub, Dropped::Left, waited);
        }
    }

    fn join(&mut self, sub: usize, since: Option<Position>) {
        let id = self.logs[sub].source.sub;
        let since = since.filter(|since| self.views[id.index()].can_continue(since));
        self.joined.insert(id);
        self.answer(&[(sub, since.is_some())]);
        // As the shard does: the answer was queued before, and stays.
        self.leave(sub);
        self.joined.insert(id);
        let view = &mut self.views[id.index()];
        let frames = match since {
            Some(since) => view.replay_after(since.seq).into(),
            None => view.snapshot(Timestamp::from_millis(0), || CorrelationId::new("s").unwrap()),
        };
        let catch_up = CatchUp::Frames { frames, next: 0, then: view.head() };
        self.pending.get_or_insert_default().set_catch_up(id, catch_up);
        self.flush();
    }

    /// Says what is joined, and how what was newly joined begins.
    fn answer(&mut self, begun: &[(usize, bool)]) {
        let joined =
            self.logs.iter().map(|log| &log.source).filter(|source| self.joined.contains(source.sub));
        let place = |source: &Source| (source.name.clone(), self.views[source.sub.index()].position());
        let frame = SubscriptionUpdated {
            correlation_id: CorrelationId::new("u").unwrap(),
            timestamp: Timestamp::from_millis(0),
            subscriptions: joined.clone().map(|source| source.name.clone()).collect(),
            positions: joined.map(place).collect(),
            recovered: begun.iter().map(|(sub, how)| (self.logs[*sub].source.name.clone(), *how)).collect(),
        };
        let pending = self.pending.get_or_insert_default();
        pending.outbox.push_forced(SealedFrame::seal(&frame.into()), NOW);
        if begun.is_empty() {
            self.flush();
        }
    }

    fn tell(&mut self) {
        let pending = self.pending.get_or_insert_default();
        let mut positions = Positions::new();
        for source in
            self.logs.iter().map(|log| &log.source).filter(|source| self.joined.contains(source.sub))
        {
            let head = self.views[source.sub.index()].position();
            if let Some(seq) = pending.sent(source.sub, head.seq) {
                positions.insert(source.name.clone(), Position { seq, ..head });
            }
        }
        let correlation_id = CorrelationId::new("p").unwrap();
        let frame = Pong { correlation_id, timestamp: Timestamp::from_millis(0), positions, live: true };
        pending.outbox.push(SealedFrame::seal(&frame.into()), self.room, NOW);
        self.flush();
    }

    fn renew(&mut self, sub: usize) {
        let log = &mut self.logs[sub];
        log.epoch += 1;
        log.source = Source::in_epoch(NAMES[sub], log.epoch);
        log.events.clear();
        (log.head, log.values) = (0, log.values.keys().zip(1..).map(|(key, seq)| (*key, seq)).collect());
        log.head = log.values.len() as u64;
        let entries: Vec<_> =
            log.values.iter().map(|(key, seq)| log.source.update(*seq, &key.to_string(), 0)).collect();
        let (id, head) = (log.source.sub, log.head);
        let reset = log.source.reset(head, head);
        let view = &mut self.views[id.index()];
        if let Some(pending) = &mut self.pending {
            self.books.dropped(id, Dropped::Reset, pending.forget(view, Lost::Reset));
        }
        view.reset(&reset, &entries);
        if self.joined.contains(id) {
            let frames = view.snapshot(Timestamp::from_millis(0), || CorrelationId::new("s").unwrap());
            self.live.remove(id);
            let pending = self.pending.get_or_insert_default();
            pending.set_catch_up(id, CatchUp::Frames { frames, next: 0, then: head });
            self.flush();
        }
    }

    fn check(&mut self) {
        let books = &mut self.books;
        if let Some(pending) = &mut self.pending {
            pending.outbox.count_replaced(|sub| books.coalesced(sub));
        }
        let waiting = self.pending.iter().flat_map(|pending| pending.outbox.due());
        let books = self.books.closed_with(waiting);
        for log in &self.logs {
            let account = books.account(log.source.sub);
            assert_eq!(account.residual(), 0, "{}: {account:?}", log.source.name);
        }
        let Some(pending) = &self.pending else { return };
        pending.outbox.assert_consistent();
        assert!(!pending.is_done(), "an outbox that is drained is freed");
        let (frames, bytes) = pending.outbox.publications();
        // What is begun in the middle is forced in, and a replay is fed in before there is less room again.
        assert!(frames <= self.room.frames.max(33) + 1, "{frames} frames wait");
        assert!(bytes <= self.room.bytes.max(256 * 1_024) + 20_000, "{bytes} bytes wait");
    }

    /// Each recipient has one end, or none yet.
    fn check_tallies(&self) {
        for tally in &self.tallies {
            let counts = tally.counts();
            let ends = counts.delivered + counts.coalesced + counts.lost.iter().sum::<u32>();
            assert_eq!(ends + counts.pending(), counts.recipients, "{tally:?}");
        }
    }

    /// The session ends with whatever waits.
    fn end(mut self) {
        if let Some(pending) = &mut self.pending {
            pending.abandon(&self.views);
        }
        self.tallies.iter().for_each(|tally| assert_eq!(tally.counts().pending(), 0, "{tally:?}"));
        self.check_tallies();
    }

    /// The peer reads until nothing waits: then it must know all there is.
    fn settle(&mut self) {
        while self.pending.is_some() {
            self.step(&Step::Read(5_000));
        }
        assert!(!self.client.continuity.is_pending());
        self.tallies.iter().for_each(|tally| assert_eq!(tally.counts().pending(), 0, "{tally:?}"));
        self.check_tallies();
        for log in self.logs.iter().filter(|log| self.joined.contains(log.source.sub)) {
            let state = self.client.continuity.state(log.source.name.as_str()).unwrap();
            let seen: BTreeMap<u8, u64> =
                state.iter().map(|(_, key, item)| (key.as_str().parse().unwrap(), item.seq)).collect();
            assert_eq!(seen, log.values, "the latest values of {}", log.source.name);
            let position = &self.client.continuity.positions()[&log.source.name];
            assert_eq!(position.seq, log.head);
            let (since, events) = &self.client.events[&log.source.name];
            let due: BTreeSet<u64> = log.events.iter().copied().filter(|seq| seq > since).collect();
            assert!(due.is_subset(events), "events of {}: {events:?}, not {due:?}", log.source.name);
        }
    }
}

fn notice(omission: &Omission, views: &[View]) -> SealedFrame {
    let frame = Coalesced {
        correlation_id: CorrelationId::new("n").unwrap(),
        timestamp: Timestamp::from_millis(0),
        subscription: catalog().name(omission.sub).clone(),
        epoch: views[omission.sub.index()].position().epoch,
        from_seq: omission.from_seq,
        to_seq: omission.to_seq,
        count: omission.to_seq - omission.from_seq + 1,
    };
    SealedFrame::seal_of(omission.sub, &frame.into())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (sub, key, pad) = (0..NAMES.len(), 0..4_u8, prop_oneof![4 => 0..300_usize, 1 => 0..4_000_usize]);
    let step = prop_oneof![
        12 => (sub.clone(), key.clone(), pad.clone()).prop_map(|(sub, key, pad)| Step::Update { sub, key, pad }),
        2 => (sub.clone(), key.clone()).prop_map(|(sub, key)| Step::Remove { sub, key }),
        6 => (sub.clone(), pad).prop_map(|(sub, pad)| Step::Event { sub, pad }),
        1 => (sub.clone(), key, 1..5_u64).prop_map(|(sub, key, by)| Step::Skip { sub, key, by }),
        8 => prop_oneof![1..20_usize, 1..3_000_usize].prop_map(Step::Read),
        1 => Just(Step::Ping),
        2 => Just(Step::Ask),
        1 => sub.clone().prop_map(Step::Leave),
        2 => sub.clone().prop_map(Step::Join),
        1 => sub.clone().prop_map(Step::Resume),
        1 => sub.prop_map(Step::Renew),
    ];
    prop::collection::vec(step, 1..250)
}

proptest! {
    #[test]
    fn a_slow_client_sees_no_gap_misses_no_event_and_ends_with_the_latest_values(
        steps in steps(),
        frames in 8..40_usize,
        bytes in prop_oneof![2_000..20_000_usize, Just(1_000_000)],
    ) {
        let mut session = Session::new(Room { frames, bytes });
        session.step(&Step::Join(0));
        session.step(&Step::Join(1));
        for step in &steps {
            session.step(step);
        }
        session.settle();
    }

    #[test]
    fn whatever_happens_to_a_session_each_publication_that_was_due_to_it_has_one_end(
        steps in steps(),
        frames in 8..40_usize,
        bytes in prop_oneof![2_000..20_000_usize, Just(1_000_000)],
    ) {
        let mut session = Session::new(Room { frames, bytes });
        session.step(&Step::Join(0));
        session.step(&Step::Join(1));
        for step in &steps {
            session.step(step);
            session.check_tallies();
        }
        session.end();
    }
}
