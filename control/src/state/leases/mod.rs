//! Nodes that are alive, and what each may hold of the cluster-wide connection limits. What a node owes in
//! return stands in `hiveops_proto::lease`.
//!
//! What a node may hold is lent to nobody else until it gave it back, or until 1.5 leases after it was last
//! heard of: it stops using it after one lease by its own clock, so half a lease is left for clocks that
//! run unevenly and for sockets that take their time. The times compared here all come from one leader's
//! clock; with a new leader every lease begins anew.

mod share;

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::id::UserId;
use hiveops_proto::lease::{LeaseAsk, LeaseGrant, Wanted};
use hiveops_proto::{Limits, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::outcome::{Refusal, RefusalCode};
#[cfg(test)]
use crate::sim::planted::{Planted, is_planted};
use share::{Share, lower};

/// The lease when nobody says otherwise: a killed node's budget is back after 1.5 of it, and a node renews
/// three times within it.
pub const LEASE_MS: u64 = 10_000;

/// The shortest and the longest lease that make sense.
pub const LEASE_MS_RANGE: std::ops::RangeInclusive<u64> = 500..=120_000;

/// How many lives of nodes may hold something at once.
pub const HOLDERS_MAX: usize = 512;

/// For how many users a node may ask at once: an ask stays below 100 KiB.
pub const USERS_PER_ASK_MAX: usize = 1_000;

/// For how many users a node may hold something.
pub const USERS_PER_NODE_MAX: usize = 100_000;

/// The most that one ask can be for; the largest value of the limits.
const ASK_MAX: u64 = 100_000_000;

/// Everything that is lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leases {
    lease_ms: u64,
    /// The lives of each node, by incarnation; an old one is there until its budget may be lent again.
    nodes: BTreeMap<NodeId, BTreeMap<u64, Holder>>,
}

/// One life of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// The last ask that counted.
    seq: u64,
    /// When it was last heard of.
    renewed: Timestamp,
    total: Share,
    users: BTreeMap<UserId, Share>,
}

/// One life of a node, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLease {
    /// The node.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: u64,
    /// When it was last heard of.
    pub renewed: Timestamp,
    /// Whether its lease has not run out.
    pub is_current: bool,
    /// How many connections it may hold; without a limit, how many it reported.
    pub total_held: u64,
    /// Of how many users it may hold connections.
    pub users_held: u64,
}

impl Leases {
    pub(crate) fn new(lease_ms: u64) -> Result<Self, Refusal> {
        if !LEASE_MS_RANGE.contains(&lease_ms) {
            let (least, most) = (LEASE_MS_RANGE.start(), LEASE_MS_RANGE.end());
            let reason = format_args!("a lease lasts {least} to {most} ms, not {lease_ms}");
            return Err(Refusal::new(RefusalCode::Invalid, reason));
        }
        Ok(Self { lease_ms, nodes: BTreeMap::new() })
    }

    /// Renews the lease of a node, and gives it as much of what it asks for as is free.
    pub(crate) fn renew(
        &mut self,
        ask: LeaseAsk,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<LeaseGrant, Refusal> {
        self.check(&ask)?;
        let LeaseAsk { node, incarnation, seq, total, users } = ask;
        let mut holder = self.take(&node, incarnation);
        holder.seq = seq;
        holder.renewed = now;
        let (limit, per_user) = (limits.max_connections_total, limits.max_connections_per_user);
        let others = self.holders().map(|other| other.total.held).sum();
        holder.total = holder.total.ask(total, limit, others);
        let told = self.renew_users(&mut holder, users, per_user);
        let wanted = self.holders().map(|other| other.total.asked).sum::<u64>() + holder.total.asked;
        let grant = LeaseGrant {
            seq,
            lease_ms: self.lease_ms,
            total: (limit > 0).then_some(holder.total.granted),
            users: (per_user > 0).then_some(told),
            scarce: limit > 0 && wanted > limit,
        };
        self.nodes.entry(node).or_default().insert(incarnation, holder);
        Ok(grant)
    }

    /// A life of a node that has closed its sessions gives everything back; true if it had a lease.
    pub(crate) fn end(&mut self, node: &NodeId, incarnation: u64) -> bool {
        let Some(lives) = self.nodes.get_mut(node) else { return false };
        let ended = lives.remove(&incarnation).is_some();
        if lives.is_empty() {
            self.nodes.remove(node);
        }
        ended
    }

    /// The limits have changed: from now on nodes are told to hold no more than they allow.
    pub(crate) fn limits_changed(&mut self, limits: &Limits) {
        let (limit, per_user) = (limits.max_connections_total, limits.max_connections_per_user);
        if limit > 0 {
            let holders = self.nodes.values_mut().flat_map(BTreeMap::values_mut);
            lower(holders.map(|holder| &mut holder.total), limit);
        }
        let mut by_user: BTreeMap<UserId, Vec<&mut Share>> = BTreeMap::new();
        for holder in self.nodes.values_mut().flat_map(BTreeMap::values_mut) {
            if per_user == 0 {
                holder.users.clear();
            }
            for (user, share) in &mut holder.users {
                by_user.entry(user.clone()).or_default().push(share);
            }
        }
        for shares in by_user.into_values() {
            lower(shares.into_iter(), per_user);
        }
    }

    /// A new leader, with another clock, took over: every lease begins anew.
    pub(crate) fn new_term(&mut self, now: Timestamp) {
        for holder in self.nodes.values_mut().flat_map(BTreeMap::values_mut) {
            holder.renewed = now;
        }
    }

    /// Forgets those who have not been heard of for 1.5 leases.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        let kept = self.lease_ms + self.lease_ms / 2;
        #[cfg(test)]
        let kept = if is_planted(Planted::LentAgainEarly) { self.lease_ms } else { kept };
        for lives in self.nodes.values_mut() {
            lives.retain(|_, holder| now.millis_since(holder.renewed) < kept);
        }
        self.nodes.retain(|_, lives| !lives.is_empty());
    }

