//! Nodes that hold, what is under way between them and control, and the control that lends: the state machine
//! of the replicas itself.

use std::collections::BTreeMap;

use hiveops_control::state::{Action, Command, Init, Outcome, Reply, State};
use hiveops_proto::Timestamp;
use hiveops_proto::control::DeprecationPolicy;
use hiveops_proto::id::ClusterId;
use serde_json::Value;

use super::*;

pub(super) const LEASE: u64 = 1_000;

/// How long closing takes at most: what control leaves for it.
const LINGER: u64 = LEASE / 2;

/// Time passes in steps of this.
const TICK: u64 = 10;

/// The whole, and two users.
const THINGS: usize = 3;

pub(super) fn limits(total: u64, per_user: u64) -> Limits {
    Limits { max_connections_total: total, max_connections_per_user: per_user, ..Limits::default() }
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("u{number}")).unwrap()
}

/// Nobody, or one of the two users.
fn who(which: usize) -> Option<UserId> {
    (!which.is_multiple_of(3)).then(|| user(which % 3))
}

/// A session, from its admission until its registration is dropped.
#[derive(Debug)]
struct Session {
    user: Option<UserId>,
    era: Era,
    told: bool,
    /// When it will have gone at the latest, once it ends.
    gone_at: Option<u64>,
    /// Its node stood still when its place was lost, and has not served it since.
    is_unserved: bool,
}

/// One life of a node.
struct Life {
    holder: Holder,
    sessions: Vec<Session>,
    frozen: bool,
    /// How many of the views it has got.
    views: usize,
}

pub(super) struct World {
    now: u64,
    /// By how much the clock of the leader is ahead.
    ahead: u64,
    state: State,
    at: Revision,
    views: Vec<(Revision, Limits)>,
    nodes: Vec<Life>,
    asks: Vec<(usize, LeaseAsk)>,
    answers: Vec<(usize, u64, LeaseAnswer)>,
}

impl World {
    pub(super) fn new() -> Self {
        let mut world = Self {
            now: 0,
            ahead: 0,
            state: State::new(),
            at: Revision { term: 1, index: 0 },
            views: Vec::new(),
            nodes: Vec::new(),
            asks: Vec::new(),
            answers: Vec::new(),
        };
        let init = Init {
            cluster_id: ClusterId::new("c").unwrap(),
            limits: limits(20, 4),
            sources: BTreeMap::new(),
            contract: hiveops_proto::CONTRACT.to_owned(),
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: hiveops_proto::schema_digest(),
            lease_ms: LEASE,
        };
        assert!(world.decide(Action::Init(Box::new(init))).is_some());
        world.views.push((world.at, limits(20, 4)));
        for number in 0..3 {
            let life = world.born(number, 1);
            world.nodes.push(life);
        }
        world
    }

    fn born(&self, number: usize, incarnation: u64) -> Life {
        let mut holder = Holder::new(NodeId::new(&format!("n{number}")).unwrap(), incarnation);
        let (revision, limits) = self.views.last().unwrap();
        holder.view(*revision, limits, at(self.now));
        Life { holder, sessions: Vec::new(), frozen: false, views: self.views.len() }
    }

    /// Has something decided; none when it is refused.
    fn decide(&mut self, action: Action) -> Option<Reply> {
        self.at.index += 1;
        let clock = Timestamp::default().plus_millis(self.now + self.ahead);
        match self.state.apply(self.at, Command::new(clock, None, action)) {
            Outcome::Done { reply, .. } => Some(reply),
            Outcome::Refused(_) => None,
        }
    }

