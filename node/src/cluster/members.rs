//! Who is there: every node renews a lease by saying so, and is forgotten when it does not. Pure.
//!
//! A bus tells a node its own words too. They show whether it hears what the others say: a node that does
//! not hear itself cannot say who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hiveops_proto::NodeId;

use super::message::{Here, Incarnation, Speaker};
use crate::time::Moment;

/// Time between two announcements of one node.
pub(super) const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// How long a node counts as there after its last announcement: signals come at most once, and two in a
/// row may be lost.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// How long a node may miss its own announcements: one may be lost. After that others' leases may have run
/// out without their doing.
const ECHO_WITHIN: Duration = Duration::from_secs(2);

/// Nodes that are known at one time: far more than an installation has, and a bound on what a stranger on
/// the bus can make a node remember.
pub(super) const NODES_MAX: usize = 1_024;

/// The nodes of the cluster, this one included.
#[derive(Debug)]
pub(super) struct Members {
    me: Speaker,
    nodes: BTreeMap<Incarnation, Member>,
    /// Numbers the members in the order of their coming.
    came: u64,
    echo: Option<Echo>,
    /// When a node was last left out because there were too many.
    left_out: Option<Moment>,
}

#[derive(Debug)]
struct Member {
    node_id: NodeId,
    came: u64,
    last: Moment,
    here: Here,
    /// Another live process has the same node id.
    doubled: bool,
}

/// This node's own announcements as they come back.
#[derive(Debug, Clone, Copy)]
struct Echo {
    /// Since when without a gap.
    since: Moment,
    last: Moment,
}

/// How much of the cluster a node sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It does not hear itself: it knows who was there, and can ask nobody.
    Blind,
    /// There may be nodes that it has not heard of yet.
    Settling,
    /// Every node that holds a lease is known.
    Whole,
}

/// What an announcement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Renewed,
    Joined,
    /// Two processes with the same node id go on talking.
    Doubled,
    /// There are too many nodes already.
    LeftOut,
}

/// A node whose lease has run out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) speaker: Speaker,
    /// It said before that it goes away.
    pub(super) draining: bool,
}

impl Members {
    pub(super) fn new(me: Speaker, now: Moment) -> Self {
        let here = Here { draining: false };
        let own = Member { node_id: me.node_id.clone(), came: 0, last: now, here, doubled: false };
        Self { nodes: BTreeMap::from([(me.incarnation, own)]), me, came: 0, echo: None, left_out: None }
    }

    /// Somebody says that it is there.
    pub(super) fn here(&mut self, from: &Speaker, here: Here, now: Moment) -> Heard {
        if from.incarnation == self.me.incarnation {
            let gap = |echo: &Echo| now.millis_since(echo.last) > millis(ECHO_WITHIN);
            let since = self.echo.filter(|echo| !gap(echo)).map_or(now, |echo| echo.since);
            self.echo = Some(Echo { since, last: now });
        }
        if let Some(member) = self.nodes.get_mut(&from.incarnation) {
            (member.last, member.here) = (now, here);
            return if self.doubles(from.incarnation) { Heard::Doubled } else { Heard::Renewed };
        }
        if self.nodes.len() >= NODES_MAX {
            self.left_out = Some(now);
            return Heard::LeftOut;
        }
        self.came += 1;
        let node_id = from.node_id.clone();
        self.nodes
            .insert(from.incarnation, Member { node_id, came: self.came, last: now, here, doubled: false });
        Heard::Joined
    }

    /// Marks everybody who has this node's id when it is certain that it is used twice: the one that came
    /// first still talks after the other has come. A node that was started again does not look like that,
    /// because its first life is silent. True when that is news.
    fn doubles(&mut self, incarnation: Incarnation) -> bool {
        let Some(member) = self.nodes.get(&incarnation) else { return false };
        let (node_id, came) = (member.node_id.clone(), member.came);
        let mut same: Vec<&mut Member> =
            self.nodes.values_mut().filter(|node| node.node_id == node_id).collect();
        if !same.iter().any(|node| node.came > came) {
            return false;
        }
        let news = same.iter().any(|node| !node.doubled);
        same.iter_mut().for_each(|node| node.doubled = true);
        news
    }

    /// Somebody says that it goes; false when nobody of that name was there.
    pub(super) fn leave(&mut self, from: &Speaker) -> bool {
        let is_other = from.incarnation != self.me.incarnation;
        let left = is_other && self.nodes.remove(&from.incarnation).is_some();
        if left {
            self.part(&from.node_id);
        }
        left
    }

