//! What can be done to tasks. A change that is sent again is known: by the task itself, which remembers the
//! correlation ids of the last changes, and by the bus, which remembers what has been overwritten or
//! removed since.

use hiveops_proto::board::{SyncResult, SyncStatus, Task, TaskBatch, TaskCreation, TaskOperation};
use hiveops_proto::board::{TaskPatch, TaskStatus};
use hiveops_proto::payload::InvalidPayload;
use hiveops_proto::{CorrelationId, Key, Payload};

use super::{BoardService, Change, Condition, Decision, Draft, Error, Page, made_key, made_when, page};
use super::{removal, repeat};
use crate::board::bounds::OutOfBounds;
use crate::board::{Board, Held, Section, task};
use crate::bus::{Expect, PublishError, Repeat};
use crate::publisher::Refused;

/// Operations of one batch: what an app that was offline for a day sends in a few requests.
const BATCH_MAX: usize = 100;

/// What a change of a task came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome<T> {
    /// It was made now.
    Applied(T),
    /// It had been made before; this is the task as it is now.
    Duplicate(T),
}

/// What makes a change the same as an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Its correlation id: it is the operation's own.
    Own,
    /// Its correlation id and what it says: one cause may well lead to several changes (CONTRACT
    /// section 5), and none of them may be lost as a repetition of another.
    Shared,
}

/// Which tasks a list shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TaskFilter {
    pub(crate) status: Option<TaskStatus>,
    pub(crate) assigned_agent: Option<Key>,
}

impl BoardService {
    pub(crate) fn task(&self, id: &Key) -> Result<Task, Error> {
        let board = self.board.read();
        board.head(Section::Tasks).ok_or(Error::NotLoaded)?;
        find(&board, id).map(|held| held.value.clone())
    }

    pub(crate) fn tasks(
        &self,
        filter: &TaskFilter,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page<Task>, Error> {
        let board = self.board.read();
        board.head(Section::Tasks).ok_or(Error::NotLoaded)?;
        Ok(page(&board.tasks, after, limit, |task| {
            filter.status.is_none_or(|status| task.status == status)
                && filter.assigned_agent.as_ref().is_none_or(|id| task.assigned_agent.as_ref() == Some(id))
        }))
    }

    pub(crate) async fn create_task(
        &self,
        wanted: &TaskCreation,
        by: &CorrelationId,
    ) -> Result<Outcome<Task>, Error> {
        task::check_creation(wanted)?;
        let id = match &wanted.id {
            Some(id) => id.clone(),
            None => made_key(by, wanted)?,
        };
        self.change_task(by, &id, |board, now| {
            if let Some(done) = board.tasks.get(&id).and_then(|held| repeated(held, by)) {
                return Ok(done);
            }
            let expect = made_when(&board.tasks, &id)?;
            let next = task::create(id.clone(), wanted, by, now);
            write(next, expect, repeat("create", by, &id, &[]))
        })
        .await
    }

    pub(crate) async fn patch_task(
        &self,
        id: &Key,
        patch: &TaskPatch,
        if_match: Option<u64>,
        by: &CorrelationId,
        identity: Identity,
    ) -> Result<Outcome<Task>, Error> {
        task::check_patch(patch)?;
        let condition = Condition { expected_version: patch.expected_version, if_match };
        let content = match identity {
            Identity::Own => Vec::new(),
            Identity::Shared => change_as_json(patch)?,
        };
        self.change_task(by, id, |board, now| {
            let held = find(board, id)?;
            // Before the condition: a repeated change meets the version that it made itself.
            let same = identity == Identity::Own || task::says_nothing_new(&held.value, patch);
            if let Some(done) = repeated(held, by).filter(|_| same) {
                return Ok(done);
            }
            condition.check(held.value.version, &held.value)?;
            let next = task::patch(&held.value, patch, by, now);
            write(next, Expect::Seq(held.seq), repeat("update", by, id, &content))
        })
        .await
    }

    pub(crate) async fn delete_task(
        &self,
        id: &Key,
        condition: Condition,
        by: &CorrelationId,
    ) -> Result<Outcome<()>, Error> {
        let decide = |board: &Board, _| {
            if board.tasks.was_removed_by(id, by) {
                return Ok(Decision::Keep(Outcome::Duplicate(())));
            }
            let expect =
                super::removed_when(&board.tasks, id, condition, |task| task.version, || missing(id))?;
            let repeat = repeat("delete", by, id, &[]);
            Ok(Decision::Write(Draft { data: removal(id)?, expect, repeat, outcome: Outcome::Applied(()) }))
        };
        match self.change(Section::Tasks, by, decide).await? {
            Change::Done(outcome) => Ok(outcome),
            Change::Repeated => Ok(Outcome::Duplicate(())),
        }
    }

    /// Does the operations one after the other. What cannot be done is said per operation; when the bus is
    /// away the batch ends, and all of it is safe to send again.
    pub(crate) async fn sync_tasks(&self, batch: TaskBatch) -> Result<Vec<SyncResult>, Error> {
        if batch.operations.len() > BATCH_MAX {
            let rule = format!("have at most {BATCH_MAX} entries");
            return Err(OutOfBounds { field: "operations", rule }.into());
        }
        let mut results = Vec::with_capacity(batch.operations.len());
        for operation in batch.operations {
            results.push(self.sync_task(operation).await?);
        }
        Ok(results)
    }

    async fn sync_task(&self, operation: TaskOperation) -> Result<SyncResult, Error> {
        match operation {
            TaskOperation::Create { correlation_id, task } => {
                let outcome = self.create_task(&task, &correlation_id).await;
                synced(correlation_id, outcome.map(|outcome| outcome.map(Some)))
            }
            TaskOperation::Update { correlation_id, id, changes } => {
                let outcome = self.patch_task(&id, &changes, None, &correlation_id, Identity::Own).await;
                synced(correlation_id, outcome.map(|outcome| outcome.map(Some)))
            }
            TaskOperation::Delete { correlation_id, id, expected_version } => {
                let condition = Condition { expected_version, if_match: None };
                let outcome = self.delete_task(&id, condition, &correlation_id).await;
                synced(correlation_id, outcome.map(|outcome| outcome.map(|()| None)))
            }
        }
    }

    async fn change_task(
        &self,
        by: &CorrelationId,
        id: &Key,
        decide: impl Fn(&Board, hiveops_proto::Timestamp) -> Result<Decision<Outcome<Task>>, Error>,
    ) -> Result<Outcome<Task>, Error> {
        match self.change(Section::Tasks, by, decide).await? {
            Change::Done(outcome) => Ok(outcome),
            Change::Repeated => self.task(id).map(Outcome::Duplicate).map_err(|_| Error::Gone),
        }
    }
}

impl<T> Outcome<T> {
    pub(crate) fn map<U>(self, with: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Applied(value) => Outcome::Applied(with(value)),
            Self::Duplicate(value) => Outcome::Duplicate(with(value)),
        }
    }
}

