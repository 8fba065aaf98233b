//! The runtime that the library gets in tests: tokio's, but that a task belongs to the process of the
//! simulation that started it, if there is one, and ends with it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
use tokio::sync::Notify;
use tokio::sync::watch::error::RecvError;
use tokio::task::{JoinError, JoinHandle};

use super::group::Metrics;
use crate::sim::process::Process;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match Process::current() {
            Some(process) => process.spawn(future),
            None => TokioRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: TokioInstant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: TokioInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &JoinError) -> bool {
        join_error.is_panic()
    }

    /// Drawn from only for the library's own elections, which are off.
    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}

/// Tells of changes of the metrics in the order in which somebody began to wait: tokio draws the order in which it
/// wakes who waits for a `watch`, and not from the seed, so that one task alone waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Bell(Option<Arc<Notify>>);

impl Bell {
    pub(super) fn of(mut metrics: Metrics) -> Self {
        let Some(process) = Process::current() else { return Self(None) };
        let bell = Arc::new(Notify::new());
        let rung = Arc::clone(&bell);
        process.spawn(async move {
            while metrics.changed().await.is_ok() {
                rung.notify_waiters();
            }
        });
        Self(Some(bell))
    }

    pub(super) async fn changed(&self, metrics: &mut Metrics) -> Result<(), RecvError> {
        let Some(bell) = &self.0 else { return metrics.changed().await };
        loop {
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().enable();
            if metrics.has_changed()? {
                metrics.mark_unchanged();
                return Ok(());
            }
            rung.await;
        }
    }
}
