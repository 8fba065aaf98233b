//! Whether clocks agree: a node's own time is in its answers, a replica's in their `Date`. What is compared are
//! bounds, so that a slow answer is never taken for a wrong clock.

use std::time::{Duration, Instant, UNIX_EPOCH};

use hiveops_node::Config;
use hiveops_node::config::Secret;
use hiveops_proto::Timestamp;
use hiveops_proto::access::TOKEN_LEEWAY_MS;
use hiveops_proto::path::HEALTH;
use serde_json::Value;
use tokio::time::timeout;

use super::{Check, Finding};
use crate::api::Api;
use crate::control_api::ControlApi;

/// For one node or replica to say what time it is.
const ANSWER: Duration = Duration::from_secs(2);

/// Beyond it, latencies across machines and the order of log lines are guesses.
const WARN_MS: i64 = 1_000;

/// A `Date` has whole seconds, and servers write the same one for up to a second.
const DATE_GRAIN_MS: i64 = 2_000;

const FIX: &str = "let NTP (chrony, systemd-timesyncd) set the clocks of all machines";

/// How far a clock is ahead of this machine's, in milliseconds: at least and at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offset {
    least: i64,
    most: i64,
}

/// A moment of asking.
struct Asked {
    at_ms: i64,
    since: Instant,
}

type Answer = (String, Option<Offset>);

pub(super) async fn nodes(nodes: &[(String, Api)]) -> Finding {
    let check = Check::ClockNodes;
    if nodes.is_empty() {
        let hint = "name nodes that run: --url http://10.0.0.1:8000,http://10.0.0.2:8000";
        return Finding::skip(check, "no node was named", hint);
    }
    let mut answers = Vec::new();
    for (url, api) in nodes {
        let asked = Asked::now();
        let health = timeout(ANSWER, api.get(HEALTH)).await.ok().and_then(Result::ok);
        answers.push((url.clone(), health.and_then(|health| asked.node(&health))));
    }
    judged(check, &answers)
}

pub(super) async fn control(config: &Config) -> Finding {
    let check = Check::ClockControl;
    if config.control.is_empty() {
        return Finding::skip(check, "there is no control plane", "set HIVEOPS_CONTROL to have one");
    }
    let secret = config.cluster_secret.as_ref().map(Secret::expose);
    let mut answers = Vec::new();
    for url in &config.control {
        let asked = Asked::now();
        let date = match ControlApi::at(url, secret.map(str::to_owned)) {
            Ok(api) => timeout(ANSWER, api.date()).await.ok().flatten(),
            Err(_) => None,
        };
        answers.push((url.clone(), date.and_then(|date| asked.dated(&date))));
    }
    if answers.iter().all(|(_, offset)| offset.is_none()) {
        return Finding::skip(check, "no replica says what time it is", "see control.quorum");
    }
    judged(check, &answers)
}

impl Asked {
    fn now() -> Self {
        // Wall time is what is compared; how long an answer takes is measured by the other clock.
        let now = UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_millis();
        Self { at_ms: i64::try_from(now).unwrap_or(i64::MAX), since: Instant::now() }
    }

    fn node(&self, health: &Value) -> Option<Offset> {
        let shown = Timestamp::parse(health.get("timestamp")?.as_str()?).ok()?.as_millis();
        Some(self.offset((shown, shown.saturating_add(1))))
    }

    fn dated(&self, date: &str) -> Option<Offset> {
        let shown = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?.as_millisecond();
        Some(self.offset((shown, shown.saturating_add(DATE_GRAIN_MS))))
    }

    /// Somewhere between the question and now the clock showed something between these two.
    fn offset(&self, shown: (i64, i64)) -> Offset {
        let took = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX).saturating_add(1);
        offset((self.at_ms, self.at_ms.saturating_add(took)), shown)
    }
}

fn offset(here: (i64, i64), there: (i64, i64)) -> Offset {
    Offset { least: there.0.saturating_sub(here.1), most: there.1.saturating_sub(here.0) }
}