    /// Forgets whose lease has run out.
    pub(super) fn expire(&mut self, now: Moment) -> Vec<Lost> {
        let me = self.me.incarnation;
        let mut lost = Vec::new();
        self.nodes.retain(|incarnation, node| {
            let stays = *incarnation == me || node.holds_lease(now);
            if !stays {
                let speaker = Speaker { node_id: node.node_id.clone(), incarnation: *incarnation };
                lost.push(Lost { speaker, draining: node.here.draining });
            }
            stays
        });
        lost.iter().for_each(|lost| self.part(&lost.speaker.node_id));
        lost
    }

    /// Who is alone with its node id again is no double any more; where there are still several, their next
    /// announcements show it.
    fn part(&mut self, node_id: &NodeId) {
        let same = self.nodes.values_mut().filter(|node| node.node_id == *node_id);
        same.for_each(|node| node.doubled = false);
    }

    /// The other nodes that hold a lease.
    pub(super) fn others(&self, now: Moment) -> BTreeSet<Incarnation> {
        let others = self.nodes.iter().filter(|(incarnation, _)| **incarnation != self.me.incarnation);
        others.filter(|(_, node)| node.holds_lease(now)).map(|(incarnation, _)| *incarnation).collect()
    }

    /// The node ids of those who hold a lease; the others are no loss.
    pub(super) fn named(&self, nodes: &BTreeSet<Incarnation>, now: Moment) -> BTreeSet<NodeId> {
        let known = nodes.iter().filter_map(|incarnation| self.nodes.get(incarnation));
        known.filter(|node| node.holds_lease(now)).map(|node| node.node_id.clone()).collect()
    }

    /// How many nodes there are, this one included.
    pub(super) fn count(&self, now: Moment) -> usize {
        self.others(now).len() + 1
    }

    /// Who has its node id together with another live process.
    pub(super) fn doubled(&self) -> BTreeSet<Incarnation> {
        self.nodes.iter().filter(|(_, node)| node.doubled).map(|(incarnation, _)| *incarnation).collect()
    }

    pub(super) fn sight(&self, now: Moment) -> Sight {
        let lately = |at: Moment, within| now.millis_since(at) <= millis(within);
        match self.echo {
            Some(echo) if lately(echo.last, ECHO_WITHIN) => {
                // In the time of one lease everybody who holds one has been heard.
                let settled = !lately(echo.since, LEASE) && self.left_out.is_none_or(|at| !lately(at, LEASE));
                if settled { Sight::Whole } else { Sight::Settling }
            }
            _ => Sight::Blind,
        }
    }
}

impl Member {
    fn holds_lease(&self, now: Moment) -> bool {
        now.millis_since(self.last) <= millis(LEASE)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop, prop_oneof, proptest};

    use super::*;
    use crate::cluster::testing::speaker;

    const STAYS: Here = Here { draining: false };

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    fn members() -> Members {
        Members::new(speaker("n1", 1), at(0))
    }

    #[test]
    fn a_node_is_there_for_its_lease_and_leaves_no_ghost() {
        let mut members = members();
        let n2 = speaker("n2", 2);
        assert_eq!(members.here(&n2, STAYS, at(100)), Heard::Joined);
        assert_eq!(members.here(&n2, Here { draining: true }, at(1_100)), Heard::Renewed);
        assert_eq!(members.others(at(4_100)), BTreeSet::from([n2.incarnation]));
        assert_eq!(
            (members.count(at(4_101)), members.named(&BTreeSet::from([n2.incarnation]), at(4_101)).len()),
            (1, 0)
        );
        assert_eq!(members.expire(at(4_100)), []);
        assert_eq!(members.expire(at(4_101)), [Lost { speaker: n2.clone(), draining: true }]);
        assert_eq!(members.here(&n2, STAYS, at(9_000)), Heard::Joined);
        assert!(members.leave(&n2) && !members.leave(&n2));
        assert_eq!(members.count(at(9_000)), 1);
    }

