//! What a node has borrowed of the limits of the whole cluster, and what it asks for next: the node's side
//! of the rules of `hiveops_proto::lease`. Pure: the time is an argument.
//!
//! A place is taken by a session from its handshake until its registration is dropped. All that is taken
//! is counted in one place, so that an ask, which is a promise, and an admission cannot pass each other.

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::control::Revision;
use hiveops_proto::id::UserId;
use hiveops_proto::lease::{LeaseAnswer, LeaseAsk};
use hiveops_proto::{Limits, NodeId};

use super::NoPlace;
use super::share::Share;
use crate::time::Moment;

/// A node renews so many times within a lease (rule 1).
const RENEWALS_PER_LEASE: u64 = 3;

/// The lease until control has said how long it is.
const LEASE_MS_ASSUMED: u64 = 10_000;

/// What is borrowed beyond what is needed, so that a client that comes alone does not have to wait: this part
/// of the limit, and no more than a burst of handshakes. A small limit leaves nothing, so that no place lies
/// idle in one node while another turns clients away.
const HEADROOM_PART: u64 = 128;
const HEADROOM_MAX: u64 = 64;

/// What a node reports beyond its sessions while there is no limit, so that it has not to report each one.
const REPORTED_PART: u64 = 4;
const REPORTED_LEAST: u64 = 16;

/// Between two asks while there is enough: handshakes that come in between share the next one.
const ASK_EVERY_MS: u64 = 25;

/// Between two asks when the last one did not get what it wanted. A handshake waits a little longer than
/// that, so each has an ask of its own time.
const ASK_AGAIN_MS: u64 = 200;

/// What is not used is given back after that, when it is scarce.
const GIVE_BACK_MS: u64 = 1_000;

/// The same for a node that goes away: its clients are told to come back after 250 ms at the earliest, and
/// need their places at another node then.
const GIVE_BACK_DRAINING_MS: u64 = 100;

/// The same for a user, who closes a page on this node and opens it on another: within what a handshake waits.
const GIVE_BACK_USER_MS: u64 = 100;

/// A user's share is asked about for so many at once; control takes no more (`USERS_PER_ASK_MAX`).
const USERS_PER_ASK: usize = 1_000;

/// A node that hears of a limit after its lease has run out has so long to say what it has.
const SWITCHED_ON_MS: u64 = 3_000;

/// How often what was held has run out: by this a session knows whether its place is still good. Those of
/// users run out alone when there is no limit for the whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Era {
    pub(super) all: u64,
    pub(super) users: u64,
}

/// What a node holds.
#[derive(Debug)]
pub(crate) struct Holder {
    node: NodeId,
    incarnation: u64,
    /// The limits that the node's view shows, and of when the view is.
    limits: (u64, u64),
    viewed: Revision,
    /// Of when the last grant is.
    granted_at: Revision,
    seq: u64,
    sent: Option<Moment>,
    /// The last ask, until it is answered.
    open: Option<Open>,
    lease_ms: u64,
    /// When what was granted runs out; none when it has, or nothing was granted.
    good_until: Option<Moment>,
    scarce: bool,
    /// Control should hear from the node now.
    is_urgent: bool,
    draining: bool,
    ended: bool,
    era: Era,
    total: Share,
    /// The last grant said that users have a limit.
    users_granted: bool,
    users: BTreeMap<UserId, Share>,
    /// Those users that belong into the next ask.
    restless: BTreeSet<UserId>,
    users_waiting: u64,
    /// Users of whom something could be given back, and users for whom somebody waits in vain.
    users_spare: u64,
    users_short: u64,
}

#[derive(Debug)]
struct Open {
    seq: u64,
    sent: Moment,
    users: BTreeSet<UserId>,
}

/// For people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What may be held; none without a limit.
    pub(crate) held: Option<u64>,
    pub(crate) used: u64,
    pub(crate) scarce: bool,
    /// Since the last ask that was answered was sent, in milliseconds.
    pub(crate) age_ms: Option<u64>,
}

