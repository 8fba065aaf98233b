//! The board: agents, tasks and reports as typed values, seen through the log.
//!
//! The receive loop feeds it what the bus stores; REST routes, `request_data`, the lease reaper and the
//! reporters read it. It is a view: nothing is changed here that the log has not stored first. Pure, apart
//! from the loops in `leases`, `reporter` and the shell in `service`.

mod agent;
mod bounds;
mod figures;
mod handle;
mod host;
pub(crate) mod leases;
pub(crate) mod query;
mod report;
pub(crate) mod reporter;
pub(crate) mod service;
mod task;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeMap, HashMap, VecDeque};

use hiveops_proto::board::{Agent, Task};
use hiveops_proto::{CorrelationId, Key, Position, Timestamp};
use serde::de::DeserializeOwned;

pub(crate) use handle::BoardHandle;
pub(crate) use query::{Components, SystemHealth};
pub(crate) use report::{BusReport, CoordinationReport, NodeReport};
pub(crate) use reporter::{Figures, NodeFigures};
pub(crate) use service::BoardService;

use crate::bus::{Reset, Stored};
use crate::catalog::Catalog;
use crate::log::KEPT_MAX;

/// The subscriptions that the board reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Agents,
    Tasks,
    Coordination,
    System,
}

impl Section {
    pub(crate) const ALL: [Self; 4] = [Self::Agents, Self::Tasks, Self::Coordination, Self::System];

    /// The name of the subscription.
    pub(crate) fn subscription(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Tasks => "tasks",
            Self::Coordination => "coordination",
            Self::System => "system",
        }
    }

    /// The message type whose data the board understands.
    pub(crate) fn message_type(self) -> &'static str {
        match self {
            Self::Agents => "agent_update",
            Self::Tasks => "task_update",
            Self::Coordination => "coordination_update",
            Self::System => "system_update",
        }
    }

    fn of(subscription: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.subscription() == subscription)
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Everything that the board knows.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) agents: View<Agent>,
    pub(crate) tasks: View<Task>,
    pub(crate) coordination: View<CoordinationReport>,
    pub(crate) nodes: View<NodeReport>,
}

/// The values of one section.
#[derive(Debug)]
pub(crate) struct View<T> {
    head: Option<Position>,
    values: BTreeMap<Key, Held<T>>,
    /// Keys whose value is somebody else's kind of object; they are none of ours and no error.
    foreign: HashMap<Key, u64>,
    removed: Removed,
}

/// A value with the publication that set it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held<T> {
    pub(crate) seq: u64,
    pub(crate) value: T,
}

/// Who removed which key lately, so that a repeated removal is known; bounded like the log's own memory.
#[derive(Debug, Default)]
struct Removed {
    by: HashMap<Key, CorrelationId>,
    order: VecDeque<Key>,
}

impl Board {
    /// Takes over a log as it is now.
    pub(crate) fn apply_reset(&mut self, reset: &Reset, catalog: &Catalog) {
        match Section::of(catalog.name(reset.sub).as_str()) {
            Some(section @ Section::Agents) => self.agents.reset(section, reset),
            Some(section @ Section::Tasks) => self.tasks.reset(section, reset),
            Some(section @ Section::Coordination) => self.coordination.reset(section, reset),
            Some(section @ Section::System) => self.nodes.reset(section, reset),
            None => {}
        }
    }

    /// Takes the next publication of a log.
    pub(crate) fn apply(&mut self, stored: &Stored, catalog: &Catalog) {
        match Section::of(catalog.name(stored.sub).as_str()) {
            Some(section @ Section::Agents) => self.agents.apply(section, stored),
            Some(section @ Section::Tasks) => self.tasks.apply(section, stored),
            Some(section @ Section::Coordination) => self.coordination.apply(section, stored),
            Some(section @ Section::System) => self.nodes.apply(section, stored),
            None => {}
        }
    }

    /// How far the section has been read; `None` before its log arrived.
    pub(crate) fn head(&self, section: Section) -> Option<&Position> {
        match section {
            Section::Agents => self.agents.head.as_ref(),
            Section::Tasks => self.tasks.head.as_ref(),
            Section::Coordination => self.coordination.head.as_ref(),
            Section::System => self.nodes.head.as_ref(),
        }
    }

    /// The nodes whose report is not older than their lease.
    pub(crate) fn live_nodes(&self, now: Timestamp) -> impl Iterator<Item = &NodeReport> {
        self.nodes.iter().map(|(_, held)| &held.value).filter(move |node| !node.is_gone(now))
    }
}

impl<T> View<T> {
    pub(crate) fn get(&self, key: &Key) -> Option<&Held<T>> {
        self.values.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Held<T>)> {
        self.values.iter()
    }

    /// The values whose key comes after `key` in the order of the alphabet.
    pub(crate) fn after(&self, key: Option<&Key>) -> impl Iterator<Item = (&Key, &Held<T>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = key.map_or(Unbounded, Excluded);
        self.values.range::<Key, _>((from, Unbounded))
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// How many keys hold something that is not a `T`.
    #[cfg(test)]
    pub(crate) fn foreign(&self) -> usize {
        self.foreign.len()
    }

    /// The publication of somebody else's object that holds the key.
    pub(crate) fn foreign_seq(&self, key: &Key) -> Option<u64> {
        self.foreign.get(key).copied()
    }

    /// Whether this correlation id was the one that removed the key.
    pub(crate) fn was_removed_by(&self, key: &Key, id: &CorrelationId) -> bool {
        self.removed.by.get(key) == Some(id)
    }
}

impl<T: DeserializeOwned> View<T> {
    fn reset(&mut self, section: Section, reset: &Reset) {
        *self = Self::default();
        for stored in &reset.entries {
            self.apply(section, stored);
        }
        self.head = Some(Position { epoch: reset.epoch.clone(), seq: reset.head });
    }

    fn apply(&mut self, section: Section, stored: &Stored) {
        self.head = Some(Position { epoch: stored.epoch.clone(), seq: stored.seq });
        let Some(key) = &stored.key else { return };
        if key.message_type.as_str() != section.message_type() {
            return;
        }
        let key = key.key.clone();
        self.foreign.remove(&key);
        self.values.remove(&key);
        if stored.removes {
            self.removed.note(key, stored.envelope.correlation_id.clone());
            return;
        }
        self.removed.by.remove(&key);
        match stored.envelope.data.read::<T>() {
            Ok(value) => {
                self.values.insert(key, Held { seq: stored.seq, value });
            }
            Err(_) => {
                self.foreign.insert(key, stored.seq);
            }
        }
    }
}

impl<T> Default for View<T> {
    fn default() -> Self {
        Self { head: None, values: BTreeMap::new(), foreign: HashMap::new(), removed: Removed::default() }
    }
}

impl Removed {
    fn note(&mut self, key: Key, by: CorrelationId) {
        self.by.insert(key.clone(), by);
        self.order.push_back(key);
        // A key that came back and went again stands in the order twice; the older place then forgets it
        // early, which costs a repeated removal its quiet answer and nothing else.
        while self.order.len() > KEPT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests;
