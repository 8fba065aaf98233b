//! What a shard does when the node has lost what it borrowed of the limits of the cluster, or has too much, or
//! when somebody has lost what let them in.

use std::time::Duration;

use hiveops_proto::{CorrelationId, DisconnectReason};

use super::{Intent, Shard};
use crate::auth::Denial;
use crate::session::{Ending, Event};
use crate::telemetry::metrics::HandshakeRefusal;
use crate::telemetry::{log_credential_denied, log_denied, log_handshake_denied};

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

    /// Why a socket gets no session although its credential was good at its handshake.
    pub(super) fn credential_lost(&self, intent: &Intent) -> Option<DisconnectReason> {
        let Intent::Open(setup, _) = intent else { return None };
        if !self.shared.gate.is_revoked(&setup.principal) {
            return None;
        }
        let denial = Denial::Revoked;
        self.shared.metrics.auth_denied.with_label_values(&[denial.as_str()]).inc();
        log_handshake_denied(&self.shared.node_id, denial, &setup.correlation_id);
        Some(denial.reason())
    }

    /// Counts and logs that a session was refused something, or ended for its credential.
    pub(super) fn denied(&self, denial: Denial, correlation_id: &CorrelationId) {
        self.shared.metrics.auth_denied.with_label_values(&[denial.as_str()]).inc();
        log_credential_denied(&self.shared.node_id, denial, correlation_id);
    }

    /// Why a socket gets no session although its handshake had a place.
    pub(super) fn place_lost(&mut self, intent: &Intent) -> Option<DisconnectReason> {
        self.look_at_lease();
        let (setup, verdict) = match intent {
            Intent::Open(setup, registration) => (setup, registration.verdict()?),
            Intent::Refuse(_) => return None,
            #[cfg(feature = "echo-endpoint")]
            Intent::Echo => return None,
        };
        let refusal = [HandshakeRefusal::ClusterFull.as_str()];
        self.shared.metrics.handshakes_refused.with_label_values(&refusal).inc();
        log_denied(&self.shared.node_id, verdict.into(), &setup.correlation_id);
        Some(verdict)
    }
}
