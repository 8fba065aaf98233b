//! Waiting for something that another process does: the condition is looked at again and again, and there
//! is a deadline.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to wait for what must come. Long, because a busy machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks. Nothing tells us when another process has got somewhere.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until the condition holds, `PATIENCE` at most. It must be a level: what holds once goes on holding.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    wait_for_some(what, PATIENCE, || Ok(holds().then_some(())))
}

/// Waits until there is a value, or looking for it fails.
pub fn wait_for_some<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {patience:?}");
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks at the condition waited for")]
fn pause() {
    std::thread::sleep(PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_waited_for() {
        let mut looks = 0;
        wait_for("three looks", || {
            looks += 1;
            looks == 3
        })
        .unwrap();
        assert_eq!(looks, 3);
    }

    #[test]
    fn what_did_not_come_is_named() {
        let error = wait_for_some::<()>("the moon", Duration::from_millis(1), || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "the moon: not within 1ms");
    }
}
