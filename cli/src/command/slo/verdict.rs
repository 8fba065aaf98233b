//! How fast an error budget burns, from what the nodes counted. Pure.

use super::exposition::Series;
use super::objectives::{Objective, Objectives, Selector, Sli};
use super::tally::Tally;

/// One objective, judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) name: String,
    pub(super) target: f64,
    pub(super) outcome: Outcome,
}

#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    Measured(Measured),
    /// Nothing happened that counts, and how that is said.
    NoData(String),
    /// A node does not export what is asked for: a page of something else, or another version.
    Lacks {
        /// Of the first such node.
        why: String,
        /// What the others counted, when that is something.
        rest: Option<Measured>,
    },
}

/// So much was bad, out of so much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) bad: f64,
    pub(super) total: f64,
    /// 1 uses the budget up exactly within its window, 0 leaves it alone.
    pub(super) burn: f64,
}

impl Measured {
    pub(super) fn error_ratio(&self) -> f64 {
        self.bad / self.total
    }
}

/// What a metric is called that an objective reads.
pub(super) fn is_wanted(objectives: &Objectives, name: &str) -> bool {
    objectives.objectives.values().any(|objective| match &objective.sli {
        Sli::Ratio { bad, good } => bad.iter().chain(good).any(|selector| selector.metric == name),
        Sli::Latency { histogram, .. } => {
            name.strip_prefix(histogram.as_str()).is_some_and(|rest| rest == "_count" || rest == "_bucket")
        }
        Sli::Freshness { gauge, .. } => gauge == name,
    })
}

/// Every objective over all nodes together.
pub(super) fn judge(objectives: &Objectives, nodes: &[&Tally]) -> Vec<Judged> {
    let judged = objectives.objectives.iter().map(|(name, objective)| Judged {
        name: name.clone(),
        target: objective.target,
        outcome: outcome(objective, nodes),
    });
    judged.collect()
}

fn outcome(objective: &Objective, nodes: &[&Tally]) -> Outcome {
    let (mut bad, mut total, mut lack) = (0.0, 0.0, None);
    for node in nodes {
        match count(&objective.sli, node) {
            Ok(counted) => {
                bad += counted.0;
                total += counted.1;
            }
            Err(why) => lack = lack.or(Some(why)),
        }
    }
    let burn = || bad / total / (1.0 - objective.target);
    let measured = (total > 0.0).then(|| Measured { bad, total, burn: burn() });
    match (lack, measured) {
        (Some(why), rest) => Outcome::Lacks { why, rest },
        (None, Some(measured)) => Outcome::Measured(measured),
        (None, None) => Outcome::NoData("nothing happened that it counts".to_owned()),
    }
}

/// What was bad on one node, and out of how much.
fn count(sli: &Sli, node: &Tally) -> Result<(f64, f64), String> {
    match sli {
        Sli::Ratio { bad, good } => {
            let (bad, good) = (sum(bad, node)?, sum(good, node)?);
            Ok((bad, bad + good))
        }
        Sli::Latency { histogram, threshold_seconds } => {
            let count = format!("{histogram}_count");
            let total = node.increase(&count, |_| true).ok_or_else(|| lacks(histogram))?;
            let within = node
                .increase(&format!("{histogram}_bucket"), |series| edge(series) == Some(*threshold_seconds))
                .ok_or_else(|| format!("`{histogram}` has no bucket that ends at {threshold_seconds}"))?;
            Ok(((total - within).max(0.0), total))
        }
        Sli::Freshness { gauge, limit_seconds } => {
            let seen: Vec<f64> = node.seen(gauge).collect();
            if seen.is_empty() {
                return Err(lacks(gauge));
            }
            let late = seen.iter().filter(|age| *age > limit_seconds).count();
            Ok((late as f64, seen.len() as f64))
        }
    }
}

fn sum(selectors: &[Selector], node: &Tally) -> Result<f64, String> {
    selectors.iter().try_fold(0.0, |sum, selector| {
        // Every value of a label that the file names has a series from the start, so that one that is
        // missing is a name that nobody exports any more.
        let grown = match &selector.label {
            None => node.increase(&selector.metric, |_| true),
            Some(label) => selector.values.iter().try_fold(0.0, |sum, value| {
                let grown = node.increase(&selector.metric, |series| series.label(label) == Some(value))?;
                Some(sum + grown)
            }),
        };
        grown.map(|grown| sum + grown).ok_or_else(|| lacks(&selector.metric))
    })
}

fn edge(series: &Series) -> Option<f64> {
    series.label("le").and_then(|edge| edge.parse().ok())
}

