//! What is wrong with a configuration, said so that it can be put right without reading the code.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting or variable that it is about.
    pub key: String,
    /// Where it stands: a variable, a flag, a key of the file; empty when it stands nowhere.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, place, problem, fix } = self;
        if place.is_empty() {
            write!(f, "{key}: {problem}; {fix}")
        } else {
            write!(f, "{key} ({place}): {problem}; {fix}")
        }
    }
}

/// All that is wrong, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("there is a mistake in the configuration of the replica:")?,
            count => write!(f, "there are {count} mistakes in the configuration of the replica:")?,
        }
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}
