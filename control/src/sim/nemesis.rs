//! What goes wrong in a run: power cuts, partitions, slow disks, wrong clocks, changes of the members.

use std::time::Duration;

use bytes::Bytes;
use hiveops_proto::path::{CONTROL_LEADER, CONTROL_MEMBERS};
use http::Method;
use tokio::time::sleep;

use super::clients::Client;
use super::history::Rule;
use super::net::Weather;
use super::process::spawn;
use super::world::World;

/// Within this after it was cut off, a replica may still hear what was under way.
const SETTLED: Duration = Duration::from_millis(1_500);
/// Machines that are down are started at these times, if not before.
const REVIVED_EVERY: Duration = Duration::from_secs(9);
/// A machine whose power fails twice: the second time it is back after this.
const FAILS_AGAIN_WITHIN: Duration = Duration::from_secs(2);
/// Replicas are added up to this number.
const REPLICAS_MAX: u64 = 6;
/// A wall clock is wrong by up to two hours: requests are remembered for a day.
const SKEW_MAX_MS: u64 = 2 * 3_600 * 1_000;

pub(crate) struct Nemesis {
    world: World,
    /// It changes members as anybody does who has the command.
    hand: Client,
}

impl Nemesis {
    pub(crate) fn new(world: &World) -> Self {
        Self { world: world.clone(), hand: Client::new(world, 99) }
    }

    /// Breaks one thing after the other.
    pub(crate) async fn rage(&self) {
        loop {
            // In some runs leases live long enough to end by themselves: a new leader begins each anew.
            let most = if self.world.seed % 4 == 1 { 30_000 } else { 2_500 };
            sleep(self.hand.chance.millis(100, most)).await;
            self.strike().await;
        }
    }

    /// Starts what is down and what nobody has in mind to start.
    pub(crate) async fn revive(&self) {
        loop {
            sleep(REVIVED_EVERY).await;
            for id in self.world.ids() {
                if !self.world.is_free(id) {
                    self.world.start(id);
                }
            }
        }
    }

    async fn strike(&self) {
        let chance = &self.hand.chance;
        match chance.below(26) {
            0..3 => self.power_cut(self.any()),
            3..5 => self.power_cut(self.leader()),
            5..8 => self.fuse(self.any(), chance.between(1, 12)),
            8..10 => self.power_cut_of_many().await,
            10..13 => self.cut_off(self.leader(), chance.millis(500, 5_000)).await,
            13 => self.one_way().await,
            14 => self.split().await,
            15..17 => self.cut_off_and_compare_terms().await,
            17 => self.bad_weather().await,
            18 => self.slow_disk().await,
            19 => self.transfer().await,
            20 => self.member_comes(),
            21 => self.member_goes().await,
            22..24 => self.wrong_clock().await,
            _ => self.power_cut_in_election().await,
        }
    }

    fn any(&self) -> u64 {
        self.hand.any()
    }

    fn leader(&self) -> u64 {
        self.world.leader().unwrap_or_else(|| self.any())
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.history.note(format_args!("--- {what}"));
    }

    fn start_later(&self, id: u64, within: Duration) {
        let (world, chance) = (self.world.clone(), self.hand.chance.clone());
        let fails_again = chance.in_thousand(300).then(|| chance.between(8, 60));
        spawn(async move {
            sleep(within).await;
            // One that was removed is started again only as a new one.
            if world.is_free(id) {
                return;
            }
            world.cut_power(id);
            world.start(id);
            if let Some(calls) = fails_again {
                world.history.note(format_args!("--- {id} loses power again at call {calls} of its disk"));
                world.light_fuse(id, calls);
                sleep(FAILS_AGAIN_WITHIN).await;
                if !world.is_free(id) {
                    world.cut_power(id);
                    world.start(id);
                }
            }
        });
    }

    fn power_cut(&self, id: u64) {
        self.note(format_args!("{id} loses power"));
        self.world.cut_power(id);
        // Some are away for long enough to need a snapshot.
        let most = if self.hand.chance.in_thousand(300) { 12_000 } else { 3_000 };
        self.start_later(id, self.hand.chance.millis(20, most));
    }

    fn fuse(&self, id: u64, calls: u64) {
        self.note(format_args!("{id} loses power at call {calls} of its disk from now"));
        self.world.light_fuse(id, calls);
        self.start_later(id, self.hand.chance.millis(1_000, 3_000));
    }

    async fn power_cut_of_many(&self) {
        let mut ids = self.world.running();
        if self.hand.chance.in_thousand(500) {
            ids.truncate(ids.len() / 2 + 1);
        }
        self.note(format_args!("{ids:?} lose power at once"));
        for id in ids {
            self.world.cut_power(id);
            self.start_later(id, self.hand.chance.millis(20, 2_000));
        }
    }

    async fn cut_off(&self, id: u64, lasts: Duration) {
        self.note(format_args!("{id} is cut off for {lasts:?}"));
        for other in self.world.ids() {
            self.world.net.cut(id, other);
            self.world.net.cut(other, id);
        }
        sleep(lasts).await;
        self.world.net.mend();
        self.note(format_args!("{id} is back"));
    }

