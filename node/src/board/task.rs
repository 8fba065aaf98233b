//! What creating and patching do to a task. Pure: each takes the task as it is and returns it as it should
//! be.

use hiveops_proto::board::{Task, TaskCreation, TaskPatch, TaskPriority, TaskStatus};
use hiveops_proto::{CorrelationId, Key, Timestamp};

use super::bounds::{self, NAME_BYTES, OutOfBounds, TEXT_BYTES};

/// Seconds without a change at which a task in progress that does not say goes stale.
const LEASE_SECONDS_DEFAULT: u64 = 300;

/// Changes of a task that are remembered by their correlation id. Older ones within the bus's window for
/// duplicates are known there.
const REMEMBERED_CHANGES: usize = 8;

pub(super) fn check_creation(wanted: &TaskCreation) -> Result<(), OutOfBounds> {
    bounds::line("title", &wanted.title, &NAME_BYTES)?;
    bounds::text("description", &wanted.description, &TEXT_BYTES)?;
    bounds::lease(wanted.lease_seconds)?;
    bounds::map("metadata", &wanted.metadata)
}

pub(super) fn check_patch(patch: &TaskPatch) -> Result<(), OutOfBounds> {
    if let Some(title) = &patch.title {
        bounds::line("title", title, &NAME_BYTES)?;
    }
    if let Some(description) = &patch.description {
        bounds::text("description", description, &TEXT_BYTES)?;
    }
    bounds::lease(patch.lease_seconds)?;
    patch.metadata.as_ref().map_or(Ok(()), |metadata| bounds::map("metadata", metadata))
}

/// Whether the change with this correlation id is one of the last that made the task what it is.
pub(super) fn has_applied(task: &Task, by: &CorrelationId) -> bool {
    task.applied_correlation_ids.contains(by)
}

/// Whether the task is already as the patch wants it.
pub(super) fn says_nothing_new(task: &Task, patch: &TaskPatch) -> bool {
    merged(task, patch, task.updated_at) == *task
}

pub(super) fn create(id: Key, wanted: &TaskCreation, by: &CorrelationId, now: Timestamp) -> Task {
    let mut task = Task {
        id,
        title: wanted.title.clone(),
        description: wanted.description.clone(),
        status: TaskStatus::Pending,
        priority: wanted.priority.unwrap_or(TaskPriority::Normal),
        assigned_agent: wanted.assigned_agent.clone(),
        lease_seconds: wanted.lease_seconds.unwrap_or(LEASE_SECONDS_DEFAULT),
        stale: false,
        created_at: now,
        updated_at: now,
        started_at: None,
        finished_at: None,
        metadata: wanted.metadata.clone(),
        version: 1,
        applied_correlation_ids: vec![by.clone()],
    };
    turn(&mut task, wanted.status.unwrap_or(TaskStatus::Pending), now);
    task
}

/// The task after a patch. One that changes nothing else still shows that somebody is there: it renews the
/// lease.
pub(super) fn patch(task: &Task, patch: &TaskPatch, by: &CorrelationId, now: Timestamp) -> Task {
    let mut next = merged(task, patch, now);
    next.stale = false;
    next.updated_at = now;
    next.version = next.version.saturating_add(1);
    next.applied_correlation_ids.push(by.clone());
    let over = next.applied_correlation_ids.len().saturating_sub(REMEMBERED_CHANGES);
    next.applied_correlation_ids.drain(..over);
    next
}

fn merged(task: &Task, patch: &TaskPatch, now: Timestamp) -> Task {
    let mut next = task.clone();
    if let Some(title) = &patch.title {
        next.title.clone_from(title);
    }
    if let Some(description) = &patch.description {
        next.description.clone_from(description);
    }
    if let Some(agent) = &patch.assigned_agent {
        next.assigned_agent.clone_from(agent);
    }
    if let Some(metadata) = &patch.metadata {
        next.metadata.clone_from(metadata);
    }
    next.priority = patch.priority.unwrap_or(next.priority);
    next.lease_seconds = patch.lease_seconds.unwrap_or(next.lease_seconds);
    if let Some(status) = patch.status {
        turn(&mut next, status, now);
    }
    next
}

/// The task when its lease has run out; `None` while it has not, or when nobody works on it.
pub(super) fn expire(task: &Task, now: Timestamp) -> Option<Task> {
    let over = now.millis_since(task.updated_at) > task.lease_seconds.saturating_mul(1_000);
    let due = task.status == TaskStatus::InProgress && !task.stale && over;
    due.then(|| Task { stale: true, version: task.version.saturating_add(1), ..task.clone() })
}

/// Gives the task a status and the times that go with it. Work that begins again keeps its first beginning;
/// what is taken up again is not finished any more.
fn turn(task: &mut Task, status: TaskStatus, now: Timestamp) {
    if status == TaskStatus::InProgress && task.started_at.is_none() {
        task.started_at = Some(now);
    }
    if !status.is_finished() {
        task.finished_at = None;
    } else if status != task.status || task.finished_at.is_none() {
        task.finished_at = Some(now);
    }
    task.status = status;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::testing::task;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn id(text: &str) -> CorrelationId {
        CorrelationId::new(text).unwrap()
    }

    fn to(status: TaskStatus) -> TaskPatch {
        TaskPatch { status: Some(status), ..TaskPatch::default() }
    }

    #[test]
    fn a_status_sets_the_times_that_go_with_it() {
        let pending = task("t", TaskStatus::Pending);
        let begun = patch(&pending, &to(TaskStatus::InProgress), &id("1"), at(10));
        assert_eq!((begun.started_at, begun.finished_at), (Some(at(10)), None));
        let done = patch(&begun, &to(TaskStatus::Completed), &id("2"), at(20));
        assert_eq!((done.started_at, done.finished_at), (Some(at(10)), Some(at(20))));
        let touched = patch(&done, &to(TaskStatus::Completed), &id("3"), at(30));
        assert_eq!(touched.finished_at, Some(at(20)));
        let again = patch(&touched, &to(TaskStatus::InProgress), &id("4"), at(40));
        assert_eq!((again.started_at, again.finished_at), (Some(at(10)), None));
        assert_eq!(again.version, pending.version + 4);
    }

    #[test]
    fn the_last_eight_changes_are_remembered() {
        let mut task = task("t", TaskStatus::Pending);
        for n in 0..12 {
            task = patch(&task, &TaskPatch::default(), &id(&n.to_string()), at(n));
        }
        assert_eq!(task.applied_correlation_ids.len(), 8);
        assert!(has_applied(&task, &id("4")) && !has_applied(&task, &id("3")));
    }

    #[test]
    fn a_task_in_progress_goes_stale_once_and_a_change_renews_it() {
        let mut task = task("t", TaskStatus::InProgress);
        task.lease_seconds = 60;
        assert_eq!(expire(&task, at(60)), None);
        let stale = expire(&task, at(61)).unwrap();
        assert!(stale.stale && expire(&stale, at(99)).is_none());
        let touched = patch(&stale, &TaskPatch::default(), &id("1"), at(99));
        assert!(!touched.stale && expire(&touched, at(100)).is_none());
        task.status = TaskStatus::Pending;
        assert_eq!(expire(&task, at(99)), None);
    }
}
