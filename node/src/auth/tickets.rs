//! Tickets: each opens one socket, once, soon. For pages that can carry nothing else, and in whose URL an
//! access token has no business.
//!
//! They are kept in memory, and only by the node that gave them: behind a balancer a client must come back
//! to the same node, or use another carrier.

use std::collections::{HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use uuid::Uuid;

use super::Principal;
use crate::time::Moment;

/// How long a ticket is good.
pub(crate) const TICKET_MS: u64 = 30_000;

/// Tickets that may be out at once: a storm of reconnects of a whole node in their time.
const TICKETS_MAX: usize = 10_000;

/// Bytes of a ticket at most that are looked for.
const TICKET_BYTES_MAX: usize = 64;

/// Those that are out.
#[derive(Default)]
pub(super) struct Tickets {
    /// Held for one step.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    out: HashMap<String, (Principal, Moment)>,
    /// In the order in which they end.
    ends: VecDeque<(Moment, String)>,
}

impl Tickets {
    /// A new one; none when too many are out.
    pub(super) fn issue(&self, principal: Principal, now: Moment) -> Option<String> {
        let mut state = self.state.lock();
        state.forget(now);
        // Used ones leave the table at once and the queue in their time, so both are bounded.
        if state.ends.len() >= TICKETS_MAX {
            return None;
        }
        // 244 random bits.
        let halves = [Uuid::new_v4(), Uuid::new_v4()];
        let ticket = URL_SAFE_NO_PAD.encode(halves.map(Uuid::into_bytes).concat());
        let end = now.plus_millis(TICKET_MS);
        state.ends.push_back((end, ticket.clone()));
        state.out.insert(ticket.clone(), (principal, end));
        Some(ticket)
    }

    /// Whose it is, and uses it up.
    pub(super) fn redeem(&self, ticket: &str, now: Moment) -> Option<Principal> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (principal, end) = self.state.lock().out.remove(ticket)?;
        (now < end).then_some(principal)
    }
}

impl State {
    fn forget(&mut self, now: Moment) {
        while let Some((end, ticket)) = self.ends.front()
            && *end <= now
        {
            self.out.remove(ticket);
            self.ends.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(tickets.issue(Principal::Anyone, at(0)).is_some());
        }
        assert_eq!(tickets.issue(Principal::Anyone, at(TICKET_MS - 1)), None);
        assert!(tickets.issue(Principal::Anyone, at(TICKET_MS)).is_some());
        assert_eq!(tickets.state.lock().out.len(), 1);
    }
}