impl Holder {
    pub(crate) fn new(node: NodeId, incarnation: u64) -> Self {
        Self {
            node,
            incarnation,
            limits: (0, 0),
            viewed: Revision::default(),
            granted_at: Revision::default(),
            seq: 0,
            sent: None,
            open: None,
            lease_ms: LEASE_MS_ASSUMED,
            good_until: None,
            scarce: false,
            is_urgent: true,
            draining: false,
            ended: false,
            era: Era::default(),
            total: Share::default(),
            users_granted: false,
            users: BTreeMap::new(),
            restless: BTreeSet::new(),
            users_waiting: 0,
            users_spare: 0,
            users_short: 0,
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The limits of a later view.
    pub(crate) fn view(&mut self, revision: Revision, limits: &Limits, now: Moment) {
        self.lapse(now);
        let were_limited = self.any_is_limited();
        let seen = (limits.max_connections_total, limits.max_connections_per_user);
        self.is_urgent |= seen != self.limits;
        (self.limits, self.viewed) = (seen, revision);
        self.forget_unlimited();
        let has_lapsed = self.good_until.is_none_or(|until| until <= now);
        if has_lapsed && !were_limited && self.any_is_limited() && self.total.used() > 0 {
            self.good_until = Some(now.plus_millis(SWITCHED_ON_MS));
        }
    }

    /// Takes a place for a session, if there is one.
    pub(crate) fn admit(&mut self, user: Option<&UserId>, now: Moment) -> Option<Era> {
        self.lapse(now);
        if self.ended || (self.total_is_limited() && !self.total.has_room()) {
            return None;
        }
        if let Some(user) = user {
            let share = self.users.get(user).copied().unwrap_or_default();
            if self.users_are_limited() && !share.has_room() {
                return None;
            }
            self.with_user(user, Share::take);
        }
        self.total.take();
        Some(self.era)
    }

    /// Why there is no place now. That the user or the cluster is full is only said when control has said so,
    /// to an ask for more, by a lease that is good.
    pub(crate) fn why_none(&mut self, user: Option<&UserId>, now: Moment) -> NoPlace {
        self.lapse(now);
        let is_good = self.good_until.is_some_and(|until| now < until);
        let share = user.and_then(|user| self.users.get(user));
        let user_is_short = share.is_some_and(|share| share.is_short() && !share.has_room());
        if is_good && self.users_are_limited() && user_is_short {
            NoPlace::UserFull
        } else if is_good && self.total_is_limited() && self.total.is_short() && !self.total.has_room() {
            NoPlace::ClusterFull
        } else {
            NoPlace::NotLent
        }
    }

    /// A handshake waits for a place.
    pub(crate) fn wait(&mut self, user: Option<&UserId>) {
        self.total.wait();
        if let Some(user) = user {
            self.users_waiting += 1;
            self.with_user(user, Share::wait);
        }
    }

    /// It does not any more.
    pub(crate) fn wait_no_more(&mut self, user: Option<&UserId>) {
        self.total.wait_no_more();
        if let Some(user) = user {
            self.users_waiting = self.users_waiting.saturating_sub(1);
            self.with_user(user, Share::wait_no_more);
        }
    }

    /// A session has gone. `told` if it had been told to end.
    pub(crate) fn leave(&mut self, user: Option<&UserId>, era: Era, told: bool) {
        self.total.leave(!told && era.all == self.era.all);
        if let Some(user) = user {
            let fresh = !told && era == self.era;
            self.with_user(user, |share| share.leave(fresh));
        }
    }

    /// Sessions of this era were told to end. They count until they have gone, but are no surplus.
    pub(crate) fn told(&mut self, user: Option<&UserId>, era: Era, count: u64) {
        if era.all == self.era.all {
            self.total.told(count);
        }
        if let Some(user) = user
            && era == self.era
        {
            self.with_user(user, |share| share.told(count));
        }
    }

    /// How many sessions have to end, for each thing that has too many.
    pub(crate) fn surplus(&self) -> impl Iterator<Item = (Option<&UserId>, u64)> {
        let total = if self.total_is_limited() { self.total.surplus() } else { 0 };
        let restless = if self.users_are_limited() { Some(&self.restless) } else { None };
        let users = restless.into_iter().flatten();
        let users = users.filter_map(|user| Some((Some(user), self.users.get(user)?.surplus())));
        std::iter::once((None, total)).chain(users).filter(|(_, surplus)| *surplus > 0)
    }

    /// When what is held runs out; none while no session would have to end by it.
    pub(crate) fn good_until(&self) -> Option<Moment> {
        if self.any_is_limited() { self.good_until } else { None }
    }

    /// How often what was held has run out by now.
    pub(crate) fn era(&mut self, now: Moment) -> Era {
        self.lapse(now);
        self.era
    }

    /// When the next ask is due; none when there is nothing to ask for any more.
    pub(crate) fn due(&self) -> Option<Moment> {
        if self.ended {
            return None;
        }
        let Some(sent) = self.sent else { return Some(Moment::default()) };
        if self.is_urgent || self.open.is_some() {
            return Some(sent);
        }
        let mut after = self.lease_ms / RENEWALS_PER_LEASE;
        let waited_for = self.total_is_limited() && self.total.is_waited_for();
        if waited_for || (self.users_are_limited() && self.users_waiting > 0) {
            let is_short = self.scarce || self.total.wanted > self.total.may_hold() || self.users_short > 0;
            after = after.min(if is_short { ASK_AGAIN_MS } else { ASK_EVERY_MS });
        }
        if self.users_are_limited() && self.users_spare > 0 {
            after = after.min(GIVE_BACK_USER_MS);
        }
        if self.total_is_limited() {
            if self.total.has_yielded() {
                after = after.min(ASK_EVERY_MS);
            }
            if (self.scarce || self.draining) && self.total.spare() > 0 {
                after = after.min(if self.draining { GIVE_BACK_DRAINING_MS } else { GIVE_BACK_MS });
            }
        } else if self.total.used() > self.total.wanted {
            after = after.min(GIVE_BACK_MS);
        }
        Some(sent.plus_millis(after))
    }

    /// The next ask. It counts as sent now.
    pub(crate) fn ask(&mut self, now: Moment) -> LeaseAsk {
        self.lapse(now);
        let headroom = self.headroom();
        let total = self.total.ask(self.total_is_limited(), headroom);
        let is_limited = self.users_are_limited();
        // Those without an answer first: they have to be in it.
        let mut names = self.open.take().map(|open| open.users).unwrap_or_default();
        for user in &self.restless {
            if names.len() >= USERS_PER_ASK {
                break;
            }
            if is_limited {
                names.insert(user.clone());
            }
        }
        let mut users = BTreeMap::new();
        for user in &names {
            users.insert(user.clone(), self.with_user(user, |share| share.ask(is_limited, 0)));
        }
        self.seq += 1;
        self.sent = Some(now);
        self.is_urgent = false;
        self.open = Some(Open { seq: self.seq, sent: now, users: names });
        LeaseAsk { node: self.node.clone(), incarnation: self.incarnation, seq: self.seq, total, users }
    }

    /// Control's answer; false when it is to another ask than the last one, and says nothing any more.
    pub(crate) fn answer(&mut self, answer: &LeaseAnswer, now: Moment) -> bool {
        self.lapse(now);
        let LeaseAnswer { grant, revision } = answer;
        let Some(open) = self.open.take_if(|open| open.seq == grant.seq) else { return false };
        self.lease_ms = grant.lease_ms;
        self.good_until = Some(open.sent.plus_millis(grant.lease_ms));
        self.granted_at = *revision;
        self.scarce = grant.scarce;
        self.total.grant(grant.total);
        self.total.answered();
        for user in &open.users {
            self.with_user(user, Share::answered);
        }
        self.users_granted = grant.users.is_some();
        for (user, granted) in grant.users.iter().flatten() {
            // Of those whom control names by itself it says nothing about what they wanted.
            let was_asked = open.users.contains(user);
            self.with_user(user, |share| {
                if was_asked { share.grant(Some(*granted)) } else { share.granted = Some(*granted) }
            });
        }
        self.forget_unlimited();
        // It may have come too late to be of use.
        self.lapse(now);
        true
    }

    /// No more is borrowed than is used.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// The last session has gone, and none can come.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(crate) fn standing(&self, now: Moment) -> Standing {
        let began = self.good_until.map(|until| until.as_millis().saturating_sub(self.lease_ms));
        Standing {
            held: self.total_is_limited().then(|| self.total.may_hold()),
            used: self.total.used(),
            scarce: self.scarce,
            age_ms: began.map(|began| now.as_millis().saturating_sub(began)),
        }
    }

    /// What was granted counts no longer than a lease (rule 3).
    fn lapse(&mut self, now: Moment) {
        if self.good_until().is_none_or(|until| now < until) {
            return;
        }
        self.good_until = None;
        if self.total_is_limited() {
            self.era.all += 1;
            self.total.lapse(true);
        } else {
            self.era.users += 1;
        }
        let is_limited = self.users_are_limited();
        self.with_all_users(|share| share.lapse(is_limited));
    }

    /// A grant from before there was no limit says nothing when there is one again.
    fn forget_unlimited(&mut self) {
        if !self.total_is_limited() {
            self.total.grant(None);
        }
        if !self.users_are_limited() {
            self.with_all_users(|share| share.grant(None));
        }
    }

    /// The later of the view and the grant says whether there is a limit.
    fn total_is_limited(&self) -> bool {
        if self.granted_at > self.viewed { self.total.granted.is_some() } else { self.limits.0 > 0 }
    }

    pub(super) fn users_are_limited(&self) -> bool {
        if self.granted_at > self.viewed { self.users_granted } else { self.limits.1 > 0 }
    }

    fn any_is_limited(&self) -> bool {
        self.total_is_limited() || self.users_are_limited()
    }

    fn headroom(&self) -> u64 {
        if !self.total_is_limited() {
            return self.total.used() / REPORTED_PART + REPORTED_LEAST;
        }
        if self.scarce || self.draining { 0 } else { (self.limits.0 / HEADROOM_PART).min(HEADROOM_MAX) }
    }

    fn with_all_users(&mut self, change: impl Fn(&mut Share)) {
        let all: Vec<UserId> = self.users.keys().cloned().collect();
        for user in &all {
            self.with_user(user, &change);
        }
    }

    /// Changes the share of a user, and keeps the lists of users in step.
    fn with_user<T>(&mut self, user: &UserId, change: impl FnOnce(&mut Share) -> T) -> T {
        let share = self.users.entry(user.clone()).or_default();
        let before = (u64::from(share.spare() > 0), u64::from(share.waits_in_vain()));
        let result = change(share);
        let after = (u64::from(share.spare() > 0), u64::from(share.waits_in_vain()));
        self.users_spare = self.users_spare + after.0 - before.0;
        self.users_short = self.users_short + after.1 - before.1;
        let (blank, restless) = (share.is_blank(), share.is_restless());
        if blank {
            self.users.remove(user);
        }
        if restless && !blank {
            self.restless.insert(user.clone());
        } else {
            self.restless.remove(user);
        }
        result
    }
}

#[cfg(test)]
mod tests;
