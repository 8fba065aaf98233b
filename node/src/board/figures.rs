//! Figures over the board: counts, success rate, trend. Pure; `query` and `reporter` show them.

use std::collections::BTreeMap;

use hiveops_proto::Timestamp;
use hiveops_proto::board::{AgentStatus, TaskStatus};
use serde::{Deserialize, Serialize};

use super::Board;
use super::report::AgentSummary;

/// The window that success is measured in when nobody says otherwise.
pub(crate) const WINDOW_SECONDS_DEFAULT: u64 = 3_600;

/// How far the success rates of the window's halves must lie apart to be a trend.
const TREND_STEP: f64 = 0.05;

/// How the newer half of a window compares with the older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trend {
    Improving,
    Stable,
    Declining,
    /// One half has no finished task.
    Unknown,
}

/// What became of the tasks that were completed or failed within a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Success {
    /// From 0 to 1, to four digits.
    pub(crate) rate: Option<f64>,
    pub(crate) trend: Trend,
    pub(crate) failed: u64,
}

#[derive(Clone, Copy, Default)]
struct Half {
    completed: u64,
    failed: u64,
}

/// Success within the last `window_seconds`.
pub(crate) fn success(board: &Board, now: Timestamp, window_seconds: u64) -> Success {
    let window_ms = window_seconds.saturating_mul(1_000);
    let (mut older, mut newer) = (Half::default(), Half::default());
    for (_, held) in board.tasks.iter() {
        let Some(finished_at) = held.value.finished_at else { continue };
        let age = now.millis_since(finished_at);
        if age > window_ms {
            continue;
        }
        let half = if age > window_ms / 2 { &mut older } else { &mut newer };
        match held.value.status {
            TaskStatus::Completed => half.completed += 1,
            TaskStatus::Failed => half.failed += 1,
            TaskStatus::Pending | TaskStatus::InProgress | TaskStatus::Blocked | TaskStatus::Cancelled => {}
        }
    }
    let all = Half { completed: older.completed + newer.completed, failed: older.failed + newer.failed };
    let rate = all.rate().map(|rate| (rate * 10_000.0).round() / 10_000.0);
    Success { rate, trend: trend(older.rate(), newer.rate()), failed: all.failed }
}

impl Half {
    fn rate(self) -> Option<f64> {
        let finished = self.completed + self.failed;
        (finished > 0).then(|| self.completed as f64 / finished as f64)
    }
}

fn trend(older: Option<f64>, newer: Option<f64>) -> Trend {
    let (Some(older), Some(newer)) = (older, newer) else { return Trend::Unknown };
    if newer - older > TREND_STEP {
        Trend::Improving
    } else if older - newer > TREND_STEP {
        Trend::Declining
    } else {
        Trend::Stable
    }
}

/// How many agents are in which status; every status is there.
pub(crate) fn agents(board: &Board) -> AgentSummary {
    let mut by_status: BTreeMap<AgentStatus, u64> = AgentStatus::ALL.iter().map(|s| (*s, 0)).collect();
    let (mut total, mut active) = (0, 0);
    for (_, held) in board.agents.iter() {
        total += 1;
        active += u64::from(held.value.status.is_active());
        *by_status.entry(held.value.status).or_default() += 1;
    }
    AgentSummary { total, active, by_status }
}

/// How many tasks are in which status; every status is there.
pub(crate) fn tasks(board: &Board) -> BTreeMap<TaskStatus, u64> {
    let mut by_status: BTreeMap<TaskStatus, u64> = TaskStatus::ALL.iter().map(|s| (*s, 0)).collect();
    for (_, held) in board.tasks.iter() {
        *by_status.entry(held.value.status).or_default() += 1;
    }
    by_status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::testing::{board_of_tasks, task};

    fn finished(id: &str, status: TaskStatus, at_s: i64) -> hiveops_proto::board::Task {
        let mut task = task(id, status);
        task.finished_at = Some(Timestamp::from_millis(at_s * 1_000));
        task
    }

    #[test]
    fn success_counts_what_finished_within_the_window() {
        let board = board_of_tasks([
            finished("old", TaskStatus::Failed, 100),
            finished("a", TaskStatus::Failed, 1_100),
            finished("b", TaskStatus::Completed, 1_200),
            finished("c", TaskStatus::Completed, 1_900),
            finished("d", TaskStatus::Cancelled, 1_900),
        ]);
        let now = Timestamp::from_millis(2_000_000);
        let found = success(&board, now, 1_000);
        assert_eq!(found, Success { rate: Some(0.6667), trend: Trend::Improving, failed: 1 });
        let none = success(&board, now, 60);
        assert_eq!(none, Success { rate: None, trend: Trend::Unknown, failed: 0 });
    }

    #[test]
    fn a_trend_needs_both_halves_and_a_step() {
        assert_eq!(trend(None, Some(1.0)), Trend::Unknown);
        assert_eq!(trend(Some(0.9), Some(0.93)), Trend::Stable);
        assert_eq!(trend(Some(0.9), Some(0.8)), Trend::Declining);
        assert_eq!(trend(Some(0.5), Some(1.0)), Trend::Improving);
    }
}
