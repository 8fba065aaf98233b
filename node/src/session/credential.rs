//! The credential of one session: how long it is good, what its client is told before it ends, and how it is
//! renewed on the open socket.

use hiveops_proto::access::TOKEN_LEEWAY_MS;
use hiveops_proto::frame::{AuthExpiring, AuthRefresh, AuthRefreshed};
use hiveops_proto::{CorrelationId, ErrorCode, Limits, Timestamp};

use super::{Action, Ending, Session, World, error_frame};
use crate::auth::{Denial, Principal, Standing, Vouched, end_of};
use crate::time::Moment;

/// How long before its end a client is told: two tries to reach the node that renews it. Half of what is left when
/// that is less: a client that renews when it is told would be told again at once, and so on.
const NOTICE_MS: u64 = 60_000;

/// Between two looks whether control is back.
const LOOK_MS: u64 = 1_000;

/// After control is back, a client has so long to renew what it could not renew before. As long as the leeway,
/// so that all who were kept do not come at once.
const AFTER_OUTAGE_MS: u64 = TOKEN_LEEWAY_MS;

#[derive(Debug)]
pub(super) struct Credential {
    principal: Principal,
    /// None for what does not end.
    expiry: Option<Expiry>,
}

#[derive(Debug)]
struct Expiry {
    at: Timestamp,
    /// By the clock that only runs forwards: when the client is to be told.
    notice: Moment,
    /// The leeway included.
    good_until: Moment,
    stage: Stage,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    /// The client was told; then the session ends.
    Told {
        ends: Moment,
    },
    /// It has ended, but nobody can renew it.
    Kept {
        look: Moment,
    },
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Tell(Timestamp),
    Keep,
    End,
}

impl Credential {
    pub(super) fn new(principal: Principal, timestamp: Timestamp, now: Moment) -> Self {
        let expiry = principal.claims().map(|claims| {
            let at = end_of(claims);
            let left_ms = at.millis_since(timestamp);
            let good_ms = at.plus_millis(TOKEN_LEEWAY_MS).millis_since(timestamp);
            let notice = now.plus_millis(left_ms.saturating_sub(NOTICE_MS).max(left_ms / 2));
            Expiry { at, notice, good_until: now.plus_millis(good_ms), stage: Stage::Fresh }
        });
        Self { principal, expiry }
    }

    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn next_deadline(&self) -> Option<Moment> {
        self.expiry.as_ref().map(|expiry| match expiry.stage {
            Stage::Fresh => expiry.notice,
            Stage::Told { ends } => ends,
            Stage::Kept { look } => look,
        })
    }

    /// One thing that is due; call again until there is none.
    fn due(&mut self, now: Moment, limits: &Limits, is_control_away: impl Fn() -> bool) -> Option<Due> {
        let expiry = self.expiry.as_mut()?;
        let kept_until = expiry.good_until.plus_secs(limits.auth_outage_grace_seconds);
        match expiry.stage {
            Stage::Fresh if now >= expiry.notice => {
                expiry.stage = Stage::Told { ends: expiry.good_until };
                Some(Due::Tell(expiry.at))
            }
            Stage::Told { ends } if now >= ends => {
                if now >= kept_until || !is_control_away() {
                    return Some(Due::End);
                }
                expiry.stage = Stage::Kept { look: now.plus_millis(LOOK_MS) };
                Some(Due::Keep)
            }
            Stage::Kept { look } if now >= look => {
                if now >= kept_until {
                    return Some(Due::End);
                }
                if is_control_away() {
                    expiry.stage = Stage::Kept { look: now.plus_millis(LOOK_MS) };
                    return None;
                }
                expiry.stage = Stage::Told { ends: now.plus_millis(AFTER_OUTAGE_MS) };
                Some(Due::Tell(expiry.at))
            }
            Stage::Fresh | Stage::Told { .. } | Stage::Kept { .. } => None,
        }
    }
}

impl Session {
    pub(super) fn look_at_credential(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        while let Some(due) = self.credential.due(world.now(), world.limits(), || world.is_control_away()) {
            match due {
                Due::Tell(expires_at) => {
                    let frame = AuthExpiring {
                        correlation_id: world.new_id(),
                        timestamp: world.timestamp(),
                        expires_at,
                    };
                    actions.push(Action::Send(frame.into()));
                }
                Due::Keep => actions.push(Action::KeptInOutage),
                Due::End => return self.end_denied(Denial::Expired, None, world, actions),
            }
        }
    }

    /// Ends what has been revoked. With another role, and nothing else changed, the session goes on with what that
    /// allows.
    pub(super) fn on_access(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        match world.standing(self.credential.principal()) {
            Standing::Good => {}
            Standing::Role { role, generation } => {
                self.credential.principal.change_role(role, generation);
                self.leave_forbidden(world, actions);
            }
            Standing::Revoked => self.end_denied(Denial::Revoked, None, world, actions),
        }
    }

    pub(super) fn on_auth_refresh(
        &mut self,
        frame: AuthRefresh,
        world: &impl World,
        actions: &mut Vec<Action>,
    ) {
        let AuthRefresh { correlation_id, token } = frame;
        let why = match self.credential.principal() {
            Principal::User(before) => {
                let renewed = world.verify(&token).and_then(|renewed| same_user(before, renewed));
                return match renewed {
                    Ok(renewed) => self.go_on_with(renewed, correlation_id, world, actions),
                    Err(denial) => self.end_denied(denial, correlation_id, world, actions),
                };
            }
            Principal::Shared(_) => "this node authenticates by static token",
            Principal::Anyone => "this node asks for no credential",
        };
        let message = format!("auth_refresh is not available: {why}");
        actions.push(error_frame(world, correlation_id, ErrorCode::InvalidMessage, message, None));
    }

    fn go_on_with(
        &mut self,
        vouched: Vouched,
        correlation_id: Option<CorrelationId>,
        world: &impl World,
        actions: &mut Vec<Action>,
    ) {
        let expires_at = end_of(&vouched.claims);
        let principal = Principal::User(Box::new(vouched));
        self.credential = Credential::new(principal, world.timestamp(), world.now());
        let frame = AuthRefreshed {
            correlation_id: correlation_id.unwrap_or_else(|| world.new_id()),
            timestamp: world.timestamp(),
            expires_at,
        };
        actions.push(Action::Refreshed);
        actions.push(Action::Send(frame.into()));
        self.leave_forbidden(world, actions);
    }

    fn end_denied(
        &mut self,
        denial: Denial,
        correlation_id: Option<CorrelationId>,
        world: &impl World,
        actions: &mut Vec<Action>,
    ) {
        let id = correlation_id.unwrap_or_else(|| world.new_id());
        actions.push(Action::Denied(denial, id.clone()));
        self.end(Ending { correlation_id: Some(id), ..Ending::new(denial.reason()) }, world, actions);
    }
}

/// A socket stays the one user's.
fn same_user(before: &Vouched, renewed: Vouched) -> Result<Vouched, Denial> {
    if renewed.claims.sub == before.claims.sub { Ok(renewed) } else { Err(Denial::Subject) }
}
