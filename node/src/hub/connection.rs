//! One accepted socket as a shard holds it: what reads it, who it is, what waits for it.

use hiveops_proto::DisconnectReason;

use super::pending::Pending;
use super::registry::Registration;
use super::socket::Socket;
use crate::catalog::{SubId, SubMask};
use crate::session::Session;
use crate::time::Moment;
use crate::ws::closing::Closing;
use crate::ws::{Coding, Parser};

/// One connection. An idle one is this and nothing on the heap but its session.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) parser: Parser,
    /// What was agreed on about compression.
    pub(super) coding: Coding,
    pub(super) role: Role,
    /// Its name and its share of the caps; refused connections have none.
    pub(super) registration: Option<Registration>,
    /// Where it stands in the list of each subscription that it is joined to.
    pub(super) places: Vec<(SubId, u32)>,
    /// Joined subscriptions that take live frames: neither catching up nor behind.
    pub(super) live: SubMask,
    /// What waits for the socket; none while the socket takes all.
    pub(super) pending: Option<Box<Pending>>,
    /// When the socket last took everything of a fan-out, until the session is told: a delivery need not
    /// touch the session, which lies elsewhere in memory.
    pub(super) sent_at: Option<Moment>,
    /// The last fan-out that has seen it.
    pub(super) visited: u64,
    /// Tells its timer from that of an earlier holder of the same key, and from one set before a change.
    pub(super) generation: u32,
    /// Whether it stands in the list of those that have more to read.
    pub(super) again: bool,
    /// Why it ended, once it is only to be removed.
    pub(super) gone: Option<DisconnectReason>,
}

/// What a connection is there for.
pub(super) enum Role {
    Session(Box<Session>),
    /// It is being closed.
    Closing(Closing),
    /// Sends back what it gets: for conformance tests of the codec only.
    #[cfg(feature = "echo-endpoint")]
    Echo,
}

impl Connection {
    pub(super) fn pending(&mut self) -> &mut Pending {
        let coding = self.coding;
        self.pending.get_or_insert_with(|| Box::new(Pending::new(coding)))
    }

    /// Tells the session what it was sent meanwhile.
    pub(super) fn tell_sent(&mut self) {
        if let Some(at) = self.sent_at.take()
            && let Role::Session(session) = &mut self.role
        {
            session.sent(at);
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.tell_sent();
        match &mut self.role {
            Role::Session(session) => Some(session),
            Role::Closing(..) => None,
            #[cfg(feature = "echo-endpoint")]
            Role::Echo => None,
        }
    }
}
