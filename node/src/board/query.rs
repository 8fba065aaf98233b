//! The answers of `request_data`: what a client sees when it asks instead of waiting. Pure.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use hiveops_proto::board::TaskStatus;
use hiveops_proto::frame::DataType;
use hiveops_proto::{ErrorCode, Key, Payload, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::figures::{self, WINDOW_SECONDS_DEFAULT};
use super::report::{BusReport, NodeReport};
use super::{Board, Section};

/// What a client may say with `request_data`.
pub(crate) type Params = Map<String, Value>;

/// An answer, or what the `data_error` says.
pub(crate) type Answer = Result<Payload, (ErrorCode, String)>;

/// Agents in one answer when the client does not say.
const AGENTS_DEFAULT: u64 = 500;

/// Agents a client may ask for: all that the state can hold.
const AGENTS_ASKED: RangeInclusive<u64> = 1..=10_000;

/// Bytes of agents in one answer: a frame stays below the 256 KiB of a snapshot part.
const AGENTS_BYTES_MAX: usize = 200 * 1_024;

/// The window that success can be asked for.
const WINDOW_SECONDS_ASKED: RangeInclusive<u64> = 60..=86_400;

/// Agents that a distribution names: those with the most unfinished tasks.
const LOADED_AGENTS_MAX: usize = 500;

/// Nodes that one answer shows, so that it stays below the size of a snapshot part.
const NODES_MAX: usize = 500;

/// The answer to `system_health`; the caller knows bus and control.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SystemHealth {
    pub(crate) overall_status: String,
    pub(crate) components: Components,
}

/// What a cluster consists of.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Components {
    pub(crate) bus: BusReport,
    pub(crate) control: Value,
    pub(crate) nodes: Vec<NodeReport>,
}

/// Answers from the board as it is; `health` is asked for what the board does not know.
pub(crate) fn answer(
    board: &Board,
    data_type: DataType,
    params: Option<&Params>,
    now: Timestamp,
    health: impl FnOnce(&Board) -> SystemHealth,
) -> Answer {
    let loaded = Section::ALL.into_iter().all(|section| board.head(section).is_some());
    match data_type {
        DataType::SystemHealth => system_health(&health(board)),
        _ if !loaded => {
            let text = "the state has not been read from the bus yet";
            Err((ErrorCode::DataUnavailable, text.to_owned()))
        }
        DataType::AgentStatus => agent_status(board, params),
        DataType::CoordinationMetrics => coordination_metrics(board, params, now),
        DataType::TaskDistribution => task_distribution(board, params, now),
    }
}

/// `agent_status {agents, summary, truncated}`.
fn agent_status(board: &Board, params: Option<&Params>) -> Answer {
    #[derive(Serialize)]
    struct Status {
        agents: Vec<Box<RawValue>>,
        summary: super::report::AgentSummary,
        truncated: bool,
    }
    let limit = number(params, "limit", &AGENTS_ASKED)?.unwrap_or(AGENTS_DEFAULT);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut agents, mut bytes) = (Vec::new(), 0);
    for (_, held) in board.agents.iter().take(limit) {
        let agent = serde_json::value::to_raw_value(&held.value).map_err(|error| internal(&error))?;
        bytes += agent.get().len() + 1;
        if bytes > AGENTS_BYTES_MAX {
            break;
        }
        agents.push(agent);
    }
    let truncated = agents.len() < board.agents.len();
    payload(&Status { agents, summary: figures::agents(board), truncated })
}

/// `coordination_metrics {success_rate, trend, total_tasks, window_seconds}`.
fn coordination_metrics(board: &Board, params: Option<&Params>, now: Timestamp) -> Answer {
    let window_seconds =
        number(params, "window_seconds", &WINDOW_SECONDS_ASKED)?.unwrap_or(WINDOW_SECONDS_DEFAULT);
    let success = figures::success(board, now, window_seconds);
    payload(&json!({
        "success_rate": success.rate,
        "trend": success.trend,
        "total_tasks": board.tasks.len(),
        "window_seconds": window_seconds,
    }))
}

/// `task_distribution {queue_length, in_progress, failed_recent, by_status, by_agent, unassigned}`.
fn task_distribution(board: &Board, params: Option<&Params>, now: Timestamp) -> Answer {
    #[derive(Serialize)]
    struct Distribution<'a> {
        queue_length: u64,
        in_progress: u64,
        failed_recent: u64,
        window_seconds: u64,
        by_status: BTreeMap<TaskStatus, u64>,
        /// Unfinished tasks of each agent that has any.
        by_agent: BTreeMap<&'a Key, u64>,
        unassigned: u64,
        truncated: bool,
    }
    let window_seconds =
        number(params, "window_seconds", &WINDOW_SECONDS_ASKED)?.unwrap_or(WINDOW_SECONDS_DEFAULT);
    let by_status = figures::tasks(board);
    let (mut by_agent, mut unassigned) = (BTreeMap::<&Key, u64>::new(), 0);
    for (_, held) in board.tasks.iter().filter(|(_, held)| !held.value.status.is_finished()) {
        match &held.value.assigned_agent {
            Some(agent) => *by_agent.entry(agent).or_default() += 1,
            None => unassigned += 1,
        }
    }
    let truncated = by_agent.len() > LOADED_AGENTS_MAX;
    payload(&Distribution {
        queue_length: count(&by_status, TaskStatus::Pending),
        in_progress: count(&by_status, TaskStatus::InProgress),
        failed_recent: figures::success(board, now, window_seconds).failed,
        window_seconds,
        by_status,
        by_agent: most_loaded(by_agent),
        unassigned,
        truncated,
    })
}