/// How far the two clocks that differ most are apart for certain, this machine's among them.
fn apart_ms(offsets: &[Offset]) -> i64 {
    let ahead = offsets.iter().map(|offset| offset.least).fold(0, i64::max);
    let behind = offsets.iter().map(|offset| offset.most).fold(0, i64::min);
    ahead.saturating_sub(behind).max(0)
}

fn judged(check: Check, answers: &[Answer]) -> Finding {
    let known: Vec<(&str, Offset)> =
        answers.iter().filter_map(|(url, offset)| Some((url.as_str(), (*offset)?))).collect();
    let silent: Vec<&str> =
        answers.iter().filter(|(_, offset)| offset.is_none()).map(|(url, _)| url.as_str()).collect();
    let apart = apart_ms(&known.iter().map(|(_, offset)| *offset).collect::<Vec<_>>());
    if apart > WARN_MS {
        let each: Vec<String> = known.iter().map(|(url, offset)| shown(url, *offset)).collect();
        let text = format!("clocks are at least {} apart: {}", seconds(apart), each.join(", "));
        // From there on a token that is good at one node has ended at the next.
        let is_beyond_leeway = u64::try_from(apart).is_ok_and(|apart| apart > TOKEN_LEEWAY_MS);
        return if is_beyond_leeway {
            Finding::fail(check, text, FIX)
        } else {
            Finding::warn(check, text, FIX)
        };
    }
    if !silent.is_empty() {
        let text = format!("{} does not say what time it is", silent.join(", "));
        return Finding::warn(check, text, "start it, or leave it out");
    }
    let bound =
        known.iter().map(|(_, offset)| offset.least.saturating_abs().max(offset.most.saturating_abs()));
    let within = bound.max().unwrap_or(0);
    Finding::ok(check, format!("{} answered, each within {within} ms of this machine", known.len()))
}

fn shown(url: &str, Offset { least, most }: Offset) -> String {
    let middle = least.saturating_add(most) / 2;
    let direction = if middle < 0 { "behind" } else { "ahead" };
    format!("{url} is {} {direction}", seconds(middle.saturating_abs()))
}

fn seconds(ms: i64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn level(offsets: &[(i64, i64)]) -> Level {
        let answers: Vec<Answer> = offsets
            .iter()
            .map(|&(least, most)| ("http://a".to_owned(), Some(Offset { least, most })))
            .collect();
        judged(Check::ClockNodes, &answers).level
    }

    #[test]
    fn only_what_is_certain_counts() {
        assert_eq!(level(&[(-5, 5)]), Level::Ok);
        assert_eq!(level(&[(-1_900, 1_900)]), Level::Ok, "a slow answer");
        assert_eq!(level(&[(1_000, 1_010)]), Level::Ok);
        assert_eq!(level(&[(1_001, 1_010)]), Level::Warn);
        assert_eq!(level(&[(30_000, 30_010)]), Level::Warn);
        assert_eq!(level(&[(-30_020, -30_001)]), Level::Fail);
        assert_eq!(level(&[(-700, -690), (500, 510)]), Level::Warn, "of each other");
    }

    #[test]
    fn a_clock_is_bounded_by_how_long_the_answer_took() {
        assert_eq!(offset((1_000, 1_200), (5_000, 5_000)), Offset { least: 3_800, most: 4_000 });
        let asked = Asked { at_ms: 784_111_777_000, since: Instant::now() };
        let offset = asked.dated("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert!(offset.least <= 0 && offset.most == DATE_GRAIN_MS, "{offset:?}");
        assert_eq!(asked.dated("yesterday"), None);
    }

    #[test]
    fn who_is_silent_is_named() {
        let finding = judged(Check::ClockNodes, &[("http://b".to_owned(), None)]);
        assert!(finding.level == Level::Warn && finding.text.contains("http://b"), "{}", finding.text);
    }
}
