//! Over which time a node that goes away sends its sessions off. The configuration has one, and whoever asks
//! a node to drain may bring another; both are read here, so that both have the same bounds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Longer than any rollout that somebody watches; a typing error would keep a node for days.
const SECONDS_MAX: u64 = 3_600;

/// A time of whole seconds, within its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainWindow(Duration);

impl DrainWindow {
    /// All sessions are sent off at once.
    pub const AT_ONCE: Self = Self(Duration::ZERO);

    /// How long it is.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for DrainWindow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().filter(|seconds| *seconds <= SECONDS_MAX);
        let seconds = seconds.ok_or_else(|| format!("must be whole seconds from 0 to {SECONDS_MAX}"))?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for DrainWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_seconds_within_an_hour() {
        for (text, seconds) in [("0", 0), ("10", 10), ("3600", 3_600)] {
            let window: DrainWindow = text.parse().unwrap();
            assert_eq!(
                (window.duration(), window.to_string().as_str()),
                (Duration::from_secs(seconds), text)
            );
        }
        for bad in ["", "-1", "1.5", "3601", "10s", "99999999999999999999"] {
            assert_eq!(bad.parse::<DrainWindow>(), Err("must be whole seconds from 0 to 3600".to_owned()));
        }
    }
}
