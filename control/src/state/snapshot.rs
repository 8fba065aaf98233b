//! The state as bytes, and back. JSON over ordered maps: the same state is always the same bytes, and a
//! person can read what a replica knows.

use serde::{Deserialize, Serialize};

use super::State;

/// The format that this binary writes, and all it reads.
const FORMAT: u32 = 1;

/// Why bytes are not the state.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// They are not the JSON of a state.
    #[error("the snapshot is not valid JSON of its kind")]
    Syntax(#[source] serde_json::Error),
    /// Another binary wrote them.
    #[error("snapshot format {0} is not known to this binary, which knows format {FORMAT}")]
    Format(u32),
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    state: &'a State,
}

#[derive(Deserialize)]
struct Read {
    state: State,
}

/// Read first, so that a snapshot of another format is called that and not a syntax error.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl State {
    /// The whole state; two replicas that applied the same log give the same bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let state = self;
        #[cfg(test)]
        let planted = crate::sim::planted::is_incomplete().then(|| self.incomplete());
        #[cfg(test)]
        let state = planted.as_ref().unwrap_or(state);
        serde_json::to_vec(&Written { format: FORMAT, state })
            .expect("every map of the state has text for keys")
    }

    /// Without what a planted mistake forgets.
    #[cfg(test)]
    fn incomplete(&self) -> Self {
        use crate::sim::planted::{Planted, is_planted};
        let mut state = self.clone();
        if is_planted(Planted::RequestsNotInSnapshot) {
            state.requests = super::Requests::default();
        }
        if let Some(cluster) = &mut state.cluster
            && is_planted(Planted::LoginsNotInSnapshot)
        {
            cluster.families = super::families::Families::default();
        }
        state
    }

    /// The state that [`State::snapshot`] wrote.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let head: Head = serde_json::from_slice(bytes).map_err(RestoreError::Syntax)?;
        if head.format != FORMAT {
            return Err(RestoreError::Format(head.format));
        }
        let read: Read = serde_json::from_slice(bytes).map_err(RestoreError::Syntax)?;
        Ok(read.state)
    }
}
