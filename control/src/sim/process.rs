//! A process of the simulation: its tasks, which end together and at once, and its disk.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinHandle};

use super::chance::Seeded;
use super::disk::Disk;
use super::history::{History, Rule};

/// Finished tasks are forgotten when there are more than so many.
const TASKS_KEPT: usize = 256;

tokio::task_local! {
    static CURRENT: Process;
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Process(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    chance: Seeded,
    history: History,
    alive: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
    /// How long a call of the disk takes at most.
    disk_ms: AtomicU64,
}

impl Process {
    pub(crate) fn new(disk: Disk, chance: Seeded, history: History) -> Self {
        Self(Arc::new(Inner {
            disk,
            chance,
            history,
            alive: AtomicBool::new(true),
            tasks: Mutex::default(),
            disk_ms: AtomicU64::new(2),
        }))
    }

    /// The process whose task this is.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.0.disk
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.0.alive.load(Ordering::Relaxed)
    }

    /// How long calls of the disk take from now on, at most.
    pub(crate) fn slow_disk(&self, millis: u64) {
        self.0.disk_ms.store(millis, Ordering::Relaxed);
    }

    /// Runs a task that ends with the process.
    pub(crate) fn spawn<T>(&self, future: T) -> JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let history = self.0.history.clone();
        let watched = AssertUnwindSafe(future).catch_unwind().map(move |ended| {
            ended.unwrap_or_else(|panic| {
                history.broke(Rule::Runs, "a task panicked");
                resume_unwind(panic)
            })
        });
        let task = spawn(CURRENT.scope(self.clone(), watched));
        if !self.is_alive() {
            task.abort();
            return task;
        }
        let mut tasks = self.0.tasks.lock();
        if tasks.len() > TASKS_KEPT {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task.abort_handle());
        task
    }

    /// The process is gone: none of its tasks goes on beyond where it is.
    pub(crate) fn kill(&self) {
        self.0.alive.store(false, Ordering::Relaxed);
        self.0.disk.cut_power();
        for task in self.0.tasks.lock().drain(..) {
            task.abort();
        }
    }

    /// Does something that waits for the disk.
    pub(crate) async fn blocking<T>(&self, work: impl FnOnce() -> T) -> T {
        let most = self.0.disk_ms.load(Ordering::Relaxed);
        self.pause(self.0.chance.below(most + 1)).await;
        let done = work();
        if self.0.disk.is_dark() {
            self.kill();
        }
        self.pause(self.0.chance.below(2)).await;
        done
    }

    async fn pause(&self, millis: u64) {
        if millis > 0 {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        if !self.is_alive() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs a task that belongs to no process.
#[expect(clippy::disallowed_methods, reason = "the one place where the simulation starts tasks")]
pub(crate) fn spawn<T>(future: T) -> JoinHandle<T::Output>
where
    T: Future + Send + 'static,
    T::Output: Send + 'static,
{
    tokio::spawn(future)
}