    pub(super) fn step(&mut self, (what, number, which, amount): (u8, usize, usize, u64)) {
        let life = &mut self.nodes[number];
        let acts = !life.frozen;
        match what {
            0..=2 if acts => self.ask(number, who(which), if what == 0 { 0 } else { amount }),
            3 | 4 if acts => self.exchange(number, who(which), amount, 0),
            5 if acts => self.exchange(number, who(which), 20, amount),
            6 | 29 if !self.asks.is_empty() => {
                self.hear(which, false);
            }
            7 if !self.asks.is_empty() => {
                self.hear(which, true);
            }
            8 | 9 if !self.answers.is_empty() => self.deliver(which, amount.is_multiple_of(7)),
            10 if !self.asks.is_empty() => drop(self.asks.remove(which % self.asks.len())),
            11 if !self.answers.is_empty() => drop(self.answers.remove(which % self.answers.len())),
            12..=15 if acts => (0..amount).for_each(|_| self.admit(number, who(which))),
            16 if acts => (0..amount).for_each(|_| life.holder.wait(who(which).as_ref())),
            17 if acts => (0..amount).for_each(|_| life.holder.wait_no_more(who(which).as_ref())),
            18 | 19 if acts => (0..=which).for_each(|_| self.leave(number, which)),
            20..=23 => self.pass(amount * [5, 3, 1, 1, 1, 1, 1, 1][which]),
            24 => self.set_limit(1 + amount, 1 + amount / 4),
            25 if acts => self.show(number),
            26 => {
                let incarnation = life.holder.incarnation() + 1;
                self.nodes[number] = self.born(number, incarnation);
            }
            27 => {
                self.at.term += 1;
                self.ahead += amount * 1_000;
            }
            28 => life.frozen = !life.frozen,
            _ => {}
        }
        (0..self.nodes.len()).for_each(|number| self.tick(number));
    }

    /// So many wait while control is asked; then they go away.
    fn ask(&mut self, number: usize, user: Option<UserId>, waiting: u64) {
        let life = &mut self.nodes[number];
        (0..waiting).for_each(|_| life.holder.wait(user.as_ref()));
        let ask = life.holder.ask(at(self.now));
        (0..waiting).for_each(|_| life.holder.wait_no_more(user.as_ref()));
        self.asks.push((number, ask));
    }

    /// Control is asked and answers, after some time.
    fn exchange(&mut self, number: usize, user: Option<UserId>, waiting: u64, ticks: u64) {
        self.ask(number, user, waiting);
        if self.hear(self.asks.len() - 1, false).is_some() {
            self.pass(ticks);
            self.deliver(self.answers.len() - 1, false);
        }
    }

    fn leave(&mut self, number: usize, which: usize) {
        let life = &mut self.nodes[number];
        if !life.sessions.is_empty() {
            let gone = life.sessions.remove(which % life.sessions.len());
            life.holder.leave(gone.user.as_ref(), gone.era, gone.told);
        }
    }

    fn admit(&mut self, number: usize, user: Option<UserId>) {
        let life = &mut self.nodes[number];
        if let Some(era) = life.holder.admit(user.as_ref(), at(self.now)) {
            life.sessions.push(Session { user, era, told: false, gone_at: None, is_unserved: false });
        }
    }

    /// Control hears one of the asks, in any order, and perhaps hears it again.
    fn hear(&mut self, which: usize, again: bool) -> Option<()> {
        let which = which % self.asks.len();
        let (number, ask) = if again { self.asks[which].clone() } else { self.asks.remove(which) };
        let incarnation = ask.incarnation;
        match self.decide(Action::RenewLease(Box::new(ask)))? {
            Reply::Lease(grant) => {
                self.answers.push((number, incarnation, LeaseAnswer { grant, revision: self.at }));
                Some(())
            }
            other => panic!("{other:?}"),
        }
    }

    /// A node hears one of the answers, in any order, and perhaps hears it again.
    fn deliver(&mut self, which: usize, again: bool) {
        let which = which % self.answers.len();
        let (number, incarnation, answer) = self.answers[which].clone();
        let life = &mut self.nodes[number];
        if life.frozen {
            return;
        }
        if !again {
            self.answers.remove(which);
        }
        if life.holder.incarnation() == incarnation {
            life.holder.answer(&answer, at(self.now));
        }
    }

    fn set_limit(&mut self, total: u64, per_user: u64) {
        let patch = [("max_connections_total", total), ("max_connections_per_user", per_user)];
        let patch = patch.map(|(name, value)| (name.to_owned(), value)).into();
        assert!(self.decide(Action::SetLimits { patch }).is_some());
        self.views.push((self.at, limits(total, per_user)));
    }

