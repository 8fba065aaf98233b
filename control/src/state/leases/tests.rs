//! Leases by example, and nodes that keep the rules of `hiveops_proto::lease` in a world that loses, delays
//! and reorders what they say, kills them and changes leaders: never is more in use than the limit.

use proptest::prelude::*;

use super::*;

const LEASE: u64 = 1_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::default().plus_millis(ms)
}

fn node(number: usize) -> NodeId {
    NodeId::new(&format!("n{number}")).unwrap()
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("u{number}")).unwrap()
}

fn limits(total: u64, per_user: u64) -> Limits {
    Limits { max_connections_total: total, max_connections_per_user: per_user, ..Limits::default() }
}

/// A node that keeps all that it has, up to `want`.
fn all(want: u64) -> Wanted {
    Wanted { keep: want, want }
}

fn ask(number: usize, seq: u64, want: u64) -> LeaseAsk {
    let total = all(want);
    LeaseAsk { node: node(number), incarnation: 1, seq, total, users: BTreeMap::new() }
}

#[test]
fn three_nodes_share_exactly_the_limit() {
    let mut leases = Leases::new(LEASE).unwrap();
    let limits = limits(100, 0);
    let granted = |leases: &mut Leases, number, seq, total| {
        leases.renew(ask(number, seq, total), &limits, at(0)).unwrap()
    };
    assert_eq!(granted(&mut leases, 0, 1, 60).total, Some(60));
    assert_eq!(granted(&mut leases, 1, 1, 60).total, Some(40));
    let none = granted(&mut leases, 2, 1, 60);
    assert_eq!((none.total, none.scarce, none.users), (Some(0), true, None));
    assert_eq!(granted(&mut leases, 0, 2, 33).total, Some(33));
    assert_eq!(granted(&mut leases, 2, 2, 60).total, Some(27));
    assert!(leases.end(&node(1), 1));
    assert_eq!(granted(&mut leases, 2, 3, 60).total, Some(60));
}

#[test]
fn a_silent_nodes_budget_is_lent_again_after_one_and_a_half_leases() {
    let mut leases = Leases::new(LEASE).unwrap();
    let limits = limits(100, 0);
    let _ = leases.renew(ask(0, 1, 100), &limits, at(0)).unwrap();
    leases.expire(at(1_499));
    assert_eq!(leases.renew(ask(1, 1, 100), &limits, at(1_499)).unwrap().total, Some(0));
    assert!(!leases.list(at(1_499))[0].is_current);
    leases.expire(at(1_500));
    assert_eq!(leases.renew(ask(1, 2, 100), &limits, at(1_500)).unwrap().total, Some(100));
}

#[test]
fn a_new_leader_begins_every_lease_anew() {
    let mut leases = Leases::new(LEASE).unwrap();
    let _ = leases.renew(ask(0, 1, 100), &limits(100, 0), at(0)).unwrap();
    // The new leader's clock is an hour ahead.
    let later = 3_600_000;
    leases.new_term(at(later));
    leases.expire(at(later + 1_499));
    assert_eq!(leases.list(at(later)).len(), 1);
}

#[test]
fn late_asks_and_old_lives_are_refused() {
    let mut leases = Leases::new(LEASE).unwrap();
    let limits = limits(100, 0);
    let _ = leases.renew(ask(0, 5, 10), &limits, at(0)).unwrap();
    assert_eq!(leases.renew(ask(0, 5, 10), &limits, at(0)).unwrap_err().code, RefusalCode::Superseded);
    let reborn = LeaseAsk { incarnation: 2, ..ask(0, 1, 95) };
    assert_eq!(leases.renew(reborn, &limits, at(0)).unwrap().total, Some(90), "the old life still holds");
    assert_eq!(leases.renew(ask(0, 6, 10), &limits, at(0)).unwrap_err().code, RefusalCode::Superseded);
}

#[test]
fn users_have_a_limit_of_their_own_over_all_nodes() {
    let mut leases = Leases::new(LEASE).unwrap();
    let upper = limits(0, 3);
    let of = |number, seq, wanted| LeaseAsk {
        users: BTreeMap::from([(user(1), all(wanted))]),
        ..ask(number, seq, 9)
    };
    let told = leases.renew(of(0, 1, 2), &upper, at(0)).unwrap();
    assert_eq!((told.total, told.users.unwrap()[&user(1)]), (None, 2));
    assert_eq!(leases.renew(of(1, 1, 2), &upper, at(0)).unwrap().users.unwrap()[&user(1)], 1);
    let lower = limits(0, 2);
    leases.limits_changed(&lower);
    // The first node has one too many, and hears of it without having asked.
    let told = leases.renew(ask(0, 2, 9), &lower, at(0)).unwrap();
    assert_eq!(told.users.unwrap()[&user(1)], 1);
}

