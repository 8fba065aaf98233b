//! What a session may ask of its shard while it handles an event.

use std::sync::atomic::Ordering;

use hiveops_proto::control::ControlView;
use hiveops_proto::{CorrelationId, ErrorCode, NodeId, Payload, Position, Timestamp};

use super::Shared;
use crate::auth::{Denial, Principal, Standing, Vouched};
use crate::catalog::{Catalog, SubId};
use crate::hub::pending::Pending;
use crate::hub::view::View;
use crate::session::{Request, World};
use crate::time::Moment;

/// A view of the shard that lends out nothing mutable.
pub(super) struct Env<'a> {
    pub(super) shared: &'a Shared,
    pub(super) control: &'a ControlView,
    pub(super) catalog: &'a Catalog,
    pub(super) views: &'a [View],
    pub(super) now: Moment,
    /// What waits for the session that is asking.
    pub(super) pending: Option<&'a Pending>,
}

impl<'a> Env<'a> {
    pub(super) fn of(
        shared: &'a Shared,
        (control, catalog): (&'a ControlView, &'a Catalog),
        views: &'a [View],
        pending: Option<&'a Pending>,
    ) -> Self {
        Self { shared, control, catalog, views, now: shared.clock.moment(), pending }
    }
}

impl World for Env<'_> {
    fn catalog(&self) -> &Catalog {
        self.catalog
    }

    fn control(&self) -> &ControlView {
        self.control
    }

    fn node_id(&self) -> &NodeId {
        &self.shared.node_id
    }

    fn position(&self, sub: SubId) -> Position {
        self.views[sub.index()].position()
    }

    fn sent_position(&self, sub: SubId) -> Option<Position> {
        let head = self.position(sub);
        let Some(pending) = self.pending else { return Some(head) };
        Some(Position { seq: pending.sent(sub, head.seq)?, ..head })
    }

    fn can_continue(&self, sub: SubId, since: &Position) -> bool {
        self.views[sub.index()].can_continue(since)
    }

    fn bus_live(&self) -> bool {
        self.shared.bus_live.load(Ordering::Relaxed)
    }

    fn now(&self) -> Moment {
        self.now
    }

    fn timestamp(&self) -> Timestamp {
        self.shared.clock.timestamp()
    }

    fn new_id(&self) -> CorrelationId {
        self.shared.clock.correlation_id()
    }

    fn answer(&self, request: &Request<'_>) -> Result<Payload, (ErrorCode, String)> {
        self.shared.answers.answer(request, self.timestamp())
    }

    fn verify(&self, token: &str) -> Result<Vouched, Denial> {
        self.shared.gate.verify(token)
    }

    fn standing(&self, principal: &Principal) -> Standing {
        self.shared.gate.standing(principal)
    }

    fn is_control_away(&self) -> bool {
        self.shared.gate.is_control_away()
    }
}
