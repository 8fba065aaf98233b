//! Locks whose owner cannot have left them broken: whatever is behind them is whole between two statements.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A task that panicked is reported by whoever waits for it; the others go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
