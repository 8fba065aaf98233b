//! What came out of a run, as one line of JSON, and whether it is good.
//!
//! A run is not good because nothing was found: what was planned must have happened, and the publishers must
//! have published.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::check::{Figures, Violation};
use crate::history::{Absence, History};

/// The longest time that is told apart from longer ones.
const MILLIS_MAX: u64 = 3_600_000;

/// Violations that an error lists; a run that goes wrong has thousands of the same.
const SHOWN_MAX: usize = 20;

/// One kind of fault: how many there were to be, and how many there were, by evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub name: &'static str,
    pub planned: u64,
    pub done: u64,
}

/// How long clients were away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantiles {
    pub count: u64,
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub max_ms: u64,
}

/// The outcome of one run.
#[derive(Debug)]
pub struct Report {
    pub scenario: &'static str,
    pub bus: &'static str,
    pub scale: &'static str,
    pub seed: u64,
    pub took: Duration,
    pub faults: Vec<Fault>,
    /// Publications that were to be acknowledged at least.
    pub load_planned: u64,
    pub watchers: usize,
    /// From losing a connection to having everything.
    pub recovery: Quantiles,
    /// The parts of it: waiting by the client's own policy, and from the new session to the end.
    pub waited: Quantiles,
    pub caught_up: Quantiles,
    pub figures: Figures,
    pub violations: Vec<Violation>,
    /// Further figures of the scenario.
    pub more: Map<String, Value>,
    /// Further reasons why the run is not good.
    pub complaints: Vec<String>,
}

impl Quantiles {
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        let Ok(mut histogram) = Histogram::<u64>::new_with_max(MILLIS_MAX, 3) else { return Self::default() };
        times.for_each(|time| {
            histogram.saturating_record(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        });
        Self {
            count: histogram.len(),
            p50_ms: histogram.value_at_quantile(0.5),
            p99_ms: histogram.value_at_quantile(0.99),
            max_ms: histogram.max(),
        }
    }

