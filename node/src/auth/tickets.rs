//! Tickets: each opens one socket, once, soon. For pages that can carry nothing else, and in whose URL an
//! access token has no business.
//!
//! They are kept in memory, and only by the node that gave them: behind a balancer a client must come back
//! to the same node, or use another carrier.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::id::UserId;
use parking_lot::Mutex;
use uuid::Uuid;

use super::Principal;
use crate::time::Moment;

/// How long a ticket is good.
pub(crate) const TICKET_MS: u64 = 30_000;

/// Tickets that may be out at once: a storm of reconnects of a whole node in their time.
const TICKETS_MAX: usize = 10_000;

/// Of those, how many one user may have: all pages of somebody who has many of them open, at the same moment.
const TICKETS_PER_USER_MAX: usize = 32;

/// Bytes of a ticket at most that are looked for.
const TICKET_BYTES_MAX: usize = 64;

/// Why there is no ticket, and how long until there is room for one at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoTicket {
    /// The user has as many as one may have.
    User { retry_after_ms: u64 },
    /// The node has given as many as it keeps.
    Node { retry_after_ms: u64 },
}

impl NoTicket {
    /// The words of its variants, which are labels beside those of denials.
    pub(crate) const WORDS: [&str; 2] = ["tickets_of_user", "tickets_of_node"];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User { .. } => Self::WORDS[0],
            Self::Node { .. } => Self::WORDS[1],
        }
    }
}

/// Those that are out.
#[derive(Default)]
pub(super) struct Tickets {
    /// Held for one step.
    state: Mutex<State>,
}

/// What was used, or has ended, is in none of the three.
#[derive(Default)]
struct State {
    out: HashMap<String, (Principal, Moment)>,
    /// In the order in which they end.
    ends: BTreeSet<(Moment, String)>,
    /// When those of each user end, the first one first.
    of_user: HashMap<UserId, Vec<Moment>>,
}

impl Tickets {
    /// A new one.
    pub(super) fn issue(&self, principal: Principal, now: Moment) -> Result<String, NoTicket> {
        let mut state = self.state.lock();
        state.forget(now);
        let own = principal.user().and_then(|user| state.of_user.get(user));
        if let Some(own) = own
            && own.len() >= TICKETS_PER_USER_MAX
        {
            let retry_after_ms = own.first().map_or(TICKET_MS, |end| end.millis_since(now));
            return Err(NoTicket::User { retry_after_ms });
        }
        if state.out.len() >= TICKETS_MAX {
            let retry_after_ms = state.ends.first().map_or(TICKET_MS, |(end, _)| end.millis_since(now));
            return Err(NoTicket::Node { retry_after_ms });
        }
        // 244 random bits.
        let halves = [Uuid::new_v4(), Uuid::new_v4()];
        let ticket = URL_SAFE_NO_PAD.encode(halves.map(Uuid::into_bytes).concat());
        state.add(ticket.clone(), principal, now.plus_millis(TICKET_MS));
        Ok(ticket)
    }

    /// Whose it is, and uses it up.
    pub(super) fn redeem(&self, ticket: &str, now: Moment) -> Option<Principal> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (principal, end) = self.state.lock().remove(ticket)?;
        (now < end).then_some(principal)
    }
}

impl State {
    fn add(&mut self, ticket: String, principal: Principal, end: Moment) {
        if let Some(user) = principal.user() {
            self.of_user.entry(user.clone()).or_default().push(end);
        }
        self.ends.insert((end, ticket.clone()));
        self.out.insert(ticket, (principal, end));
    }

    fn remove(&mut self, ticket: &str) -> Option<(Principal, Moment)> {
        let (principal, end) = self.out.remove(ticket)?;
        self.ends.remove(&(end, ticket.to_owned()));
        if let Some(user) = principal.user()
            && let Some(own) = self.of_user.get_mut(user)
        {
            // Which of several that end at once does not matter.
            if let Some(at) = own.iter().position(|known| *known == end) {
                own.remove(at);
            }
            if own.is_empty() {
                self.of_user.remove(user);
            }
        }
        Some((principal, end))
    }

    fn forget(&mut self, now: Moment) {
        while let Some((_, ticket)) = self.ends.first().filter(|(end, _)| *end <= now).cloned() {
            self.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use hiveops_proto::access::Role;

    use super::*;
    use crate::auth::testing::{claims, user};

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn a_ticket_opens_one_door_once_and_in_time() {
        let tickets = Tickets::default();
        let [first, second] = [0, 1].map(|ms| tickets.issue(Principal::Anyone, at(ms)).unwrap());
        assert_ne!(first, second);
        assert_eq!(tickets.redeem(&first, at(TICKET_MS - 1)), Some(Principal::Anyone));
        assert_eq!(tickets.redeem(&first, at(TICKET_MS - 1)), None);
        assert_eq!(tickets.redeem(&second, at(TICKET_MS + 1)), None);
        assert_eq!(tickets.redeem("", at(0)), None);
        assert_eq!(tickets.redeem(&"x".repeat(10_000), at(0)), None);
    }

    #[test]
    fn only_so_many_are_out_and_the_old_ones_make_room() {
        let tickets = Tickets::default();
        for _ in 0..TICKETS_MAX {
            assert!(tickets.issue(Principal::Anyone, at(0)).is_ok());
        }
        let full = NoTicket::Node { retry_after_ms: 1 };
        assert_eq!(tickets.issue(Principal::Anyone, at(TICKET_MS - 1)), Err(full));
        assert!(tickets.issue(Principal::Anyone, at(TICKET_MS)).is_ok());
        assert_eq!(tickets.state.lock().out.len(), 1);
    }

    #[test]
    fn one_user_has_a_share_of_them_and_what_is_used_or_has_ended_makes_room() {
        let tickets = Tickets::default();
        let [ada, bob] = ["ada", "bob"].map(|name| user(claims(name, Role::Viewer)));
        let issue = |ms| tickets.issue(ada.clone(), at(ms));
        let first: Vec<String> = (0..TICKETS_PER_USER_MAX as u64).map(|ms| issue(ms).unwrap()).collect();
        assert_eq!(issue(1_000), Err(NoTicket::User { retry_after_ms: TICKET_MS - 1_000 }));
        assert!(tickets.issue(bob, at(1_000)).is_ok(), "others have theirs");
        assert_eq!(tickets.redeem(&first[7], at(1_000)), Some(ada.clone()));
        assert!(issue(1_000).is_ok() && issue(1_001).is_err());
        assert!(issue(TICKET_MS).is_ok(), "the first has ended");
        assert!(issue(TICKET_MS).is_err());
        assert!(issue(3 * TICKET_MS).is_ok());
        let state = tickets.state.lock();
        assert_eq!((state.out.len(), state.ends.len(), state.of_user.len()), (1, 1, 1));
    }
}