    /// A node gets its next view.
    fn show(&mut self, number: usize) {
        let life = &mut self.nodes[number];
        if let Some((revision, limits)) = self.views.get(life.views) {
            life.views += 1;
            life.holder.view(*revision, limits, at(self.now));
        }
    }

    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now += TICK;
            (0..self.nodes.len()).for_each(|number| self.tick(number));
        }
    }

    /// What the shards do: who has lost a place ends, and has gone in time.
    fn tick(&mut self, number: usize) {
        let (now, life) = (self.now, &mut self.nodes[number]);
        if life.frozen {
            return;
        }
        let until = life.holder.good_until().map_or(u64::MAX, Moment::as_millis);
        let era = life.holder.era(at(now));
        for session in life.sessions.iter_mut().filter(|session| session.gone_at.is_none()) {
            if session.era.all != era.all || (session.user.is_some() && session.era != era) {
                session.gone_at = Some(now + LINGER - TICK);
                session.is_unserved = now > until + TICK;
                session.told = true;
                life.holder.told(session.user.as_ref(), session.era, 1);
            }
        }
        let surplus: Vec<(Option<UserId>, u64)> =
            life.holder.surplus().map(|(user, surplus)| (user.cloned(), surplus)).collect();
        for (user, surplus) in surplus {
            let stays = |session: &&mut Session| {
                session.gone_at.is_none() && (user.is_none() || session.user == user)
            };
            let young = life.sessions.iter_mut().rev().filter(stays);
            for session in young.take(usize::try_from(surplus).unwrap()) {
                session.gone_at = Some(now + LINGER - TICK);
                session.told = true;
                life.holder.told(session.user.as_ref(), session.era, 1);
            }
        }
        let gone = life.sessions.extract_if(.., |session| session.gone_at.is_some_and(|at| at <= now));
        for session in gone {
            life.holder.leave(session.user.as_ref(), session.era, session.told);
        }
    }

    /// What control counts of each thing.
    pub(super) fn held(&self) -> [u64; THINGS] {
        let state = serde_json::to_value(&self.state).unwrap();
        let lives = state["cluster"]["leases"]["nodes"].as_object().unwrap().values();
        let lives: Vec<&Value> = lives.flat_map(|lives| lives.as_object().unwrap().values()).collect();
        std::array::from_fn(|thing| {
            let name = format!("u{thing}");
            let share =
                |life: &Value| if thing == 0 { life["total"].clone() } else { life["users"][&name].clone() };
            lives.iter().map(|life| share(life)["held"].as_u64().unwrap_or(0)).sum()
        })
    }

    /// The limits of each thing.
    pub(super) fn limit(&self) -> [u64; THINGS] {
        let limits = &self.views.last().unwrap().1;
        std::array::from_fn(|thing| {
            if thing == 0 { limits.max_connections_total } else { limits.max_connections_per_user }
        })
    }

    /// How many sessions are served, or are being closed. A node that stands still serves nobody on a lease
    /// that has run out: it closes them before anything else.
    pub(super) fn used(&self) -> [u64; THINGS] {
        std::array::from_fn(|thing| {
            let counts = |session: &&Session| {
                let has_gone = session.gone_at.is_some_and(|at| at <= self.now);
                !session.is_unserved && !has_gone && (thing == 0 || session.user == Some(user(thing)))
            };
            let has_lease = |life: &&Life| {
                !life.frozen || life.holder.good_until().is_none_or(|until| until > at(self.now))
            };
            let lives = self.nodes.iter().filter(has_lease);
            lives.map(|life| life.sessions.iter().filter(counts).count() as u64).sum()
        })
    }

    /// Puts a limit in force, lets each node have so many clients that want in, and lets everybody be heard.
    pub(super) fn settle(&mut self, limit: u64, wanted: &[u64]) {
        self.set_limit(limit, 0);
        for _ in 0..12 {
            for (number, wanted) in wanted.iter().enumerate() {
                self.show(number);
                let have = self.nodes[number].sessions.iter().filter(|session| session.gone_at.is_none());
                let more = wanted.saturating_sub(have.count() as u64);
                (0..more).for_each(|_| self.nodes[number].holder.wait(None));
                let ask = self.nodes[number].holder.ask(at(self.now));
                self.asks.push((number, ask));
                self.hear(0, false).unwrap();
                self.deliver(0, false);
                self.tick(number);
                (0..more).for_each(|_| self.nodes[number].holder.wait_no_more(None));
                (0..more).for_each(|_| self.admit(number, None));
                self.pass(LEASE / 20 / TICK);
            }
        }
        // So that what is being closed has gone; every node is heard in time.
        for _ in 0..3 {
            for number in 0..wanted.len() {
                let ask = self.nodes[number].holder.ask(at(self.now));
                self.asks.push((number, ask));
                self.hear(0, false).unwrap();
                self.deliver(0, false);
            }
            self.pass(LEASE / 4 / TICK);
        }
    }
}