fn find<'a>(board: &'a Board, id: &Key) -> Result<&'a Held<Task>, Error> {
    board.tasks.get(id).ok_or_else(|| missing(id))
}

fn missing(id: &Key) -> Error {
    Error::NotFound { what: "task", id: id.clone() }
}

fn repeated(held: &Held<Task>, by: &CorrelationId) -> Option<Decision<Outcome<Task>>> {
    task::has_applied(&held.value, by).then(|| Decision::Keep(Outcome::Duplicate(held.value.clone())))
}

fn write(next: Task, expect: Expect, repeat: Repeat) -> Result<Decision<Outcome<Task>>, Error> {
    let data = Payload::from_value(&next)?;
    Ok(Decision::Write(Draft { data, expect, repeat, outcome: Outcome::Applied(next) }))
}

/// What a patch says, without the condition it is made on.
fn change_as_json(patch: &TaskPatch) -> Result<Vec<u8>, InvalidPayload> {
    let change = TaskPatch { expected_version: None, ..patch.clone() };
    serde_json::to_vec(&change).map_err(InvalidPayload::Syntax)
}

/// One line of a batch's answer, or the error that ends the batch.
fn synced(
    correlation_id: CorrelationId,
    outcome: Result<Outcome<Option<Task>>, Error>,
) -> Result<SyncResult, Error> {
    let result = |status, task, detail| SyncResult { correlation_id, status, task, detail };
    match outcome {
        Ok(Outcome::Applied(task)) => Ok(result(SyncStatus::Applied, task, None)),
        Ok(Outcome::Duplicate(task)) => Ok(result(SyncStatus::Duplicate, task, None)),
        Err(
            error @ (Error::NotLoaded
            | Error::Encode(_)
            | Error::Refused(Refused::Bus(PublishError::Timeout | PublishError::Unavailable(_)))),
        ) => Err(error),
        Err(error) => {
            let detail = Some(error.to_string());
            let (status, current) = match error {
                Error::Exists { current: Some(current), .. } | Error::Version { current, .. } => {
                    (SyncStatus::Conflict, Some(current))
                }
                Error::Contended => (SyncStatus::Conflict, None),
                _ => (SyncStatus::Rejected, None),
            };
            let task = current.and_then(|current| serde_json::from_value(*current).ok());
            Ok(result(status, task, detail))
        }
    }
}