#[test]
fn nonsense_is_refused() {
    assert!(Leases::new(1).is_err());
    let mut leases = Leases::new(LEASE).unwrap();
    assert!(leases.renew(ask(0, 1, u64::MAX), &limits(0, 0), at(0)).is_err());
    let users = (0..=USERS_PER_ASK_MAX).map(|number| (user(number), all(1))).collect();
    let many = LeaseAsk { users, ..ask(0, 1, 1) };
    assert_eq!(leases.renew(many, &limits(0, 1), at(0)).unwrap_err().code, RefusalCode::TooMany);
}

/// A limited thing: the connections of the cluster, or those of one user.
type Thing = Option<usize>;

/// The things of the model: the whole, and two users.
const THINGS: [Thing; 3] = [None, Some(0), Some(1)];

/// One life of a node that keeps the rules.
#[derive(Debug, Clone, Default)]
struct Borrower {
    incarnation: u64,
    seq: u64,
    granted: BTreeMap<Thing, u64>,
    /// Asks without an answer, by their number, with when they were sent.
    asked: BTreeMap<u64, (u64, BTreeMap<Thing, Wanted>)>,
    answered: u64,
    good_until: u64,
}

impl Borrower {
    fn may_hold(&self, thing: Thing, now: u64) -> u64 {
        if now >= self.good_until {
            return 0;
        }
        let promises = self.asked.values().filter_map(|(_, asked)| asked.get(&thing));
        promises.map(|wanted| wanted.keep).fold(self.granted.get(&thing).copied().unwrap_or(0), u64::min)
    }

    /// Asks for what is wanted; of each thing it keeps what it has, or less if it wants less.
    fn ask(&mut self, number: usize, mut want: BTreeMap<Thing, u64>, now: u64) -> LeaseAsk {
        for thing in THINGS {
            let is_open = self.asked.values().any(|(_, asked)| asked.contains_key(&thing));
            if is_open {
                want.entry(thing).or_insert_with(|| self.may_hold(thing, now));
            }
        }
        let wanted = want
            .into_iter()
            .map(|(thing, want)| (thing, Wanted { keep: want.min(self.may_hold(thing, now)), want }));
        let wanted: BTreeMap<Thing, Wanted> = wanted.collect();
        self.seq += 1;
        self.asked.insert(self.seq, (now, wanted.clone()));
        let total = wanted[&None];
        let users = wanted.iter().filter_map(|(thing, wanted)| Some((user((*thing)?), *wanted))).collect();
        LeaseAsk { node: node(number), incarnation: self.incarnation, seq: self.seq, total, users }
    }

    fn answer(&mut self, grant: &LeaseGrant, now: u64) {
        if now >= self.good_until {
            self.granted.clear();
        }
        if grant.seq <= self.answered {
            return;
        }
        let Some((sent, mentioned)) = self.asked.get(&grant.seq).cloned() else { return };
        self.answered = grant.seq;
        self.good_until = sent + grant.lease_ms;
        for (_, asked) in self.asked.range_mut(..=grant.seq).map(|(_, asked)| asked) {
            asked.retain(|thing, _| !mentioned.contains_key(thing));
        }
        self.asked.retain(|_, (_, asked)| !asked.is_empty());
        self.granted.insert(None, grant.total.unwrap());
        for number in 0..THINGS.len() - 1 {
            if let Some(granted) = grant.users.as_ref().unwrap().get(&user(number)) {
                self.granted.insert(Some(number), *granted);
            }
        }
    }
}

/// Nodes, what is under way between them and control, and control.
struct World {
    now: u64,
    /// By how much the clock of the leader is ahead.
    ahead: u64,
    leases: Leases,
    limits: Limits,
    nodes: Vec<Borrower>,
    /// Lives that have ended for control or by a crash, but whose process may be alive.
    zombies: Vec<Borrower>,
    asks: Vec<(usize, LeaseAsk)>,
    grants: Vec<(usize, u64, LeaseGrant)>,
}

