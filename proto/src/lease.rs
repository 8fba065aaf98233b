//! How nodes borrow from the cluster-wide connection limits: what a node asks control, and what it gets.
//!
//! The limits hold because a node keeps these rules:
//! 1. It renews three times per lease, also while there is no limit. Each ask carries a greater `seq` than
//!    the one before, also when it repeats an ask without an answer.
//! 2. `keep` is a promise: from before it sends the ask, and until it has the answer to that ask or to a
//!    later one with the same member in it, the node stays at or below it, and at or below what it was
//!    granted last. A user once asked for is in every later ask until one of them is answered.
//! 3. A grant is good for `lease_ms` from when the node *sent* the ask. Without a later grant by then, the
//!    node closes the sessions that count, with `lease_lost`, and begins again with nothing: an answer that
//!    comes later counts only for what it names. Control lends the budget again no sooner than half a
//!    lease after that.
//! 4. A grant below what it uses makes the node close sessions, and admit none. Its asks keep what is left of
//!    them, and no more than the grant once they have gone.
//! 5. A session counts from its admission until its connection has gone, closing included.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::Revision;
use crate::id::{NodeId, UserId};

/// What a node wants to hold, in whole numbers rather than differences: asking again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseAsk {
    /// Who asks.
    pub node: NodeId,
    /// Which life of the node asks; a later start has a greater number.
    pub incarnation: u64,
    /// Numbers the asks of this life.
    pub seq: u64,
    /// All connections that count.
    pub total: Wanted,
    /// The same for users: those for whom it wants another number than it was granted, who have to give
    /// some back, or whose last ask has not been answered.
    #[serde(default)]
    pub users: BTreeMap<UserId, Wanted>,
}

/// How many connections a node keeps, and how many it would have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// It has no more than so many, and will not until it is answered. What it was granted beyond that is
    /// given back.
    pub keep: u64,
    /// So many would be good, those that it keeps included.
    pub want: u64,
}

/// What a node may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// The ask that this answers.
    pub seq: u64,
    /// How long the grant is good, from when the ask was sent.
    pub lease_ms: u64,
    /// How many connections are allowed; nothing when the cluster has no such limit.
    pub total: Option<u64>,
    /// How many of each user that was asked for, or of whom the node must give some back; nothing when
    /// the cluster has no such limit.
    pub users: Option<BTreeMap<UserId, u64>>,
    /// Whether nodes want more than there is: then hold nothing that is not used.
    pub scarce: bool,
}

/// How control answers an ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// What the node may hold.
    pub grant: LeaseGrant,
    /// When that was decided: a view that is older than this does not know better whether there is a limit.
    pub revision: Revision,
}
