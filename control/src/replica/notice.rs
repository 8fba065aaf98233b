//! Notices who leads: the one figure of a replica that nobody owns and that passes.

use std::convert::Infallible;

use super::service::Service;

/// Runs as long as the replica does. Two changes at once count as one.
pub(super) async fn keep(service: &Service) -> Infallible {
    let mut changes = service.group.changes();
    let mut last = None;
    loop {
        let standing = service.group.standing();
        let lead = standing.leader.map(|leader| (standing.term, leader));
        if lead.is_some() && lead != last {
            service.metrics.leader_changes.inc();
            last = lead;
        }
        changes.next().await;
    }
}
