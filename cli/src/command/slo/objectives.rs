//! The file with the objectives, as far as `slo check` needs it. The generator in `deploy/generator` reads the
//! same file for rules, alerts and dashboards; docs/slo.md explains its members.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::output::Usage;

/// The objectives of this version, which `--objectives` takes the place of.
const EMBEDDED: &str = include_str!("../../../../deploy/slo/objectives.json");

/// The form of the file that this reads.
const VERSION: u64 = 1;

/// All objectives, by name.
#[derive(Debug, Deserialize)]
pub(super) struct Objectives {
    version: u64,
    pub(super) objectives: BTreeMap<String, Objective>,
}

/// What is promised, and how it is counted.
#[derive(Debug, Deserialize)]
pub(super) struct Objective {
    /// The share that must be good, between 0 and 1.
    pub(super) target: f64,
    pub(super) sli: Sli,
}

/// How good and bad are told apart.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Sli {
    /// Counters of what went wrong and of what went well.
    Ratio { bad: Vec<Selector>, good: Vec<Selector> },
    /// Observations of a histogram; above an edge they are bad.
    Latency { histogram: String, threshold_seconds: f64 },
    /// Looks at a gauge; above the limit they are bad.
    Freshness { gauge: String, limit_seconds: f64 },
}

/// Series of one metric: all, or those whose label has one of these values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selector {
    pub(super) metric: String,
    #[serde(default)]
    pub(super) label: Option<String>,
    #[serde(default)]
    pub(super) values: Vec<String>,
}

impl Objectives {
    /// Reads the file, or takes the one of this version; with names, only those objectives.
    pub(super) fn load(file: Option<&Path>, names: &[String]) -> Result<Self, Usage> {
        let (place, text) = match file {
            None => ("the objectives of this version".to_owned(), EMBEDDED.to_owned()),
            Some(path) => {
                let place = format!("`{}` (--objectives)", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Usage(format!("{place} cannot be read: {error}")))?;
                (place, text)
            }
        };
        Self::parse(&text, names).map_err(|problem| Usage(format!("{place}: {problem}")))
    }

    fn parse(text: &str, names: &[String]) -> Result<Self, String> {
        let mut all: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if all.version != VERSION {
            return Err(format!("version {} is not known, only {VERSION}", all.version));
        }
        for (name, objective) in &all.objectives {
            objective.check().map_err(|problem| format!("objective `{name}`: {problem}"))?;
        }
        let known: Vec<&str> = all.objectives.keys().map(String::as_str).collect();
        if let Some(unknown) = names.iter().find(|name| !all.objectives.contains_key(*name)) {
            return Err(format!("there is no objective `{unknown}`; there are: {}", known.join(", ")));
        }
        if !names.is_empty() {
            all.objectives.retain(|name, _| names.contains(name));
        }
        if all.objectives.is_empty() {
            return Err("there is no objective in it".to_owned());
        }
        Ok(all)
    }
}

impl Objective {
    fn check(&self) -> Result<(), String> {
        if !(self.target > 0.0 && self.target < 1.0) {
            return Err(format!("target {} is not between 0 and 1", self.target));
        }
        match &self.sli {
            Sli::Ratio { bad, good } => {
                if bad.is_empty() || good.is_empty() {
                    return Err("a ratio needs `bad` and `good` counters".to_owned());
                }
                bad.iter().chain(good).try_for_each(Selector::check)
            }
            Sli::Latency { threshold_seconds: bound, .. } | Sli::Freshness { limit_seconds: bound, .. } => {
                if bound.is_finite() && *bound > 0.0 {
                    Ok(())
                } else {
                    Err(format!("{bound} s is no bound"))
                }
            }
        }
    }
}

impl Selector {
    fn check(&self) -> Result<(), String> {
        if self.label.is_some() == self.values.is_empty() {
            return Err(format!("`{}`: `label` and `values` come together", self.metric));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(objectives: &str) -> String {
        format!(r#"{{"version": 1, "objectives": {{{objectives}}}}}"#)
    }

    const FRESH: &str =
        r#""view": {"target": 0.9, "sli": {"kind": "freshness", "gauge": "g", "limit_seconds": 5}}"#;

    #[test]
    fn the_embedded_file_has_the_four_objectives() {
        let all = Objectives::load(None, &[]).unwrap();
        let names: Vec<&str> = all.objectives.keys().map(String::as_str).collect();
        assert_eq!(names, ["control_view", "delivery", "handshake", "latency"]);
    }

    #[test]
    fn only_those_that_are_asked_for_are_kept_and_an_unknown_one_is_an_error() {
        let all = Objectives::load(None, &["latency".to_owned()]).unwrap();
        assert_eq!(all.objectives.len(), 1);
        let error = Objectives::load(None, &["speed".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no objective `speed`; there are: control_view, delivery"), "{error}");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_with_the_reason() {
        let refused = |text: &str| Objectives::parse(text, &[]).unwrap_err();
        assert!(Objectives::parse(&file(FRESH), &[]).is_ok());
        assert!(refused("{").contains("EOF"));
        assert!(refused(&file("")).contains("no objective"));
        assert!(refused(&file(FRESH).replace("\"version\": 1", "\"version\": 2")).contains("version 2"));
        assert!(refused(&file(&FRESH.replace("0.9", "1"))).contains("objective `view`: target 1 is not"));
        assert!(refused(&file(&FRESH.replace(": 5", ": 0"))).contains("0 s is no bound"));
        assert!(refused(&file(&FRESH.replace("gauge", "meter"))).contains("unknown field `meter`"));
        let ratio = |bad: &str| {
            file(&format!(
                r#""r": {{"target": 0.9, "sli": {{"kind": "ratio", "bad": [{bad}], "good": [{{"metric": "m"}}]}}}}"#
            ))
        };
        assert!(refused(&ratio("")).contains("needs `bad` and `good`"));
        assert!(refused(&ratio(r#"{"metric": "b", "label": "reason"}"#)).contains("come together"));
    }
}
