//! What this node has asked and not yet heard. Pure, but for the bell that wakes the asker.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::members::NODES_MAX;
use super::message::{Incarnation, Reply, Speaker};

/// Questions that may be open at one time: as many handshakes as come in while one node does not answer.
/// What is more is not asked.
pub(super) const QUESTIONS_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Questions {
    asked: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    waiting: BTreeSet<Incarnation>,
    end: End,
    answers: Vec<(Speaker, Reply)>,
    /// Taken when it has rung.
    bell: Option<oneshot::Sender<()>>,
}

/// When a question is over, apart from its time and an answer that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// When all who were asked have answered.
    All,
    /// Never: there may be nodes that the asker does not know.
    Time,
}

/// A question that was just opened.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: u64,
    /// Ends when there is nothing to wait for any more.
    pub(super) settled: oneshot::Receiver<()>,
}

/// What came of a question.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) answers: Vec<(Speaker, Reply)>,
    pub(super) silent: BTreeSet<Incarnation>,
}

impl Questions {
    /// None when too many are open.
    pub(super) fn open(&mut self, waiting: BTreeSet<Incarnation>, end: End) -> Option<Asked> {
        if self.open.len() >= QUESTIONS_MAX {
            return None;
        }
        self.asked += 1;
        let (bell, settled) = oneshot::channel();
        let mut open = Open { waiting, end, answers: Vec::new(), bell: Some(bell) };
        open.ring_if_settled();
        self.open.insert(self.asked, open);
        Some(Asked { id: self.asked, settled })
    }

    /// An answer that nobody waits for any more is no mistake of whoever sent it.
    pub(super) fn answer(&mut self, id: u64, from: Speaker, reply: Reply) {
        let Some(open) = self.open.get_mut(&id) else { return };
        let known = open.answers.iter().any(|(speaker, _)| speaker.incarnation == from.incarnation);
        if known || open.answers.len() >= NODES_MAX {
            return;
        }
        open.waiting.remove(&from.incarnation);
        let decides = reply.decides();
        open.answers.push((from, reply));
        if decides {
            open.ring();
        }
        open.ring_if_settled();
    }

    /// Nobody waits for a node that has gone.
    pub(super) fn gone(&mut self, incarnation: Incarnation) {
        for open in self.open.values_mut() {
            open.waiting.remove(&incarnation);
            open.ring_if_settled();
        }
    }

    /// The asker need not wait any more.
    pub(super) fn settle(&mut self, id: u64) {
        if let Some(open) = self.open.get_mut(&id) {
            open.ring();
        }
    }

    pub(super) fn close(&mut self, id: u64) -> Outcome {
        let closed = self.open.remove(&id);
        closed.map_or_else(Outcome::default, |open| Outcome { answers: open.answers, silent: open.waiting })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Open {
    fn ring_if_settled(&mut self) {
        if self.waiting.is_empty() && self.end == End::All {
            self.ring();
        }
    }

    fn ring(&mut self) {
        if let Some(bell) = self.bell.take() {
            // An asker that has given up closes the question by itself.
            let _ = bell.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::testing::speaker;

    const FREE: Reply = Reply::Claim { taken: false };
    const TAKEN: Reply = Reply::Claim { taken: true };

    fn two() -> BTreeSet<Incarnation> {
        [2, 3].map(Incarnation::from_number).into()
    }

    #[test]
    fn a_question_ends_with_its_last_answer() {
        let mut questions = Questions::default();
        let mut asked = questions.open(two(), End::All).unwrap();
        questions.answer(asked.id, speaker("n2", 2), FREE);
        questions.answer(asked.id, speaker("n2", 2), TAKEN);
        assert!(asked.settled.try_recv().is_err(), "one answer per node");
        questions.answer(asked.id + 1, speaker("n3", 3), FREE);
        assert!(asked.settled.try_recv().is_err(), "another question");
        questions.answer(asked.id, speaker("n3", 3), FREE);
        assert!(asked.settled.try_recv().is_ok());
        let outcome = questions.close(asked.id);
        assert_eq!(outcome.answers, [(speaker("n2", 2), FREE), (speaker("n3", 3), FREE)]);
        assert_eq!((outcome.silent, questions.len()), (BTreeSet::new(), 0));
        questions.answer(asked.id, speaker("n3", 3), TAKEN);
        assert_eq!(questions.close(asked.id), Outcome::default());
    }

    #[test]
    fn an_answer_that_decides_ends_it_at_once() {
        let mut questions = Questions::default();
        let mut asked = questions.open(two(), End::Time).unwrap();
        questions.answer(asked.id, speaker("n3", 3), TAKEN);
        assert!(asked.settled.try_recv().is_ok());
        assert_eq!(questions.close(asked.id).silent, [Incarnation::from_number(2)].into());
    }

    #[test]
    fn nobody_waits_for_a_node_that_has_gone() {
        let mut questions = Questions::default();
        let mut asked = questions.open(two(), End::All).unwrap();
        questions.gone(Incarnation::from_number(2));
        assert!(asked.settled.try_recv().is_err());
        questions.gone(Incarnation::from_number(3));
        assert!(asked.settled.try_recv().is_ok());
    }

    #[test]
    fn who_may_not_know_everybody_waits_for_the_time() {
        let mut questions = Questions::default();
        let mut asked = questions.open(BTreeSet::new(), End::Time).unwrap();
        questions.answer(asked.id, speaker("n2", 2), FREE);
        assert!(asked.settled.try_recv().is_err());
        questions.settle(asked.id);
        assert!(asked.settled.try_recv().is_ok());
    }

    #[test]
    fn open_questions_have_a_bound() {
        let mut questions = Questions::default();
        for _ in 0..QUESTIONS_MAX {
            assert!(questions.open(two(), End::All).is_some());
        }
        assert!(questions.open(two(), End::All).is_none());
        questions.close(1);
        assert!(questions.open(two(), End::All).is_some());
    }
}