    #[test]
    fn a_node_sees_the_whole_cluster_when_it_has_heard_itself_for_a_lease() {
        let mut members = members();
        let me = members.me.clone();
        assert_eq!(members.sight(at(0)), Sight::Blind);
        for ms in [500, 1_500, 2_500, 3_500] {
            members.here(&me, STAYS, at(ms));
            assert_eq!(members.sight(at(ms)), Sight::Settling, "{ms}");
        }
        assert_eq!(members.sight(at(3_501)), Sight::Whole);
        assert_eq!(members.sight(at(5_500)), Sight::Whole);
        assert_eq!(members.sight(at(5_501)), Sight::Blind);
        members.here(&me, STAYS, at(5_502));
        assert_eq!(members.sight(at(5_502)), Sight::Settling, "others may have been lost in the gap");
        assert!(!members.leave(&me) && members.expire(at(99_000)).is_empty(), "a node does not lose itself");
    }

    #[test]
    fn a_node_that_was_started_again_is_no_double() {
        let mut members = members();
        let (first, second) = (speaker("n2", 2), speaker("n2", 3));
        members.here(&first, STAYS, at(0));
        members.here(&second, STAYS, at(500));
        assert_eq!(members.here(&second, STAYS, at(1_500)), Heard::Renewed);
        assert_eq!(members.doubled(), BTreeSet::new());
        assert_eq!(members.expire(at(3_500)).len(), 1);
    }

    #[test]
    fn two_live_nodes_with_one_id_are_told_apart_and_shown() {
        let mut members = members();
        let (first, second) = (speaker("n2", 3), speaker("n2", 2));
        members.here(&first, STAYS, at(0));
        members.here(&second, STAYS, at(500));
        assert_eq!(members.here(&first, STAYS, at(1_000)), Heard::Doubled);
        assert_eq!(members.here(&first, STAYS, at(2_000)), Heard::Renewed, "it is news once");
        assert_eq!(members.doubled(), BTreeSet::from([first.incarnation, second.incarnation]));
        assert_eq!(members.others(at(2_000)).len(), 2);
        assert!(members.leave(&second));
        assert_eq!(members.doubled(), BTreeSet::new());
    }

    #[test]
    fn a_node_finds_its_own_double() {
        let mut members = members();
        let (me, other) = (members.me.clone(), speaker("n1", 2));
        members.here(&me, STAYS, at(0));
        members.here(&other, STAYS, at(500));
        assert_eq!(members.here(&me, STAYS, at(1_000)), Heard::Doubled);
        assert_eq!(members.doubled().len(), 2);
        assert_eq!(members.expire(at(3_501)).len(), 1);
        assert_eq!(members.doubled(), BTreeSet::new());
    }

    #[test]
    fn who_is_too_many_is_left_out_and_the_view_says_so() {
        let mut members = members();
        let me = members.me.clone();
        for second in 0..=6 {
            members.here(&me, STAYS, at(second * 1_000));
        }
        for number in 2..=NODES_MAX as u64 {
            assert_eq!(members.here(&speaker("n", number), STAYS, at(6_000)), Heard::Joined);
        }
        assert_eq!(members.sight(at(6_000)), Sight::Whole);
        assert_eq!(members.here(&speaker("x", 9_999), STAYS, at(6_000)), Heard::LeftOut);
        assert_eq!((members.count(at(6_000)), members.sight(at(6_000))), (NODES_MAX, Sight::Settling));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Here(u64),
        Leave(u64),
        Expire,
    }

    proptest! {
        #[test]
        fn exactly_those_who_spoke_within_a_lease_are_there(
            events in prop::collection::vec(
                (0_u64..2_000, prop_oneof![
                    3 => (1_u64..5).prop_map(Event::Here),
                    1 => (1_u64..5).prop_map(Event::Leave),
                    1 => Just(Event::Expire),
                ]),
                0..60,
            )
        ) {
            let mut members = members();
            let mut last = BTreeMap::new();
            let mut now = 0;
            for (wait, event) in events {
                now += wait;
                match event {
                    Event::Here(number) => {
                        members.here(&speaker("n", number), STAYS, at(now));
                        last.insert(number, now);
                    }
                    Event::Leave(number) => {
                        members.leave(&speaker("n", number));
                        last.remove(&number);
                    }
                    Event::Expire => drop(members.expire(at(now))),
                }
                let there = last.iter().filter(|(number, at)| **number != 1 && now - **at <= millis(LEASE));
                let there: BTreeSet<_> = there.map(|(number, _)| Incarnation::from_number(*number)).collect();
                assert_eq!(members.others(at(now)), there);
                assert!(members.doubled().len() != 1, "nobody is a double alone");
            }
        }
    }
}
