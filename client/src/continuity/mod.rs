//! What to do with each frame of a server, so that nothing is missed silently (CONTRACT sections 4 and 5).
mod state;
use hiveops_proto::{Positions, SubscriptionName};
pub use state::{Item, KEYS_MAX, State};
/// All subscriptions.
#[derive(Debug, Default)]
pub struct Continuity {
    positions: Positions,
    states: std::collections::BTreeMap<SubscriptionName, State>,
}
impl Continuity {
    /// New.
    pub fn new(positions: Positions) -> Self {
        Self { positions, ..Self::default() }
    }
    /// Positions.
    pub fn positions(&self) -> Positions {
        self.positions.clone()
    }
    /// State.
    pub fn state(&self, subscription: &str) -> Option<&State> {
        self.states.get(subscription)
    }
}
