//! Where credentials are judged: by the static token, or by what the control view says of access tokens.
//! Shared by the HTTP surface and the shards.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hiveops_proto::control::AccessView;

use super::credentials::Found;
use super::tickets::{NoTicket, Tickets};
use super::token::{Standing, Verifier, Vouched};
use super::{Denial, Principal};
use crate::config::{Auth, AuthMode};
use crate::time::Clock;

/// Whether the control view may be out of date.
type Stale = Box<dyn Fn() -> bool + Send + Sync>;

/// The judge of credentials.
pub(crate) struct Gate {
    auth: Auth,
    clock: Clock,
    /// Prepared once per view.
    verifier: ArcSwap<Verifier>,
    tickets: Tickets,
    stale: Stale,
}

impl Gate {
    pub(crate) fn new(auth: Auth, view: &AccessView, clock: Clock, stale: Stale) -> Self {
        let verifier = ArcSwap::from_pointee(Verifier::new(view));
        Self { auth, clock, verifier, tickets: Tickets::default(), stale }
    }

    /// Puts what a view says in force. Called before the sessions hear of the view, so that none can come in
    /// by what it takes away.
    pub(crate) fn renew(&self, view: &AccessView) {
        self.verifier.store(Arc::new(Verifier::new(view)));
    }

    /// Who brings this credential, where one is needed.
    pub(crate) fn judge(&self, found: Found) -> Result<Principal, Denial> {
        if !self.auth.required {
            return Ok(Principal::Anyone);
        }
        match found {
            Found::None => Err(Denial::Missing),
            Found::Refused(denial) => Err(denial),
            Found::Token(token) => self.token(&token),
            Found::Ticket(ticket) => self.ticket(&ticket),
        }
    }

    /// Whose access token it is, whether or not tokens are what this node asks for.
    pub(crate) fn verify(&self, token: &str) -> Result<Vouched, Denial> {
        self.verifier.load().verify(token, self.clock.timestamp())
    }

    /// Whether what somebody came in with has been revoked since.
    pub(crate) fn is_revoked(&self, principal: &Principal) -> bool {
        self.standing(principal) != Standing::Good
    }

    /// What is left for a socket of what it came in with.
    pub(crate) fn standing(&self, principal: &Principal) -> Standing {
        let now = self.clock.timestamp();
        principal.vouched().map_or(Standing::Good, |vouched| self.verifier.load().standing(vouched, now))
    }

    /// Whether nobody can renew a credential just now, because control cannot be heard.
    pub(crate) fn is_control_away(&self) -> bool {
        (self.stale)()
    }

    /// A ticket for one socket, unless too many are out.
    pub(crate) fn issue_ticket(&self, principal: Principal) -> Result<String, NoTicket> {
        self.tickets.issue(principal, self.clock.moment())
    }

    fn token(&self, token: &str) -> Result<Principal, Denial> {
        match self.auth.mode {
            AuthMode::Token => match &self.auth.token {
                Some(secret) if secret.matches(token) => Ok(Principal::Shared(self.auth.role)),
                Some(_) | None => Err(Denial::Invalid),
            },
            AuthMode::Jwt => self.verify(token).map(|vouched| Principal::User(Box::new(vouched))),
        }
    }

    /// Whoever got it may have lost what they got it for.
    fn ticket(&self, ticket: &str) -> Result<Principal, Denial> {
        let principal = self.tickets.redeem(ticket, self.clock.moment()).ok_or(Denial::Ticket)?;
        if let Some(vouched) = principal.vouched() {
            self.verifier.load().check(vouched, self.clock.timestamp())?;
        }
        Ok(principal)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("auth", &self.auth).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use hiveops_proto::access::{AccessClaims, RevokedSubject, Role};

    use super::*;
    use crate::auth::testing::{self, claims, user};
    use crate::config::Secret;

    fn auth(mode: AuthMode) -> Auth {
        let token = (mode == AuthMode::Token).then(|| Secret::new("a-static-token-123".to_owned()));
        Auth { required: true, mode, token, role: Role::Operator, query_token: false }
    }

    /// A token that is good by the clock of the machine.
    fn fresh() -> AccessClaims {
        let now = Clock::start().timestamp().as_millis().unsigned_abs() / 1_000;
        AccessClaims { iat: now, exp: now + 600, ..claims("ada", Role::Viewer) }
    }

    fn gate(auth: Auth) -> Gate {
        Gate::new(auth, &testing::view(), Clock::start(), Box::new(|| false))
    }

    fn token(text: &str) -> Found {
        Found::Token(text.to_owned())
    }

    #[test]
    fn a_mode_takes_its_own_credential_and_not_the_others() {
        let fresh = fresh();
        let signed = testing::sign(&fresh);
        let by_token = gate(auth(AuthMode::Token));
        assert_eq!(by_token.judge(token("a-static-token-123")), Ok(Principal::Shared(Role::Operator)));
        assert_eq!(by_token.judge(token(&signed)), Err(Denial::Invalid));
        let by_jwt = gate(auth(AuthMode::Jwt));
        assert_eq!(by_jwt.judge(token(&signed)), Ok(user(fresh)));
        assert_eq!(by_jwt.judge(token("a-static-token-123")), Err(Denial::Malformed));
        for gate in [by_token, by_jwt] {
            assert_eq!(gate.judge(Found::None), Err(Denial::Missing));
            assert_eq!(gate.judge(Found::Refused(Denial::Origin)), Err(Denial::Origin));
        }
        let open = gate(Auth { required: false, ..auth(AuthMode::Jwt) });
        assert_eq!(open.judge(Found::Refused(Denial::Invalid)), Ok(Principal::Anyone));
    }

    #[test]
    fn a_ticket_is_worth_what_its_holder_is_worth_when_it_is_used() {
        let gate = gate(auth(AuthMode::Jwt));
        let user = user(fresh());
        let [first, second] = [0, 1].map(|_| gate.issue_ticket(user.clone()).unwrap());
        let ticket = |text: &str| gate.judge(Found::Ticket(text.to_owned()));
        assert_eq!(ticket(&first), Ok(user.clone()));
        assert_eq!(ticket(&first), Err(Denial::Ticket));
        assert!(!gate.is_revoked(&user));
        gate.renew(&testing::revoked(RevokedSubject::Family { family: "f1".parse().unwrap() }));
        assert!(gate.is_revoked(&user));
        assert_eq!(ticket(&second), Err(Denial::Revoked));
        assert_eq!(ticket("../x"), Err(Denial::Ticket));
    }
}