    fn json(&self) -> Value {
        json!({"count": self.count, "p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "max_ms": self.max_ms})
    }
}

impl Report {
    /// How long every absence in a history took.
    pub fn measure(&mut self, history: &History) {
        let absences = || history.watchers.iter().flat_map(|watcher| &watcher.absences);
        let quantiles = |time: fn(&Absence) -> Duration| Quantiles::of(absences().map(time));
        self.recovery = quantiles(|absence| absence.took);
        self.waited = quantiles(|absence| absence.waited);
        self.caught_up = quantiles(|absence| absence.caught_up_in);
    }

    /// The absences had to be shorter than this.
    pub fn require_p99_below(&mut self, most: Duration) {
        if Duration::from_millis(self.recovery.p99_ms) >= most {
            self.complaints.push(format!("the p99 of recoveries is {} ms", self.recovery.p99_ms));
        }
    }

    /// A condition that must hold beside the usual ones.
    pub fn require(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds {
            self.complaints.push(complaint());
        }
    }

    /// One line of JSON.
    pub fn line(&self) -> String {
        let Figures { acked, unknown, .. } = self.figures;
        let faults: Map<String, Value> = self
            .faults
            .iter()
            .map(|fault| (fault.name.to_owned(), json!({"planned": fault.planned, "done": fault.done})))
            .collect();
        let mut line = json!({
            "scenario": self.scenario,
            "bus": self.bus,
            "scale": self.scale,
            "seed": self.seed,
            "good": self.wrong().is_empty(),
            "seconds": self.took.as_secs(),
            "faults": faults,
            "load": {"planned": self.load_planned, "acked": acked, "unknown": unknown},
            "watchers": self.watchers,
            "recovery": self.recovery.json(),
            "waited": self.waited.json(),
            "caught_up": self.caught_up.json(),
            "delivered": self.figures.delivered,
            "omitted": self.figures.omitted,
            "by_snapshot": self.figures.by_snapshot,
            "snapshots": self.figures.snapshots,
            "gaps": self.figures.gaps,
            "epoch_changes": self.figures.epoch_changes,
            "filtered": self.figures.filtered,
            "violations": self.violations.len(),
        });
        if let Some(members) = line.as_object_mut() {
            members.extend(self.more.clone());
        }
        line.to_string()
    }

    /// An error that says everything that is wrong.
    pub fn verdict(&self) -> Result<()> {
        let wrong = self.wrong();
        if wrong.is_empty() {
            return Ok(());
        }
        let mut text = format!("{} on {} is not good:", self.scenario, self.bus);
        for complaint in wrong {
            let _ = write!(text, "\n  {complaint}");
        }
        let _ = write!(text, "\n{}", self.line());
        bail!(text)
    }

    fn wrong(&self) -> Vec<String> {
        let missed = self.faults.iter().filter(|fault| fault.done < fault.planned);
        let missed = missed.map(|fault| {
            format!("{} of {} planned faults happened: {}", fault.done, fault.planned, fault.name)
        });
        let mut wrong: Vec<String> = missed.collect();
        if self.faults.iter().all(|fault| fault.planned == 0) {
            wrong.push("no faults were planned".to_owned());
        }
        if self.figures.acked < self.load_planned || self.load_planned == 0 {
            let (acked, planned) = (self.figures.acked, self.load_planned);
            wrong.push(format!("{acked} publications were acknowledged, and {planned} were to be"));
        }
        if self.watchers > 0 && self.figures.delivered == 0 {
            wrong.push("nothing was delivered".to_owned());
        }
        let Figures { gaps, epoch_changes, unknown_messages, .. } = self.figures;
        // A node announces what it leaves out, and no broker here loses what it has stored.
        if gaps > 0 {
            wrong.push(format!("clients found {gaps} gaps that no node had announced"));
        }
        if epoch_changes > 0 {
            wrong.push(format!("clients were told of {epoch_changes} new epochs"));
        }
        if unknown_messages > 0 {
            wrong.push(format!("clients could not read {unknown_messages} messages"));
        }
        wrong.extend(self.complaints.iter().cloned());
        wrong.extend(self.violations.iter().take(SHOWN_MAX).map(ToString::to_string));
        if let Some(rest) = self.violations.len().checked_sub(SHOWN_MAX + 1) {
            wrong.push(format!("and {} more violations", rest + 1));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        Report {
            scenario: "kill_nodes",
            bus: "nats",
            scale: "short",
            seed: 1,
            took: Duration::from_secs(1),
            faults: vec![Fault { name: "node_kill", planned: 2, done: 2 }],
            load_planned: 10,
            watchers: 1,
            recovery: Quantiles::of([100, 300].map(Duration::from_millis).into_iter()),
            waited: Quantiles::default(),
            caught_up: Quantiles::default(),
            figures: Figures { acked: 10, delivered: 10, ..Figures::default() },
            violations: Vec::new(),
            more: Map::new(),
            complaints: Vec::new(),
        }
    }

    /// What the verdict is after this change to a good report.
    fn after(change: impl FnOnce(&mut Report)) -> String {
        let mut report = good();
        report.verdict().unwrap();
        change(&mut report);
        report.verdict().unwrap_err().to_string()
    }

    #[test]
    fn faults_that_did_not_happen_are_an_error() {
        let text = after(|report| report.faults[0].done = 1);
        assert!(text.contains("1 of 2 planned faults happened: node_kill"), "{text}");
        let text = after(|report| report.faults.clear());
        assert!(text.contains("no faults were planned"), "{text}");
    }

    #[test]
    fn load_that_did_not_happen_is_an_error() {
        let text = after(|report| report.figures.acked = 9);
        assert!(text.contains("9 publications were acknowledged, and 10 were to be"), "{text}");
        let text = after(|report| report.figures.delivered = 0);
        assert!(text.contains("nothing was delivered"), "{text}");
        assert!(after(|report| report.load_planned = 0).contains("0 were to be"));
    }

    #[test]
    fn a_violation_and_a_slow_recovery_are_errors() {
        let stuck = Violation::Stuck { watcher: 3, why: "x".to_owned() };
        let text = after(|report| report.violations = vec![stuck; 30]);
        assert!(text.contains("watcher 3") && text.contains("and 10 more violations"), "{text}");
        let text = after(|report| report.require_p99_below(Duration::from_millis(300)));
        assert!(text.contains("the p99 of recoveries is 300 ms"), "{text}");
    }

    #[test]
    fn gaps_new_epochs_and_unreadable_messages_are_errors() {
        assert!(after(|report| report.figures.gaps = 2).contains("found 2 gaps"));
        assert!(after(|report| report.figures.epoch_changes = 1).contains("told of 1 new epochs"));
        assert!(after(|report| report.figures.unknown_messages = 1).contains("could not read 1"));
    }

    #[test]
    fn a_report_is_one_line() {
        let mut report = good();
        report.more.insert("link".to_owned(), "iptables".into());
        let line = report.line();
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["recovery"], json!({"count": 2, "p50_ms": 100, "p99_ms": 300, "max_ms": 300}));
        assert_eq!((&value["good"], &value["link"]), (&json!(true), &json!("iptables")));
    }
}
