//! Names that this node is about to give to a session: asked for, and not yet granted. Pure.
//!
//! Two nodes may claim one name at the same moment. Each judges the other's claim by its own: the smaller
//! speaker keeps the name. As both judge by the same rule, and a claim is made before it is told, at most
//! one keeps it, as long as they hear each other.

use std::collections::BTreeMap;

use hiveops_proto::ConnectionId;

use super::message::Speaker;
use super::questions::QUESTIONS_MAX;

#[derive(Debug, Default)]
pub(super) struct Claims {
    pending: BTreeMap<ConnectionId, Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    /// Another node keeps the name.
    lost: bool,
    /// The question that waits for the others' answers.
    question: Option<u64>,
}

/// What another node's claim comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Free,
    /// This node's own claim gives way; the question need not be waited for.
    Yielded(Option<u64>),
    Taken,
}

impl Claims {
    /// False when somebody on this node has just claimed the same, or too many claims are pending.
    pub(super) fn begin(&mut self, id: &ConnectionId) -> bool {
        if self.pending.len() >= QUESTIONS_MAX || self.pending.contains_key(id) {
            return false;
        }
        self.pending.insert(id.clone(), Pending::default());
        true
    }

    /// The others are being asked.
    pub(super) fn asked(&mut self, id: &ConnectionId, question: u64) {
        if let Some(pending) = self.pending.get_mut(id) {
            pending.question = Some(question);
        }
    }

    pub(super) fn is_lost(&self, id: &ConnectionId) -> bool {
        self.pending.get(id).is_some_and(|pending| pending.lost)
    }

    /// Everybody has had a say: whether this node keeps the name. From then on its session has it, or is
    /// about to get another one.
    pub(super) fn decide(&mut self, id: &ConnectionId, verdict: Verdict) -> bool {
        let lost = self.is_lost(id) || verdict == Verdict::Taken;
        if !lost {
            self.end(id);
        } else if let Some(pending) = self.pending.get_mut(id) {
            pending.lost = true;
        }
        !lost
    }

    pub(super) fn end(&mut self, id: &ConnectionId) {
        self.pending.remove(id);
    }

    /// Another node claims a name. `is_held` says whether a session of this node has it.
    pub(super) fn judge(
        &mut self,
        id: &ConnectionId,
        rival: &Speaker,
        me: &Speaker,
        is_held: impl FnOnce() -> bool,
    ) -> Verdict {
        match self.pending.get_mut(id) {
            Some(pending) if pending.lost => Verdict::Free,
            Some(_) if me < rival => Verdict::Taken,
            Some(pending) => {
                pending.lost = true;
                Verdict::Yielded(pending.question)
            }
            None if is_held() => Verdict::Taken,
            None => Verdict::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;
    use crate::cluster::testing::speaker;

    fn id(text: &str) -> ConnectionId {
        ConnectionId::new(text).unwrap()
    }

    #[test]
    fn a_name_is_claimed_once_at_a_time() {
        let mut claims = Claims::default();
        assert!(claims.begin(&id("me")) && !claims.begin(&id("me")) && claims.begin(&id("you")));
        assert!(claims.decide(&id("me"), Verdict::Free) && claims.begin(&id("me")));
        assert!(
            !claims.decide(&id("me"), Verdict::Taken) && !claims.begin(&id("me")),
            "until it has another"
        );
        claims.end(&id("me"));
        assert!(claims.begin(&id("me")));
    }

    #[test]
    fn pending_claims_have_a_bound() {
        let mut claims = Claims::default();
        assert!((0..QUESTIONS_MAX).all(|number| claims.begin(&id(&format!("c{number}")))));
        assert!(!claims.begin(&id("me")));
    }

    #[test]
    fn of_two_claims_the_smaller_speakers_is_kept() {
        let (small, big) = (speaker("n1", 9), speaker("n2", 1));
        let mut claims = Claims::default();
        claims.begin(&id("me"));
        claims.asked(&id("me"), 7);
        let held = || panic!("a pending claim comes before what is held");
        assert_eq!(claims.judge(&id("me"), &big, &small, held), Verdict::Taken);
        assert_eq!(claims.judge(&id("me"), &small, &big, held), Verdict::Yielded(Some(7)));
        assert!(claims.is_lost(&id("me")));
        let third = speaker("n3", 1);
        assert_eq!(claims.judge(&id("me"), &third, &big, held), Verdict::Free, "this node is out of it");
        claims.end(&id("me"));
        assert_eq!(claims.judge(&id("me"), &small, &big, || true), Verdict::Taken);
        assert_eq!(claims.judge(&id("me"), &small, &big, || false), Verdict::Free);
    }

    /// One node of the model: what it does next, and what it has been told.
    struct Node {
        me: Speaker,
        claims: Claims,
        /// Its session has the name.
        holds: bool,
        begun: bool,
        refused: bool,
        answers: usize,
        inbox: Vec<Note>,
    }

    enum Note {
        Claim(usize),
        Answer(Verdict),
    }

    const NODES: usize = 3;

    /// One step of a node: begin, or take the message that comes next.
    fn step(nodes: &mut [Node], at: usize, pick: usize) {
        let node = &mut nodes[at];
        if !node.begun && (node.inbox.is_empty() || pick.is_multiple_of(2)) {
            node.begun = true;
            node.claims.begin(&id("me"));
            (0..NODES)
                .filter(|other| *other != at)
                .for_each(|other| nodes[other].inbox.push(Note::Claim(at)));
            return;
        }
        if node.inbox.is_empty() {
            return;
        }
        let note = node.inbox.remove(pick % node.inbox.len());
        match note {
            Note::Claim(rival) => {
                let speaker = nodes[rival].me.clone();
                let node = &mut nodes[at];
                let holds = node.holds;
                let verdict = node.claims.judge(&id("me"), &speaker, &node.me.clone(), || holds);
                nodes[rival].inbox.push(Note::Answer(verdict));
            }
            Note::Answer(verdict) => {
                node.answers += 1;
                node.refused |= verdict == Verdict::Taken;
                if node.answers == NODES - 1 {
                    let verdict = if node.refused { Verdict::Taken } else { Verdict::Free };
                    node.holds = node.claims.decide(&id("me"), verdict);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_order_one_node_at_most_keeps_the_name(
            steps in prop::collection::vec((0..NODES, any::<u8>()), 0..60)
        ) {
            let mut nodes: Vec<Node> = (0..NODES)
                .map(|number| Node {
                    me: speaker("n", number as u64),
                    claims: Claims::default(),
                    holds: false,
                    begun: false,
                    refused: false,
                    answers: 0,
                    inbox: Vec::new(),
                })
                .collect();
            let rest = (0..200).map(|number| (number % NODES, 1_u8));
            for (at, pick) in steps.into_iter().chain(rest) {
                step(&mut nodes, at, usize::from(pick));
                assert!(nodes.iter().filter(|node| node.holds).count() <= 1);
            }
            assert!(nodes.iter().all(|node| node.answers == NODES - 1), "everybody is answered");
            assert!(nodes.iter().any(|node| node.holds), "somebody keeps it");
        }
    }
}
