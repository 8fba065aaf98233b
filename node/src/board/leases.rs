//! Finds what has not been heard of within its lease: agents and tasks go stale, reports of nodes that are
//! gone are removed. Every node looks; the condition on the publication lets one of them win.

use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::{Key, Payload, Timestamp};

use super::service::{BoardService, removal};
use super::{Board, Section, agent, task};
use crate::bus::{Expect, PublishError};
use crate::publisher::Refused;
use crate::telemetry::Chain;

/// How often the board is looked through.
const TICK: Duration = Duration::from_secs(1);

/// Changes of one tick at most: after a long outage everything is due at once, and other publications
/// shall get in between.
const CHANGES_PER_TICK_MAX: usize = 256;

/// One lease that ran out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) section: Section,
    pub(crate) key: Key,
    /// The publication that set the value which is due.
    pub(crate) seq: u64,
    pub(crate) next: Next,
}

/// What takes the place of the value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    StaleAgent(Box<hiveops_proto::board::Agent>),
    StaleTask(Box<hiveops_proto::board::Task>),
    /// The node's report is removed.
    NodeGone,
}

/// What is due now, as much as one tick does.
pub(crate) fn due(board: &Board, now: Timestamp) -> Vec<Change> {
    let agents = board.agents.iter().filter_map(|(key, held)| {
        let next = Next::StaleAgent(Box::new(agent::expire(&held.value, now)?));
        Some(Change { section: Section::Agents, key: key.clone(), seq: held.seq, next })
    });
    let tasks = board.tasks.iter().filter_map(|(key, held)| {
        let next = Next::StaleTask(Box::new(task::expire(&held.value, now)?));
        Some(Change { section: Section::Tasks, key: key.clone(), seq: held.seq, next })
    });
    let nodes = board.nodes.iter().filter(|(_, held)| held.value.is_gone(now)).map(|(key, held)| Change {
        section: Section::System,
        key: key.clone(),
        seq: held.seq,
        next: Next::NodeGone,
    });
    agents.chain(tasks).chain(nodes).take(CHANGES_PER_TICK_MAX).collect()
}

/// Looks once per tick until the node shuts down.
pub(crate) async fn run(service: Arc<BoardService>, shutdown: impl Future<Output = ()>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            // Both can be dropped at any await: neither has taken anything yet.
            () = &mut shutdown => return,
            _ = ticks.tick() => {}
        }
        let changes = due(&service.board().read(), service.clock().timestamp());
        tokio::select! {
            // A change that is dropped half way is stored or not, and the next node looks again.
            () = &mut shutdown => return,
            () = apply(&service, changes) => {}
        }
    }
}

pub(crate) async fn apply(service: &BoardService, changes: Vec<Change>) {
    for change in changes {
        let (subscription, key) = (change.section.subscription(), change.key.clone());
        let data = match change.data() {
            Ok(data) => data,
            Err(error) => {
                tracing::error!(subscription, %key, error = %Chain(&error), "lease cannot be written");
                continue;
            }
        };
        match service.change_once(change.section, data, Expect::Seq(change.seq)).await {
            Ok(true) => tracing::info!(subscription, %key, "lease ran out"),
            // Somebody else was first, be it with a beat or with this very change.
            Ok(false) => {}
            // The publisher has logged why; the rest would fail alike and is due again in a second.
            Err(Refused::Bus(PublishError::Timeout | PublishError::Unavailable(_))) => return,
            // Something about this one value, such as its size: the others are not to suffer for it.
            Err(_) => {}
        }
    }
}

impl Change {
    fn data(&self) -> Result<Payload, hiveops_proto::payload::InvalidPayload> {
        match &self.next {
            Next::StaleAgent(agent) => Payload::from_value(agent),
            Next::StaleTask(task) => Payload::from_value(task),
            Next::NodeGone => removal(&self.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::testing::{agent, board_of_agents, board_of_tasks, task};
    use hiveops_proto::board::{AgentStatus, TaskStatus};

    #[test]
    fn agents_and_tasks_past_their_lease_are_due_and_others_are_not() {
        let now = Timestamp::from_millis(31_000);
        let board =
            board_of_agents([agent("late", AgentStatus::Active), agent("gone", AgentStatus::Offline)]);
        let found = due(&board, now);
        assert_eq!(found.iter().map(|c| c.key.as_str()).collect::<Vec<_>>(), ["late"]);
        assert!(due(&board, Timestamp::from_millis(30_000)).is_empty());
        let board = board_of_tasks([task("t", TaskStatus::InProgress), task("p", TaskStatus::Pending)]);
        let found = due(&board, Timestamp::from_millis(300_001));
        assert!(matches!(&found[..], [Change { next: Next::StaleTask(task), .. }] if task.stale));
    }

    #[test]
    fn one_tick_does_a_bounded_number() {
        let board = board_of_agents((0..300).map(|n| agent(&format!("a{n}"), AgentStatus::Active)));
        assert_eq!(due(&board, Timestamp::from_millis(99_000)).len(), CHANGES_PER_TICK_MAX);
    }
}