/// `system_health {overall_status, components}`.
fn system_health(health: &SystemHealth) -> Answer {
    payload(health)
}

impl Board {
    /// The reports of the nodes that are there, as many as an answer shows.
    pub(crate) fn shown_nodes(&self, now: Timestamp) -> Vec<NodeReport> {
        self.live_nodes(now).take(NODES_MAX).cloned().collect()
    }
}

pub(super) fn count(by_status: &BTreeMap<TaskStatus, u64>, status: TaskStatus) -> u64 {
    by_status.get(&status).copied().unwrap_or(0)
}

fn most_loaded(by_agent: BTreeMap<&Key, u64>) -> BTreeMap<&Key, u64> {
    let mut agents: Vec<_> = by_agent.into_iter().collect();
    agents.sort_by_key(|(_, tasks)| std::cmp::Reverse(*tasks));
    agents.truncate(LOADED_AGENTS_MAX);
    agents.into_iter().collect()
}

fn number(
    params: Option<&Params>,
    name: &str,
    range: &RangeInclusive<u64>,
) -> Result<Option<u64>, (ErrorCode, String)> {
    let Some(value) = params.and_then(|params| params.get(name)) else { return Ok(None) };
    match value.as_u64().filter(|number| range.contains(number)) {
        Some(number) => Ok(Some(number)),
        None => {
            let (min, max) = (range.start(), range.end());
            let text = format!("params.{name} must be a whole number from {min} to {max}");
            Err((ErrorCode::InvalidMessage, text))
        }
    }
}

fn payload<T: Serialize>(answer: &T) -> Answer {
    Payload::from_value(answer).map_err(|error| internal(&error))
}

fn internal(error: &dyn std::error::Error) -> (ErrorCode, String) {
    tracing::error!(error = %crate::telemetry::Chain(error), "board answer cannot be written");
    (ErrorCode::Internal, "the data cannot be written".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::testing::{agent, board_of_agents, board_of_tasks, task};
    use hiveops_proto::board::AgentStatus;

    fn params(value: Value) -> Params {
        value.as_object().unwrap().clone()
    }

    fn read(answer: Answer) -> Value {
        answer.unwrap().read().unwrap()
    }

    #[test]
    fn agent_status_lists_and_counts() {
        let board = board_of_agents([agent("a", AgentStatus::Busy), agent("b", AgentStatus::Stale)]);
        let all = read(agent_status(&board, None));
        assert_eq!(all["agents"].as_array().unwrap().len(), 2);
        assert_eq!(all["summary"]["active"], 1);
        assert_eq!(all["summary"]["by_status"]["offline"], 0);
        assert_eq!(all["truncated"], false);
        let one = read(agent_status(&board, Some(&params(json!({"limit": 1})))));
        assert_eq!((one["agents"].as_array().unwrap().len(), &one["truncated"]), (1, &Value::Bool(true)));
    }

    #[test]
    fn agent_status_stays_below_its_size() {
        let board = board_of_agents((0..500).map(|n| {
            let mut agent = agent(&format!("a{n}"), AgentStatus::Active);
            agent.name = "n".repeat(1_000);
            agent
        }));
        let answer = agent_status(&board, None).unwrap();
        assert!(answer.as_str().len() < 210 * 1_024);
        assert_eq!(read(Ok(answer))["truncated"], true);
    }

    #[test]
    fn wrong_params_are_named() {
        let board = Board::default();
        for wrong in [json!({"limit": "x"}), json!({"limit": 0}), json!({"limit": 1.5})] {
            let (code, text) = agent_status(&board, Some(&params(wrong))).unwrap_err();
            assert_eq!(code, ErrorCode::InvalidMessage);
            assert!(text.contains("params.limit"), "{text}");
        }
        let wrong = params(json!({"window_seconds": 5}));
        assert!(coordination_metrics(&board, Some(&wrong), Timestamp::from_millis(0)).is_err());
    }

    #[test]
    fn task_distribution_counts_unfinished_work_by_agent() {
        let mut assigned = task("t1", TaskStatus::InProgress);
        assigned.assigned_agent = Some(Key::new("a1").unwrap());
        let mut done = task("t2", TaskStatus::Completed);
        done.assigned_agent = Some(Key::new("a1").unwrap());
        let board = board_of_tasks([assigned, done, task("t3", TaskStatus::Pending)]);
        let found = read(task_distribution(&board, None, Timestamp::from_millis(0)));
        assert_eq!(found["by_agent"], json!({"a1": 1}));
        assert_eq!((&found["unassigned"], &found["queue_length"]), (&json!(1), &json!(1)));
        assert_eq!(found["by_status"]["completed"], 1);
    }
}