impl World {
    fn new() -> Self {
        let born = Borrower { incarnation: 1, ..Borrower::default() };
        Self {
            now: 0,
            ahead: 0,
            leases: Leases::new(LEASE).unwrap(),
            limits: limits(20, 4),
            nodes: vec![born; 3],
            zombies: Vec::new(),
            asks: Vec::new(),
            grants: Vec::new(),
        }
    }

    fn clock(&self) -> Timestamp {
        at(self.now + self.ahead)
    }

    fn step(&mut self, (what, who, which, amount): (u8, usize, usize, u64)) {
        let who = who % self.nodes.len();
        match what {
            0..=3 => {
                let mut wanted = BTreeMap::from([(None, amount)]);
                wanted.extend((which % 3 > 0).then_some((Some(which % 2), amount / 4)));
                let ask = self.nodes[who].ask(who, wanted, self.now);
                self.asks.push((who, ask));
            }
            4..=7 if !self.asks.is_empty() => self.take_in(which),
            8..=10 if !self.grants.is_empty() => {
                let (who, incarnation, grant) = self.grants.remove(which % self.grants.len());
                if self.nodes[who].incarnation == incarnation {
                    self.nodes[who].answer(&grant, self.now);
                }
            }
            11 if !self.asks.is_empty() => drop(self.asks.remove(which % self.asks.len())),
            12 if !self.grants.is_empty() => drop(self.grants.remove(which % self.grants.len())),
            13 => self.now += amount * 30,
            14 => {
                self.limits = limits(1 + amount, 1 + amount / 4);
                self.leases.limits_changed(&self.limits);
            }
            15 => {
                let incarnation = self.nodes[who].incarnation + 1;
                let next = Borrower { incarnation, ..Borrower::default() };
                self.zombies.push(std::mem::replace(&mut self.nodes[who], next));
            }
            16 => {
                self.ahead += amount * 1_000;
                self.leases.new_term(self.clock());
            }
            _ => {}
        }
    }

    /// Control hears one of the asks; any order is possible, and the answer is under way.
    fn take_in(&mut self, which: usize) {
        let (who, ask) = self.asks.remove(which % self.asks.len());
        self.leases.expire(self.clock());
        let incarnation = ask.incarnation;
        if let Ok(grant) = self.leases.renew(ask, &self.limits, self.clock()) {
            self.grants.push((who, incarnation, grant));
        }
    }

    fn held(&self, thing: Thing) -> u64 {
        let share = |holder: &Holder| match thing {
            None => holder.total.held,
            Some(number) => holder.users.get(&user(number)).map_or(0, |share| share.held),
        };
        self.leases.holders().map(share).sum()
    }

    fn limit(&self, thing: Thing) -> u64 {
        match thing {
            None => self.limits.max_connections_total,
            Some(_) => self.limits.max_connections_per_user,
        }
    }

    fn in_use(&self, thing: Thing) -> u64 {
        self.nodes.iter().chain(&self.zombies).map(|life| life.may_hold(thing, self.now)).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn never_is_more_in_use_than_the_limit(
        steps in prop::collection::vec((0_u8..17, 0_usize..3, 0_usize..8, 0_u64..30), 1..150),
    ) {
        let mut world = World::new();
        for step in steps {
            let before = THINGS.map(|thing| world.held(thing));
            world.step(step);
            for (thing, before) in THINGS.into_iter().zip(before) {
                let (held, limit) = (world.held(thing), world.limit(thing));
                prop_assert!(held <= limit.max(before), "{thing:?}: {held} held, {before} before, limit {limit}");
                let in_use = world.in_use(thing);
                prop_assert!(in_use <= held, "{thing:?}: {in_use} in use, {held} held");
            }
        }
    }

    #[test]
    fn once_everybody_is_heard_the_limit_is_reached_and_kept(
        first in 1_u64..40,
        second in 1_u64..40,
        wanted in prop::collection::vec(0_u64..40, 3),
    ) {
        let mut world = World::new();
        for limit in [first, second] {
            world.limits = limits(limit, 4);
            world.leases.limits_changed(&world.limits);
            for _ in 0..3 {
                for (who, &wanted) in wanted.iter().enumerate() {
                    let ask = world.nodes[who].ask(who, BTreeMap::from([(None, wanted)]), world.now);
                    world.asks.push((who, ask));
                    world.take_in(0);
                    let (_, _, grant) = world.grants.remove(0);
                    world.nodes[who].answer(&grant, world.now);
                }
            }
            prop_assert_eq!(world.in_use(None), limit.min(wanted.iter().sum()));
        }
    }
}
