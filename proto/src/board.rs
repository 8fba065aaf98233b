//! Agents and tasks: the values behind `agent_update` and `task_update`, and what the REST routes take.
//!
//! They are the dashboards' own state. Other publishers may put other objects on these subscriptions
//! (in contract 1.0 `data` is any object); those are delivered, but do not count as agents or tasks.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::code::words;
use crate::id::{CorrelationId, Key};
use crate::timestamp::Timestamp;

words! {
    /// How an agent is.
    AgentStatus {
        /// It works.
        Active = "active",
        /// It waits for work.
        Idle = "idle",
        /// It works and takes no more.
        Busy = "busy",
        /// It says that something is wrong with it.
        Error = "error",
        /// It said goodbye.
        Offline = "offline",
        /// It has not reported within its lease. Only the node sets this.
        Stale = "stale",
    }
}

words! {
    /// How far a task is.
    TaskStatus {
        /// It waits.
        Pending = "pending",
        /// Somebody works on it.
        InProgress = "in_progress",
        /// It waits for something else.
        Blocked = "blocked",
        /// It is done.
        Completed = "completed",
        /// It went wrong.
        Failed = "failed",
        /// It is not wanted any more.
        Cancelled = "cancelled",
    }
}

words! {
    /// How urgent a task is.
    TaskPriority {
        /// When there is nothing else.
        Low = "low",
        /// In its turn.
        Normal = "normal",
        /// Before the others.
        High = "high",
        /// Now.
        Critical = "critical",
    }
}

impl AgentStatus {
    /// Whether an agent of this status counts as active in summaries.
    pub fn is_active(self) -> bool {
        match self {
            Self::Active | Self::Idle | Self::Busy => true,
            Self::Error | Self::Offline | Self::Stale => false,
        }
    }
}

impl TaskStatus {
    /// Whether the task will not change by itself any more.
    pub fn is_finished(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Cancelled => true,
            Self::Pending | Self::InProgress | Self::Blocked => false,
        }
    }
}

/// One agent, whole: the `data` of its `agent_update`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its key.
    pub id: Key,
    /// Its name for people.
    pub name: String,
    /// What sort of agent it is.
    pub agent_type: String,
    /// How it is.
    pub status: AgentStatus,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The task it works on.
    #[serde(default)]
    pub current_task: Option<Key>,
    /// Seconds after the last heartbeat at which it goes stale.
    pub lease_seconds: u64,
    /// When it first reported.
    pub registered_at: Timestamp,
    /// When it last reported, as precisely as the log knows: a beat that changes nothing is written
    /// at most every third of the lease.
    pub last_heartbeat: Timestamp,
    /// Whether it is simulated (`hiveops dev --demo`).
    #[serde(default)]
    pub simulated: bool,
    /// Its own figures.
    #[serde(default)]
    pub metrics: Map<String, Value>,
    /// Grows by one with each change.
    pub version: u64,
}

/// Registers an agent: `POST /api/v1/agents`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentRegistration {
    /// Its key; made when left out.
    #[serde(default)]
    pub id: Option<Key>,
    /// Its name for people.
    pub name: String,
    /// What sort of agent it is.
    #[serde(default = "generic")]
    pub agent_type: String,
    /// How it is; `active` when left out.
    #[serde(default)]
    pub status: Option<AgentStatus>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Seconds without a heartbeat at which it goes stale; 30 when left out.
    #[serde(default)]
    pub lease_seconds: Option<u64>,
    /// Whether it is simulated.
    #[serde(default)]
    pub simulated: bool,
    /// Its own figures.
    #[serde(default)]
    pub metrics: Map<String, Value>,
}

/// An agent reports in: `POST /api/v1/agents/{id}/heartbeat`. What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentHeartbeat {
    /// How it is; a stale agent that does not say becomes `active`.
    pub status: Option<AgentStatus>,
    /// The task it works on; `null` for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub current_task: Option<Option<Key>>,
    /// Its own figures, whole.
    pub metrics: Option<Map<String, Value>>,
}

/// Changes an agent: `PATCH /api/v1/agents/{id}`. What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentPatch {
    /// Only when the agent has this version.
    pub expected_version: Option<u64>,
    /// Its name for people.
    pub name: Option<String>,
    /// How it is.
    pub status: Option<AgentStatus>,
    /// What it can do.
    pub capabilities: Option<Vec<String>>,
    /// Seconds without a heartbeat at which it goes stale.
    pub lease_seconds: Option<u64>,
}