fn lacks(metric: &str) -> String {
    format!("a node does not export `{metric}`, or not with these labels")
}

#[cfg(test)]
mod tests {
    use super::super::exposition::parse;
    use super::super::tally::Begin;
    use super::*;

    fn judged(page: &str, name: &str) -> Outcome {
        judged_nodes(&[page], name)
    }

    fn judged_nodes(pages: &[&str], name: &str) -> Outcome {
        let objectives = Objectives::load(None, &[name.to_owned()]).unwrap();
        let tallies = pages.iter().map(|page| {
            let mut tally = Tally::default();
            tally.add(parse(page, |name| is_wanted(&objectives, name)).unwrap(), Begin::Start);
            tally
        });
        let tallies: Vec<Tally> = tallies.collect();
        let mut judged = judge(&objectives, &tallies.iter().collect::<Vec<_>>());
        judged.remove(0).outcome
    }

    fn burn(outcome: Outcome) -> f64 {
        match outcome {
            Outcome::Measured(measured) => (measured.burn * 1_000.0).round() / 1_000.0,
            Outcome::NoData(why) | Outcome::Lacks { why, .. } => panic!("{why}"),
        }
    }

    fn latency(within: u64, count: u64) -> String {
        let name = "hiveops_ws_publish_to_socket_seconds";
        format!(
            "{name}_bucket{{le=\"0.1\"}} 0\n{name}_bucket{{le=\"0.25\"}} {within}\n{name}_count {count}\n"
        )
    }

    #[test]
    fn the_budget_of_the_slow_ones_is_five_in_a_hundred() {
        assert_eq!(burn(judged(&latency(100, 100), "latency")), 0.0);
        assert_eq!(burn(judged(&latency(95, 100), "latency")), 1.0);
        assert_eq!(burn(judged(&latency(0, 100), "latency")), 20.0);
        assert_eq!(burn(judged_nodes(&[&latency(90, 100), &latency(300, 300)], "latency")), 0.5);
    }

    #[test]
    fn a_view_is_late_above_five_seconds() {
        let page = |age: f64| format!("hiveops_ws_control_view_age_seconds {age}\n");
        assert_eq!(burn(judged(&page(5.0), "control_view")), 0.0);
        assert_eq!(burn(judged_nodes(&[&page(5.1), &page(0.2)], "control_view")), 500.0);
    }

    #[test]
    fn a_refusal_for_the_clients_fault_is_not_held_against_the_node() {
        let page = |reason: &str| {
            let all = ["node_full", "cluster_full", "not_lent", "rate", "shutdown", "malformed", "user_full"];
            let lines = all.iter().map(|one| {
                format!(
                    "hiveops_ws_handshakes_refused_total{{reason=\"{one}\"}} {}\n",
                    u8::from(*one == reason)
                )
            });
            lines.chain(["hiveops_ws_connections_total 199\n".to_owned()]).collect::<String>()
        };
        assert_eq!(burn(judged(&page("malformed"), "handshake")), 0.0);
        assert_eq!(burn(judged(&page("node_full"), "handshake")), 1.0);
    }

    #[test]
    fn no_events_are_told_from_names_that_nobody_exports_and_neither_is_good() {
        let why = |outcome| match outcome {
            Outcome::Lacks { why, rest: None } => why,
            other => panic!("{other:?}"),
        };
        let nothing = Outcome::NoData("nothing happened that it counts".to_owned());
        assert_eq!(judged(&latency(0, 0), "latency"), nothing);
        assert!(
            why(judged("a_total 1\n", "latency"))
                .contains("does not export `hiveops_ws_publish_to_socket_seconds`")
        );
        let other = latency(1, 1).replace("0.25", "0.2");
        assert!(why(judged(&other, "latency")).contains("no bucket that ends at 0.25"));
        let page = "hiveops_ws_connections_total 1\nhiveops_ws_handshakes_refused_total{reason=\"rate\"} 0\n";
        assert!(why(judged(page, "handshake")).contains("hiveops_ws_handshakes_refused_total"));
    }

    #[test]
    fn a_node_that_lacks_a_metric_does_not_hide_what_the_others_counted() {
        let Outcome::Lacks { why, rest: Some(rest) } =
            judged_nodes(&["a_total 1\n", &latency(0, 100)], "latency")
        else {
            panic!("it is not said that one lacks it")
        };
        assert!(why.contains("does not export `hiveops_ws_publish_to_socket_seconds`"), "{why}");
        assert_eq!((rest.bad, rest.total), (100.0, 100.0));
    }
}
