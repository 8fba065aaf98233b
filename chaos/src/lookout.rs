//! Looks at `/readyz` of every node all the time, and notes each change: a scenario that needs a node to have
//! been red and green again asks here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hiveops_proto::path::READYZ;

use crate::sync::lock;

/// Between two looks at one node.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What takes longer is no answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What was seen, shared between the looks and the scenario.
#[derive(Debug, Default)]
pub struct Looks {
    changes: Mutex<Vec<Change>>,
}

/// From then on a node gave this answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    at: Instant,
    node: usize,
    /// None: no answer.
    status: Option<u16>,
}

impl Looks {
    /// What a node says now.
    pub fn now(&self, node: usize) -> Option<u16> {
        let changes = lock(&self.changes);
        changes.iter().rev().find(|change| change.node == node).and_then(|change| change.status)
    }

    /// When a node first gave this answer, not counting what was before.
    pub fn first_since(&self, since: Instant, node: usize, status: u16) -> Option<Instant> {
        let changes = lock(&self.changes);
        let mut fitting = changes.iter().filter(|change| change.node == node && change.at >= since);
        fitting.find(|change| change.status == Some(status)).map(|change| change.at)
    }

    fn note(&self, node: usize, status: Option<u16>) {
        let mut changes = lock(&self.changes);
        let last = changes.iter().rev().find(|change| change.node == node);
        if last.is_none_or(|last| last.status != status) {
            changes.push(Change { at: Instant::now(), node, status });
        }
    }
}

/// Looks at one node until it is dropped.
pub(crate) async fn look(node: usize, addr: SocketAddr, looks: Arc<Looks>) {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build();
    let Ok(client) = client else { return };
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = client.get(format!("http://{addr}{READYZ}")).send().await;
        looks.note(node, answer.ok().map(|answer| answer.status().as_u16()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_noted_once_and_found_again() {
        let looks = Looks::default();
        for status in [Some(200), Some(200), Some(503), None, Some(200)] {
            looks.note(1, status);
        }
        assert_eq!(lock(&looks.changes).len(), 4);
        assert_eq!((looks.now(1), looks.now(0)), (Some(200), None));
        let red = lock(&looks.changes)[1].at;
        assert_eq!(looks.first_since(red, 1, 503), Some(red));
        assert!(looks.first_since(red, 1, 200).is_some_and(|green| green >= red));
        assert_eq!(looks.first_since(Instant::now(), 1, 503), None);
    }
}
