//! What a leader does by itself: it makes the cluster's first state when there is none.

use std::convert::Infallible;
use std::time::Duration;

use hiveops_proto::id::ClusterId;

use super::service::Service;
use crate::state::{Action, Init, LEASE_MS};

/// Before another try, when a decision did not come about.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs as long as the replica does.
pub(super) async fn keep(service: &Service) -> Infallible {
    let mut changes = service.group.changes();
    loop {
        let missing = service.plane.read(|state| state.cluster_id().is_none());
        if missing && service.group.standing().leads {
            make(service).await;
            tokio::time::sleep(PAUSE).await;
        } else {
            changes.next().await;
        }
    }
}

/// Whoever leads first gives the cluster the limits and the contract that it was started with.
async fn make(service: &Service) {
    let cluster = service.link.cluster().and_then(|cluster| ClusterId::new(&cluster).ok());
    let Some(cluster_id) = cluster else { return };
    let start = service.config.start.clone();
    let init = Init {
        cluster_id,
        limits: start.limits,
        sources: start.sources,
        contract: start.contract,
        deprecation_policy: start.deprecation_policy,
        schema_digest: start.schema_digest,
        lease_ms: LEASE_MS,
    };
    match service.propose(None, Action::Init(Box::new(init))).await {
        Ok(_) => tracing::info!(replica = service.config.id, "cluster has its first state"),
        Err(refused) => tracing::warn!(reason = %refused.detail, "cluster has no first state yet"),
    }
}