    pub(crate) fn list(&self, now: Timestamp) -> Vec<NodeLease> {
        let all = self.nodes.iter().flat_map(|(node, lives)| lives.iter().map(move |life| (node, life)));
        let shown = all.map(|(node, (incarnation, holder))| NodeLease {
            node: node.clone(),
            incarnation: *incarnation,
            renewed: holder.renewed,
            is_current: now.millis_since(holder.renewed) < self.lease_ms,
            total_held: holder.total.held,
            users_held: holder.users.len() as u64,
        });
        shown.collect()
    }

    fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.nodes.values().flat_map(BTreeMap::values)
    }

    fn check(&self, ask: &LeaseAsk) -> Result<(), Refusal> {
        let LeaseAsk { node, incarnation, seq, total, users } = ask;
        let is_wild = |wanted: &Wanted| wanted.keep.max(wanted.want) > ASK_MAX;
        if is_wild(total) || users.values().any(is_wild) {
            let reason = format_args!("a node can ask for at most {ASK_MAX} connections");
            return Err(Refusal::new(RefusalCode::Invalid, reason));
        }
        if users.len() > USERS_PER_ASK_MAX {
            let reason = format_args!("a node can ask for at most {USERS_PER_ASK_MAX} users at once");
            return Err(Refusal::new(RefusalCode::TooMany, reason));
        }
        let lives = self.nodes.get(node);
        if let Some((newest, _)) = lives.and_then(BTreeMap::last_key_value)
            && newest > incarnation
        {
            let reason = format_args!("node `{node}` has been started again since, or has a twin");
            return Err(Refusal::new(RefusalCode::Superseded, reason));
        }
        let holder = lives.and_then(|lives| lives.get(incarnation));
        if let Some(last) = holder.map(|holder| holder.seq)
            && *seq <= last
        {
            let reason = format_args!("ask {seq} of node `{node}` came after ask {last}");
            return Err(Refusal::new(RefusalCode::Superseded, reason));
        }
        if holder.is_none() && self.holders().count() >= HOLDERS_MAX {
            let reason = format_args!("there are {HOLDERS_MAX} nodes, and there can be no more");
            return Err(Refusal::new(RefusalCode::TooMany, reason));
        }
        let none = BTreeMap::new();
        let held = holder.map_or(&none, |holder| &holder.users);
        let known: BTreeSet<&UserId> = held.keys().chain(users.keys()).collect();
        if known.len() > USERS_PER_NODE_MAX {
            let reason = format_args!("a node can hold connections of at most {USERS_PER_NODE_MAX} users");
            return Err(Refusal::new(RefusalCode::TooMany, reason));
        }
        Ok(())
    }

    /// The holder, taken out, so that the others are all that is left.
    fn take(&mut self, node: &NodeId, incarnation: u64) -> Holder {
        let holder = self.nodes.get_mut(node).and_then(|lives| lives.remove(&incarnation));
        holder.unwrap_or_else(|| Holder {
            seq: 0,
            renewed: Timestamp::default(),
            total: Share::default(),
            users: BTreeMap::new(),
        })
    }

    /// What the holder is told of its users: those that it asked for, and those of whom it has too many.
    fn renew_users(
        &self,
        holder: &mut Holder,
        asked: BTreeMap<UserId, Wanted>,
        per_user: u64,
    ) -> BTreeMap<UserId, u64> {
        if per_user == 0 {
            return BTreeMap::new();
        }
        let mut told = BTreeMap::new();
        for (user, wanted) in asked {
            let others = self.holders().filter_map(|other| other.users.get(&user));
            let others = others.map(|share| share.held).sum();
            let share = holder.users.get(&user).copied().unwrap_or_default().ask(wanted, per_user, others);
            told.insert(user.clone(), share.granted);
            if share.held == 0 {
                holder.users.remove(&user);
            } else {
                holder.users.insert(user, share);
            }
        }
        for (user, share) in holder.users.iter().filter(|(_, share)| share.granted < share.held) {
            told.insert(user.clone(), share.granted);
        }
        told
    }
}

#[cfg(test)]
mod tests;