    /// Nobody hears it, or it hears nobody.
    async fn one_way(&self) {
        let (id, is_deaf) = (self.any(), self.hand.chance.in_thousand(500));
        self.note(format_args!("{id} {}", if is_deaf { "hears nobody" } else { "is heard by nobody" }));
        for other in self.world.ids() {
            let (from, to) = if is_deaf { (other, id) } else { (id, other) };
            self.world.net.cut(from, to);
        }
        sleep(self.hand.chance.millis(500, 4_000)).await;
        self.world.net.mend();
    }

    async fn split(&self) {
        let ids = self.world.ids();
        let (some, others): (Vec<u64>, Vec<u64>) =
            ids.iter().partition(|_| self.hand.chance.in_thousand(500));
        self.note(format_args!("{some:?} and {others:?} do not hear each other"));
        for a in &some {
            for b in &others {
                self.world.net.cut(*a, *b);
                self.world.net.cut(*b, *a);
            }
        }
        sleep(self.hand.chance.millis(500, 5_000)).await;
        self.world.net.mend();
    }

    /// Nobody can vote for a replica that nobody hears, so it does not ask, and raises no term.
    async fn cut_off_and_compare_terms(&self) {
        let id = self.any();
        let term = || Some(self.world.service(id)?.group.standing().term);
        let compare = async {
            sleep(SETTLED).await;
            let before = self.world.service(id)?;
            let term_before = term()?;
            sleep(Duration::from_millis(2_500)).await;
            let same_life = std::sync::Arc::ptr_eq(&before, &self.world.service(id)?);
            let after = term().filter(|_| same_life)?;
            (after > term_before).then_some((term_before, after))
        };
        let lasts = SETTLED + Duration::from_millis(2_600);
        let (_, raised) = tokio::join!(self.cut_off(id, lasts), compare);
        if let Some((before, after)) = raised {
            let how = format_args!("{id} was cut off, and raised its term from {before} to {after}");
            self.world.history.broke(Rule::TermStays, how);
        }
    }

    async fn bad_weather(&self) {
        self.note(format_args!("bad weather"));
        let bad = Weather { delay_ms: 60, late: 80, reset: 40, twice: 40, dark: 300 };
        self.world.net.set_weather(bad);
        sleep(self.hand.chance.millis(500, 4_000)).await;
        self.world.net.set_weather(Weather::default());
    }

    async fn slow_disk(&self) {
        let (id, millis) = (self.any(), self.hand.chance.between(50, 400));
        self.note(format_args!("the disk of {id} takes up to {millis} ms"));
        self.world.slow_disk(id, millis);
        sleep(self.hand.chance.millis(500, 3_000)).await;
        self.world.slow_disk(id, 2);
    }

    async fn transfer(&self) {
        let to = self.any();
        self.note(format_args!("{to} is to lead"));
        let body = Bytes::from(format!("{{\"id\":{to}}}"));
        let answer = self.hand.call(self.any(), Method::POST, CONTROL_LEADER, None, body).await;
        self.note(format_args!("{to} leads: {:?}", answer.map(|(status, _)| status)));
    }

    /// One that was removed, or a new one: it asks by itself to be let in.
    fn member_comes(&self) {
        // Before there is a cluster, another list of peers is a mistake that a person has to put right.
        if self.world.leader().is_none() {
            return;
        }
        let ids = self.world.ids();
        let free = ids.iter().copied().find(|id| self.world.is_free(*id));
        let next = ids.last().map_or(1, |last| last + 1);
        if let Some(id) = free.or((next <= REPLICAS_MAX).then_some(next)) {
            self.note(format_args!("{id} comes"));
            self.world.start(id);
        }
    }

    async fn member_goes(&self) {
        let id = self.any();
        self.note(format_args!("{id} is to go"));
        let path = format!("{CONTROL_MEMBERS}/{id}");
        let answer = self.hand.call(self.any(), Method::DELETE, &path, None, Bytes::new()).await;
        self.note(format_args!("{id} goes: {:?}", answer.map(|(status, _)| status)));
    }

    /// It counts from when the replica leads again.
    async fn wrong_clock(&self) {
        let (id, by) = (self.any(), self.hand.chance.below(2 * SKEW_MAX_MS));
        let skew = i64::try_from(by).unwrap() - i64::try_from(SKEW_MAX_MS).unwrap();
        self.note(format_args!("the clock of {id} is set wrong by {} s", skew / 1_000));
        self.world.set_wall(id, skew);
        let leader = self.leader();
        if leader != id {
            self.cut_off(leader, self.hand.chance.millis(1_500, 3_000)).await;
        }
    }

    /// The leader is cut off, and who votes for the next one loses power.
    async fn power_cut_in_election(&self) {
        let leader = self.leader();
        for id in self.world.running().into_iter().filter(|id| *id != leader) {
            if self.hand.chance.in_thousand(700) {
                self.world.light_fuse(id, self.hand.chance.between(4, 14));
                self.start_later(id, self.hand.chance.millis(1_200, 2_500));
            }
        }
        self.cut_off(leader, self.hand.chance.millis(900, 2_500)).await;
    }
}
