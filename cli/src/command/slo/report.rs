//! What `slo check` found, as a table or as JSON, and the exit code that goes with it.

use serde_json::{Value, json};

use super::verdict::{Judged, Measured, Outcome};

/// What the whole check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overall {
    Holds,
    Burning,
    Unread,
    NoData,
}

impl Overall {
    /// docs/slo.md lists them; 2 is a wrong command line everywhere.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::Burning => 1,
            Self::Unread => 3,
            Self::NoData => 4,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Burning => "burning",
            Self::Unread => "unread",
            Self::NoData => "no_data",
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// None: since the nodes' start.
    pub(super) window_seconds: Option<u64>,
    pub(super) max_burn: f64,
    /// Whether an objective without data is an answer, and whether a node that nobody named is none.
    pub(super) allow_no_data: bool,
    pub(super) whole_cluster: bool,
}

/// One node, and how reading it went.
#[derive(Debug)]
pub(super) struct NodeRead {
    pub(super) url: String,
    /// As `stats` has it, or why it did not say; whom else it sees is not known then either.
    pub(super) node_id: Result<String, String>,
    pub(super) resets: u64,
    pub(super) error: Option<String>,
}

/// Everything that is printed.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) asked: Asked,
    pub(super) nodes: Vec<NodeRead>,
    /// Nodes of the cluster whose address was not given.
    pub(super) not_named: Vec<String>,
    pub(super) judged: Vec<Judged>,
}

impl Report {
    /// A budget that burns is certain even when a node could not be read; that none burns is not.
    pub(super) fn overall(&self) -> Overall {
        let unread = self.nodes.iter().any(|node| node.error.is_some())
            || self.asked.whole_cluster && !self.is_whole();
        // That nothing happened may be expected. What a node does not export, it never counts.
        let no_data = self.judged.iter().any(|one| match one.outcome {
            Outcome::Measured(_) => false,
            Outcome::NoData(_) => !self.asked.allow_no_data,
            Outcome::Lacks { .. } => true,
        });
        if self.judged.iter().any(|one| self.verdict(one) == Overall::Burning) {
            Overall::Burning
        } else if unread {
            Overall::Unread
        } else if no_data {
            Overall::NoData
        } else {
            Overall::Holds
        }
    }

    /// Whether every node of the cluster is among those that were named. One that did not say whom it sees may be
    /// in a cluster of many.
    fn is_whole(&self) -> bool {
        self.not_named.is_empty() && self.nodes.iter().all(|node| node.node_id.is_ok())
    }

    fn verdict(&self, judged: &Judged) -> Overall {
        let burns = |measured: &Measured| measured.burn > self.asked.max_burn;
        match &judged.outcome {
            Outcome::Measured(measured) | Outcome::Lacks { rest: Some(measured), .. } if burns(measured) => {
                Overall::Burning
            }
            Outcome::Measured(_) => Overall::Holds,
            Outcome::NoData(_) | Outcome::Lacks { .. } => Overall::NoData,
        }
    }

    pub(super) fn json(&self) -> Value {
        let nodes = self.nodes.iter().map(|node| {
            json!({
                "url": node.url,
                "node_id": node.node_id.as_ref().ok(),
                "stats_error": node.node_id.as_ref().err(),
                "resets": node.resets,
                "error": node.error,
            })
        });
        let objectives = self.judged.iter().map(|one| {
            let mut shown = json!({
                "name": one.name,
                "target": one.target,
                "verdict": self.verdict(one).as_str(),
            });
            let (measured, detail) = parts(&one.outcome);
            if let Some(detail) = detail {
                shown["detail"] = json!(detail);
            }
            if let Some(measured) = measured {
                shown["bad"] = json!(measured.bad);
                shown["total"] = json!(measured.total);
                shown["error_ratio"] = json!(measured.error_ratio());
                shown["burn_rate"] = json!(measured.burn);
            }
            shown
        });
        json!({
            "verdict": self.overall().as_str(),
            "window_seconds": self.asked.window_seconds,
            "max_burn": self.asked.max_burn,
            "objectives": objectives.collect::<Vec<_>>(),
            "nodes": nodes.collect::<Vec<_>>(),
            "nodes_not_named": self.not_named,
        })
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let over = match self.asked.window_seconds {
            None => "since the nodes started".to_owned(),
            Some(seconds) => format!("over {seconds} s"),
        };
        let mut lines = vec![format!(
            "{:14} {:>8}  {:>9}  {:>10}  {:>12}  {:>9}  verdict",
            "objective", "target", "good", "bad", "of", "burn"
        )];
        lines.extend(self.judged.iter().map(|one| self.row(one)));
        let mut nodes =
            format!("{over}, {} node(s), a budget burns above {}", self.nodes.len(), self.asked.max_burn);
        let resets: u64 = self.nodes.iter().map(|node| node.resets).sum();
        if resets > 0 {
            nodes.push_str(&format!(", {resets} restart(s) meanwhile"));
        }
        lines.push(nodes);
        let unread = self.nodes.iter().filter_map(|node| Some((&node.url, node.error.as_ref()?)));
        lines.extend(unread.map(|(url, error)| format!("not read: {url}: {error}")));
        if !self.not_named.is_empty() {
            lines.push(format!("not named with --url, so not read: {}", self.not_named.join(", ")));
        }
        if self.asked.whole_cluster {
            let mute = self.nodes.iter().filter_map(|node| Some((&node.url, node.node_id.as_ref().err()?)));
            lines.extend(mute.map(|(url, why)| format!("does not say which nodes there are: {url}: {why}")));
        }
        lines
    }

