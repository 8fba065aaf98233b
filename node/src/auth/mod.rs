//! Who somebody is, and what they may do: the carriers of a credential, the access token, the roles, the
//! tickets. The HTTP surface and the sessions ask the [`Gate`]; nothing here opens a socket.
//!
//! What is decided is decided by pure parts, which take the time as an argument. A token is never logged,
//! and nothing that holds one shows it.

pub(crate) mod credentials;
mod denial;
mod gate;
mod outcome;
mod principal;
mod roles;
#[cfg(test)]
pub(crate) mod testing;
mod tickets;
mod token;

pub(crate) use denial::Denial;
pub(crate) use gate::Gate;
pub(crate) use outcome::{LoginRefusal, RefreshOutcome};
pub(crate) use principal::Principal;
pub(crate) use roles::Permission;
pub(crate) use tickets::{NoTicket, TICKET_MS};
pub(crate) use token::{Standing, Vouched, end_of};
