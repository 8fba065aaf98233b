//! Where in a subscription's log somebody stands.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, InvalidId};
use crate::subscription::SubscriptionName;

/// The largest `seq` that every JSON reader holds exactly.
pub const SEQ_MAX: u64 = (1 << 53) - 1;

/// A point in one subscription's log. `seq` 0 is the point before the first publication.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The life of the log that `seq` counts in.
    pub epoch: Epoch,
    /// The publication that was the last one seen.
    pub seq: u64,
}

/// A position for each of several subscriptions.
pub type Positions = BTreeMap<SubscriptionName, Position>;

/// Which of the joined subscriptions were continued where the client left off.
pub type Recovered = BTreeMap<SubscriptionName, bool>;

/// Reads the `since` query parameter: `name:epoch:seq`, separated by commas.
pub fn parse_since(text: &str) -> Result<Positions, InvalidId> {
    const INVALID: InvalidId = InvalidId { what: "since", rule: "a comma list of name:epoch:seq" };
    let mut positions = Positions::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let mut parts = item.split(':');
        let (Some(name), Some(epoch), Some(seq), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(INVALID);
        };
        let seq = seq.parse().ok().filter(|seq| *seq <= SEQ_MAX).ok_or(INVALID)?;
        let position = Position { epoch: Epoch::new(epoch)?, seq };
        positions.insert(SubscriptionName::new(name)?, position);
    }
    Ok(positions)
}

/// Writes positions as the `since` query parameter that [`parse_since`] reads.
pub fn format_since(positions: &Positions) -> String {
    let items: Vec<String> = positions
        .iter()
        .map(|(name, position)| format!("{name}:{}:{}", position.epoch, position.seq))
        .collect();
    items.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_reads_what_it_writes() {
        let text = "agents:00ff:12,tasks:abc:0";
        assert_eq!(format_since(&parse_since(text).unwrap()), text);
        assert!(parse_since("").unwrap().is_empty());
    }

    #[test]
    fn since_refuses_what_is_not_a_position() {
        for bad in ["agents", "agents:e", "agents:e:x", "agents:e:1:2", "agents:E:1", "agents:e:-1"] {
            assert!(parse_since(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(parse_since(&format!("agents:e:{}", SEQ_MAX + 1)).is_err());
    }
}
