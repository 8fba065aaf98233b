//! How long a server takes to show its metrics while it holds connections: the time of a whole request on a
//! connection that is open already, as a scraper's is.

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::clock::Clock;
use crate::http::Client;
use crate::target::Target;

/// Scrapes of one measurement: enough for the slowest of them to say something, few enough to be no load.
const SCRAPES: usize = 20;

/// What came of them.
#[derive(Debug, Serialize)]
pub(crate) struct Scrapes {
    count: usize,
    bytes: usize,
    median_ms: f64,
    max_ms: f64,
}

/// Scrapes `url`, one time after the other.
pub(crate) fn measure(url: &str, clock: Clock) -> anyhow::Result<Scrapes> {
    let target: Target = url.parse().context("invalid --metrics-url")?;
    let path = target.path_with(None);
    let mut client = Client::new(&target, "")?;
    client.connect()?;
    let (mut times, mut bytes) = (Vec::with_capacity(SCRAPES), 0);
    for _ in 0..SCRAPES {
        let begun = clock.nanos();
        let answer = client.get(&path).context("no metrics")?;
        times.push((clock.nanos() - begun) as f64 / 1e6);
        ensure!(answer.status == 200, "{url} answered {}", answer.status);
        bytes = answer.body.len();
    }
    Ok(summary(times, bytes))
}

fn summary(mut times: Vec<f64>, bytes: usize) -> Scrapes {
    times.sort_by(f64::total_cmp);
    let rounded = |ms: Option<&f64>| ms.map_or(0.0, |ms| (ms * 100.0).round() / 100.0);
    Scrapes {
        count: times.len(),
        bytes,
        median_ms: rounded(times.get(times.len() / 2)),
        max_ms: rounded(times.last()),
    }
}

impl Scrapes {
    pub(crate) fn print(&self) {
        let Self { count, bytes, median_ms, max_ms } = self;
        println!(
            "idle: {count} scrapes of {bytes} bytes took {median_ms} ms in the middle, {max_ms} ms at most"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_slowest_are_shown() {
        let scrapes = summary(vec![3.0, 1.234, 2.0, 9.999, 2.5], 7);
        assert_eq!((scrapes.count, scrapes.median_ms, scrapes.max_ms), (5, 2.5, 10.0));
        assert_eq!(summary(Vec::new(), 0).max_ms, 0.0);
    }
}
