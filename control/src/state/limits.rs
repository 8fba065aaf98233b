//! The thresholds and who set each. A change is a patch, so that two people who change different limits
//! at once do not undo each other.

use std::collections::BTreeMap;

use hiveops_proto::Limits;
use hiveops_proto::control::Source;
use serde::{Deserialize, Serialize};

use super::outcome::{LimitChange, Refusal, RefusalCode};

/// The thresholds in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thresholds {
    pub(crate) limits: Limits,
    /// A source for every row of [`Limits::TABLE`].
    pub(crate) sources: BTreeMap<String, Source>,
}

impl Thresholds {
    pub(crate) fn new(limits: Limits, given: &BTreeMap<String, Source>) -> Result<Self, Refusal> {
        limits.check().map_err(refusal)?;
        let source = |name: &str| given.get(name).copied().unwrap_or(Source::Default);
        let sources = Limits::TABLE.iter().map(|spec| (spec.name.to_owned(), source(spec.name))).collect();
        Ok(Self { limits, sources })
    }

    /// What the patch would change, or every reason why it cannot be.
    pub(crate) fn preview(&self, patch: &BTreeMap<String, u64>) -> Result<Vec<LimitChange>, Refusal> {
        self.patched(patch).map(|(_, changes)| changes)
    }

    pub(crate) fn set(&mut self, patch: &BTreeMap<String, u64>) -> Result<Vec<LimitChange>, Refusal> {
        let (patched, changes) = self.patched(patch)?;
        *self = patched;
        Ok(changes)
    }

    fn patched(&self, patch: &BTreeMap<String, u64>) -> Result<(Self, Vec<LimitChange>), Refusal> {
        let mut patched = self.clone();
        let mut mistakes = Vec::new();
        let mut changes = Vec::new();
        for (name, &to) in patch {
            if let Err(mistake) = patched.limits.set(name, to) {
                mistakes.push(mistake);
                continue;
            }
            let from = self.limits.get(name).unwrap_or(to);
            let source = patched.sources.insert(name.clone(), Source::Control).unwrap_or(Source::Default);
            if from != to || source != Source::Control {
                changes.push(LimitChange { name: name.clone(), from, to, source });
            }
        }
        if let Err(more) = patched.limits.check() {
            mistakes.extend(more);
        }
        if mistakes.is_empty() { Ok((patched, changes)) } else { Err(refusal(mistakes)) }
    }
}

fn refusal(mistakes: Vec<hiveops_proto::limits::InvalidLimit>) -> Refusal {
    Refusal { code: RefusalCode::Invalid, reasons: mistakes.iter().map(ToString::to_string).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds() -> Thresholds {
        let given = BTreeMap::from([("outbox_frames_max".to_owned(), Source::Env)]);
        Thresholds::new(Limits::default(), &given).unwrap()
    }

    fn patch(values: &[(&str, u64)]) -> BTreeMap<String, u64> {
        values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn every_limit_has_a_source_from_the_start() {
        let sources = thresholds().sources;
        assert_eq!(sources.len(), Limits::TABLE.len());
        assert_eq!(sources["outbox_frames_max"], Source::Env);
        assert_eq!(sources["idle_disconnect_seconds"], Source::Default);
    }

    #[test]
    fn what_a_patch_names_becomes_controls_even_at_the_same_value() {
        let mut thresholds = thresholds();
        let wanted = patch(&[("outbox_frames_max", 256), ("idle_disconnect_seconds", 7)]);
        let changes = thresholds.preview(&wanted).unwrap();
        assert_eq!(changes.len(), 2);
        assert_eq!((changes[0].from, changes[0].to, changes[0].source), (600, 7, Source::Default));
        assert_eq!(thresholds.set(&wanted).unwrap(), changes, "a preview tells what happens");
        assert_eq!(thresholds.sources["outbox_frames_max"], Source::Control);
        assert_eq!(thresholds.set(&wanted).unwrap(), [], "and the second time nothing does");
    }

    #[test]
    fn a_patch_with_mistakes_names_all_of_them_and_changes_nothing() {
        let mut thresholds = thresholds();
        let before = thresholds.clone();
        let wanted = patch(&[
            ("nonsense", 1),
            ("idle_disconnect_seconds", 0),
            ("rate_limit_burst_capacity", 5),
            ("outbox_frames_max", 300),
        ]);
        let refusal = thresholds.set(&wanted).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Invalid);
        assert_eq!(refusal.reasons.len(), 3, "{refusal}");
        assert!(refusal.to_string().contains("unknown limit `nonsense`"), "{refusal}");
        assert!(refusal.to_string().contains("must not be below rate_limit_tokens_per_second"), "{refusal}");
        assert_eq!(thresholds, before);
    }

    #[test]
    fn values_that_fit_only_together_can_be_changed_together() {
        let wanted = patch(&[("rate_limit_tokens_per_second", 100), ("rate_limit_burst_capacity", 200)]);
        assert!(thresholds().set(&wanted).is_ok());
    }
}