/// One task, whole: the `data` of its `task_update`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its key.
    pub id: Key,
    /// What is to be done.
    pub title: String,
    /// More about it.
    #[serde(default)]
    pub description: String,
    /// How far it is.
    pub status: TaskStatus,
    /// How urgent it is.
    pub priority: TaskPriority,
    /// Who works on it.
    #[serde(default)]
    pub assigned_agent: Option<Key>,
    /// Seconds without a change at which a task in progress goes stale.
    pub lease_seconds: u64,
    /// Whether it is in progress and nobody has touched it within its lease.
    #[serde(default)]
    pub stale: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When work on it began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it was completed, failed or cancelled.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// Anything else its owner keeps with it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Grows by one with each change.
    pub version: u64,
    /// The correlation ids of the last changes, so that a repeated one is known.
    #[serde(default)]
    pub applied_correlation_ids: Vec<CorrelationId>,
}

/// Creates a task: `POST /api/v1/tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskCreation {
    /// Its key; made when left out.
    #[serde(default)]
    pub id: Option<Key>,
    /// What is to be done.
    pub title: String,
    /// More about it.
    #[serde(default)]
    pub description: String,
    /// How far it is; `pending` when left out.
    #[serde(default)]
    pub status: Option<TaskStatus>,
    /// How urgent it is; `normal` when left out.
    #[serde(default)]
    pub priority: Option<TaskPriority>,
    /// Who works on it.
    #[serde(default)]
    pub assigned_agent: Option<Key>,
    /// Seconds without a change at which it goes stale in progress; 300 when left out.
    #[serde(default)]
    pub lease_seconds: Option<u64>,
    /// Anything else its owner keeps with it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

/// Changes a task: `PATCH /api/v1/tasks/{id}`. What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskPatch {
    /// Only when the task has this version.
    pub expected_version: Option<u64>,
    /// What is to be done.
    pub title: Option<String>,
    /// More about it.
    pub description: Option<String>,
    /// How far it is.
    pub status: Option<TaskStatus>,
    /// How urgent it is.
    pub priority: Option<TaskPriority>,
    /// Who works on it; `null` for nobody.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub assigned_agent: Option<Option<Key>>,
    /// Seconds without a change at which it goes stale in progress.
    pub lease_seconds: Option<u64>,
    /// Anything else, whole.
    pub metadata: Option<Map<String, Value>>,
}

/// Several changes at once: `POST /api/v1/sync/tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskBatch {
    /// Done one after the other; one that fails does not stop the rest.
    pub operations: Vec<TaskOperation>,
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum TaskOperation {
    /// As `POST /api/v1/tasks`.
    Create {
        /// Makes it safe to send again.
        correlation_id: CorrelationId,
        /// The task.
        task: TaskCreation,
    },
    /// As `PATCH /api/v1/tasks/{id}`.
    Update {
        /// Makes it safe to send again.
        correlation_id: CorrelationId,
        /// The task's key.
        id: Key,
        /// The change.
        changes: TaskPatch,
    },
    /// As `DELETE /api/v1/tasks/{id}`.
    Delete {
        /// Makes it safe to send again.
        correlation_id: CorrelationId,
        /// The task's key.
        id: Key,
        /// Only when the task has this version.
        #[serde(default)]
        expected_version: Option<u64>,
    },
}

words! {
    /// What became of one operation of a batch.
    SyncStatus {
        /// It was done now.
        Applied = "applied",
        /// It had been done before.
        Duplicate = "duplicate",
        /// Somebody else was first: `task` is the one in force.
        Conflict = "conflict",
        /// It cannot be done: `detail` says why.
        Rejected = "rejected",
    }
}

/// Answers one operation of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncResult {
    /// The operation's own.
    pub correlation_id: CorrelationId,
    /// What became of it.
    pub status: SyncStatus,
    /// The task as it is now, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

fn generic() -> String {
    "generic".to_owned()
}

/// Tells `null` (some nothing) from a member that is not there (nothing).
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_null_from_absent() {
        let patch = |json: &str| serde_json::from_str::<TaskPatch>(json).unwrap().assigned_agent;
        assert_eq!(patch("{}"), None);
        assert_eq!(patch(r#"{"assigned_agent":null}"#), Some(None));
        assert_eq!(patch(r#"{"assigned_agent":"a1"}"#), Some(Some(Key::new("a1").unwrap())));
        assert!(serde_json::from_str::<TaskPatch>(r#"{"titel":"x"}"#).is_err());
    }
}
