//! What a shard does when the node has lost what it borrowed of the limits of the cluster, or has too much.

use hiveops_proto::DisconnectReason;
use std::time::Duration;

use super::{Intent, Shard};
use crate::session::{Ending, Event};

impl Shard {
    /// Ends the sessions whose place is lost, as soon as the time says so. Cheap when it does not.
    pub(super) fn look_at_lease(&mut self) {
        let era = self.shared.budget.era(self.now());
        if era != self.era {
            self.era = era;
            self.review();
        }
    }

    /// Ends every session that has to.
    pub(super) fn review(&mut self) {
        let connections = self.connections.iter();
        let found = connections.filter_map(|(key, connection)| {
            let verdict = connection.registration.as_ref()?.verdict()?;
            Some((key as u32, verdict))
        });
        let found: Vec<(u32, DisconnectReason)> = found.collect();
        for (key, reason) in found {
            // All at the same moment, so the hints have to spread those who come back.
            let retry_after_ms = Some(self.shared.hints.next(Duration::ZERO));
            let ending = Ending { retry_after_ms, ..Ending::new(reason) };
            self.handle(key, Event::Disconnect(ending));
        }
    }

    /// Why a socket gets no session although its handshake had a place.
    pub(super) fn place_lost(&mut self, intent: &Intent) -> Option<DisconnectReason> {
        self.look_at_lease();
        match intent {
            Intent::Open(_, registration) => registration.verdict(),
            Intent::Refuse(_) => None,
            #[cfg(feature = "echo-endpoint")]
            Intent::Echo => None,
        }
    }
}
