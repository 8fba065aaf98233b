//! What operators see: logs and metrics.

pub(crate) mod exemplar;
mod labels;
pub(crate) mod latency;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod openmetrics;
pub(crate) mod quantile;
pub(crate) mod reason;

use std::error::Error;
use std::fmt;

use hiveops_proto::{CorrelationId, NodeId};

use crate::auth::Denial;
use crate::http::client::ClientAddress;
use crate::hub::Refused;
use metrics::HandshakeRefusal;

/// A handshake that is closed before it becomes a session, which its client sees as a close code.
pub(crate) fn log_denied(node_id: &NodeId, refused: Refused, correlation_id: &CorrelationId) {
    tracing::info!(
        correlation_id = %correlation_id,
        reason = refused.reason.as_str(),
        code = refused.code.as_u16(),
        node_id = %node_id,
        "handshake denied"
    );
}

/// The same because of its credential: `reason` is what is counted, and `told` what the client learns of it.
pub(crate) fn log_handshake_denied(node_id: &NodeId, denial: Denial, correlation_id: &CorrelationId) {
    let told = denial.reason();
    tracing::info!(
        correlation_id = %correlation_id,
        reason = denial.as_str(),
        told = told.as_str(),
        code = told.close_code().as_u16(),
        node_id = %node_id,
        "handshake denied"
    );
}

/// A handshake that gets no session, and from where.
pub(crate) fn log_refused(
    node_id: &NodeId,
    refusal: HandshakeRefusal,
    client: ClientAddress,
    correlation_id: &CorrelationId,
) {
    tracing::info!(
        correlation_id = %correlation_id,
        reason = refusal.as_str(),
        client = %client.0,
        node_id = %node_id,
        "handshake refused"
    );
}

/// A credential of a request or an open session, or what somebody wanted with it, that was refused. Never what it
/// was.
pub(crate) fn log_credential_denied(node_id: &NodeId, denial: Denial, correlation_id: &CorrelationId) {
    tracing::info!(
        correlation_id = %correlation_id,
        reason = denial.as_str(),
        node_id = %node_id,
        "credential denied"
    );
}

/// An error with everything that caused it, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
