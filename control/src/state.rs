//! The pure state machine: a command in, an outcome out. No clock, no randomness, no IO: the same commands
//! in the same order make the same state on every replica.

use std::collections::BTreeMap;

use hiveops_proto::Limits;
use hiveops_proto::control::{ContractView, ControlView, Revision, Source};
use hiveops_proto::limits::InvalidLimit;

/// What can be asked of the plane.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Put other thresholds in force.
    SetLimits {
        /// All of them.
        limits: Limits,
    },
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The state is another one, at this revision.
    Changed(Revision),
    /// It was like that already.
    Unchanged,
    /// It cannot be done; the state is as it was.
    Refused(Vec<InvalidLimit>),
}

/// Everything the plane knows.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    revision: Revision,
    limits: Limits,
    /// A source for every row of [`Limits::TABLE`].
    sources: BTreeMap<String, Source>,
    contract: ContractView,
}

impl State {
    /// The first state, at revision 1 of term 1.
    pub fn new(limits: Limits, given: BTreeMap<String, Source>, contract: ContractView) -> Self {
        let source = |name: &str| given.get(name).copied().unwrap_or(Source::Default);
        let sources = Limits::TABLE.iter().map(|spec| (spec.name.to_owned(), source(spec.name))).collect();
        Self { revision: Revision { term: 1, index: 1 }, limits, sources, contract }
    }

    /// Does what a command asks for, whole or not at all.
    pub fn apply(&mut self, command: Command) -> Outcome {
        match command {
            Command::SetLimits { limits } => self.set_limits(limits),
        }
    }

    /// What nodes get to see.
    pub fn view(&self) -> ControlView {
        let Self { revision, limits, sources, contract } = self.clone();
        ControlView { revision, limits, sources, contract }
    }

    fn set_limits(&mut self, limits: Limits) -> Outcome {
        if let Err(mistakes) = limits.check() {
            return Outcome::Refused(mistakes);
        }
        if limits == self.limits {
            return Outcome::Unchanged;
        }
        for spec in Limits::TABLE {
            if limits.get(spec.name) != self.limits.get(spec.name) {
                self.sources.insert(spec.name.to_owned(), Source::Control);
            }
        }
        self.limits = limits;
        self.revision.index += 1;
        Outcome::Changed(self.revision)
    }
}

#[cfg(test)]
mod tests {
    use hiveops_proto::Contract;
    use hiveops_proto::control::DeprecationPolicy;

    use super::*;

    fn state() -> State {
        let current = Contract::parse(hiveops_proto::CONTRACT).unwrap();
        let contract = ContractView {
            supported_versions: vec![current.version],
            current,
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: "sha256:00".to_owned(),
        };
        let given = BTreeMap::from([("outbox_frames_max".to_owned(), Source::Env)]);
        State::new(Limits::default(), given, contract)
    }

    #[test]
    fn every_limit_has_a_source_from_the_start() {
        let view = state().view();
        assert_eq!(view.sources.len(), Limits::TABLE.len());
        assert_eq!(view.sources["outbox_frames_max"], Source::Env);
        assert_eq!(view.sources["idle_disconnect_seconds"], Source::Default);
    }

    #[test]
    fn only_what_changes_becomes_controls() {
        let mut state = state();
        let limits = Limits { outbox_frames_max: 9, ..Limits::default() };
        assert_eq!(
            state.apply(Command::SetLimits { limits }),
            Outcome::Changed(Revision { term: 1, index: 2 })
        );
        let sources = state.view().sources;
        assert_eq!(sources.values().filter(|source| **source == Source::Control).count(), 1);
        assert_eq!(sources["outbox_frames_max"], Source::Control);
    }

    #[test]
    fn the_same_commands_make_the_same_state() {
        let commands = || {
            [5, 6, 0, 6].map(|seconds| Command::SetLimits {
                limits: Limits { idle_disconnect_seconds: seconds, ..Limits::default() },
            })
        };
        let (mut a, mut b) = (state(), state());
        let outcomes = |state: &mut State| commands().map(|command| state.apply(command));
        assert_eq!(outcomes(&mut a), outcomes(&mut b));
        assert_eq!(a, b);
        assert_eq!(a.view().revision.index, 3, "a refused and a repeated command make no revision");
    }
}