    fn row(&self, judged: &Judged) -> String {
        let target = percent(judged.target);
        let (measured, detail) = parts(&judged.outcome);
        let Some(measured) = measured else {
            return format!("{:14} {target:>8}  no data: {}", judged.name, detail.unwrap_or_default());
        };
        let mut row = format!(
            "{:14} {target:>8}  {:>9}  {:>10}  {:>12}  {:>9.2}  {}",
            judged.name,
            percent(1.0 - measured.error_ratio()),
            measured.bad,
            measured.total,
            measured.burn,
            self.verdict(judged).as_str()
        );
        if let Some(detail) = detail {
            row.push_str(&format!(": {detail}"));
        }
        row
    }
}

/// What was measured, and what else there is to say.
fn parts(outcome: &Outcome) -> (Option<&Measured>, Option<&str>) {
    match outcome {
        Outcome::Measured(measured) => (Some(measured), None),
        Outcome::NoData(why) => (None, Some(why)),
        Outcome::Lacks { why, rest } => (rest.as_ref(), Some(why)),
    }
}

/// With as many places as a budget of 0.1 % needs. Cut and not rounded: 99.9996 % is not all.
fn percent(share: f64) -> String {
    let shown = (share * 100_000.0 + 1e-6).floor() / 1_000.0;
    format!("{shown} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bad: f64, burn: f64) -> Outcome {
        Outcome::Measured(Measured { bad, total: 1_000.0, burn })
    }

    fn lacks(rest: Option<Measured>) -> Outcome {
        Outcome::Lacks { why: "x".to_owned(), rest }
    }

    fn report(outcomes: Vec<Outcome>, error: Option<&str>) -> Report {
        let judged = outcomes.into_iter().map(|outcome| Judged {
            name: "delivery".to_owned(),
            target: 0.999,
            outcome,
        });
        let node = NodeRead {
            url: "http://n1".to_owned(),
            node_id: Ok("n1".to_owned()),
            resets: 0,
            error: error.map(str::to_owned),
        };
        Report {
            asked: Asked {
                window_seconds: Some(30),
                max_burn: 1.0,
                allow_no_data: false,
                whole_cluster: false,
            },
            nodes: vec![node],
            not_named: Vec::new(),
            judged: judged.collect(),
        }
    }

    #[test]
    fn burning_is_certain_whatever_could_not_be_read() {
        let nothing = || Outcome::NoData("x".to_owned());
        let codes = [
            (report(vec![measured(1.0, 1.0)], None), 0),
            (report(vec![measured(2.0, 2.0), nothing()], Some("gone")), 1),
            (report(vec![measured(0.0, 0.0), nothing()], Some("gone")), 3),
            (report(vec![measured(0.0, 0.0), nothing()], None), 4),
        ];
        for (report, code) in codes {
            assert_eq!(report.overall().exit_code(), code, "{report:?}");
        }
    }

    #[test]
    fn what_was_not_asked_to_be_whole_may_lack_nodes_and_data() {
        let mut report = report(vec![measured(0.0, 0.0), Outcome::NoData("x".to_owned())], None);
        report.not_named.push("n2".to_owned());
        report.asked.allow_no_data = true;
        assert_eq!(report.overall(), Overall::Holds);
        report.asked.whole_cluster = true;
        assert_eq!(report.overall(), Overall::Unread);
        report.not_named.clear();
        assert_eq!(report.overall(), Overall::Holds);
    }

    #[test]
    fn a_node_that_does_not_say_whom_it_sees_leaves_open_whether_the_cluster_is_whole() {
        let mut report = report(vec![measured(0.0, 0.0)], None);
        report.nodes[0].node_id = Err("asks for a credential".to_owned());
        assert_eq!(report.overall(), Overall::Holds);
        assert!(!report.lines().iter().any(|line| line.contains("does not say")), "nobody asked");
        report.asked.whole_cluster = true;
        assert_eq!(report.overall(), Overall::Unread);
        let line = "does not say which nodes there are: http://n1: asks for a credential";
        assert_eq!(report.lines().last().unwrap(), line);
        assert_eq!(report.json()["nodes"][0]["stats_error"], "asks for a credential");
    }

    #[test]
    fn what_a_node_does_not_export_is_never_expected_and_hides_no_burn() {
        let rest = |burn| Some(Measured { bad: 1.0, total: 1_000.0, burn });
        for allow_no_data in [false, true] {
            let overall = |outcome| {
                let mut report = report(vec![outcome], None);
                report.asked.allow_no_data = allow_no_data;
                report.overall()
            };
            assert_eq!(overall(lacks(None)), Overall::NoData);
            assert_eq!(overall(lacks(rest(0.5))), Overall::NoData);
            assert_eq!(overall(lacks(rest(2.0))), Overall::Burning);
        }
        let report = report(vec![lacks(rest(2.0)), lacks(None)], None);
        assert!(report.lines()[1].ends_with("      2.00  burning: x"), "{:?}", report.lines());
        assert!(report.lines()[2].ends_with("  no data: x"), "{:?}", report.lines());
        let objective = &report.json()["objectives"][0];
        assert_eq!((&objective["detail"], &objective["burn_rate"]), (&json!("x"), &json!(2.0)));
    }

    #[test]
    fn the_table_says_what_the_json_says() {
        let report = report(vec![measured(2.0, 2.0)], None);
        assert_eq!(
            report.lines()[1],
            "delivery         99.9 %     99.8 %           2          1000       2.00  burning"
        );
        assert_eq!(report.json()["objectives"][0]["burn_rate"], 2.0);
        assert_eq!(report.json()["verdict"], "burning");
    }

    #[test]
    fn a_share_is_never_shown_as_better_than_it_is() {
        assert_eq!([0.999, 0.95, 0.999_996, 1.0].map(percent), ["99.9 %", "95 %", "99.999 %", "100 %"]);
    }
}
