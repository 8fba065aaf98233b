//! One connection, as a pure machine: events and the time go in, actions come out.
//!
//! It knows no socket, no clock and no other session. The shard that owns it reads for it, carries out
//! its actions in their order, and tells it how sending went.

mod credential;
mod message;
mod open;
mod rate;
mod subscribe;
mod timers;

use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::ControlView;
use hiveops_proto::frame::{DisconnectNotice, ErrorFrame};
use hiveops_proto::path::Endpoint;
use hiveops_proto::{
    ConnectionId, CorrelationId, DisconnectReason, ErrorCode, Limits, NodeId, Payload, Position, Positions,
    ServerFrame, Timestamp,
};

use crate::auth::{Denial, Principal, Standing, Vouched};
use crate::catalog::{Catalog, SubId, SubMask};
use crate::time::Moment;

use credential::Credential;
use rate::TokenBucket;
use timers::Timers;

/// What a session may ask of the node while it handles an event.
pub(crate) trait World {
    fn catalog(&self) -> &Catalog;
    fn control(&self) -> &ControlView;
    fn node_id(&self) -> &NodeId;
    /// The head of a log.
    fn position(&self, sub: SubId) -> Position;
    /// How far the session has been sent a subscription; none while it gets a snapshot or a replay. A
    /// client that is told a later position would take what still waits for it as lost.
    fn sent_position(&self, sub: SubId) -> Option<Position>;
    /// Whether everything after `since` can be sent again.
    fn can_continue(&self, sub: SubId, since: &Position) -> bool;
    /// Whether the bus has proved lately that it delivers.
    fn bus_live(&self) -> bool;
    fn now(&self) -> Moment;
    fn timestamp(&self) -> Timestamp;
    fn new_id(&self) -> CorrelationId;
    /// The data of a `request_data`, or why there is none.
    fn answer(&self, request: &Request<'_>) -> Result<Payload, (ErrorCode, String)>;
    /// Whose access token it is.
    fn verify(&self, token: &str) -> Result<Vouched, Denial>;
    /// What is left of what somebody came in with.
    fn standing(&self, principal: &Principal) -> Standing;
    /// Whether control cannot be heard, so that nobody can renew a credential.
    fn is_control_away(&self) -> bool;

    fn limits(&self) -> &Limits {
        &self.control().limits
    }
}

/// What a client asked for with `request_data`.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) data_type: hiveops_proto::frame::DataType,
    pub(crate) params: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// What happened to a session.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A text message arrived whole.
    Text(&'a str),
    /// A text message over the soft cap was read past.
    TooLarge,
    /// A binary message arrived.
    Binary,
    /// A protocol ping arrived; it is the shell that answers those the session allows.
    Ping,
    /// A protocol pong arrived.
    Pong,
    /// A deadline may have passed.
    Tick,
    /// A frame could neither be queued nor take the place of an older one.
    SendFailed,
    /// Somebody else ends the session.
    Disconnect(Ending),
    /// Another contract version is in force, or others are supported.
    Contract,
    /// Control says something else of who may come in.
    Access,
}

/// How a session is ended, and what its client is told.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) reason: DisconnectReason,
    pub(crate) detail: Option<String>,
    pub(crate) retry_after_ms: Option<u64>,
    /// Follows whoever asked for it into the notice; made when nobody did.
    pub(crate) correlation_id: Option<CorrelationId>,
}

impl Ending {
    pub(crate) fn new(reason: DisconnectReason) -> Self {
        Self { reason, detail: None, retry_after_ms: None, correlation_id: None }
    }

    pub(crate) fn with_detail(reason: DisconnectReason, detail: String) -> Self {
        Self { detail: Some(detail), ..Self::new(reason) }
    }
}

/// What the shell is to do, in this order.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Send a frame.
    Send(ServerFrame),
    /// Put the session on the subscription's list and send what it has missed.
    Join(SubId, Start),
    /// Take it off the list.
    Leave(SubId),
    /// Count the message that is being handled as dropped by the inbound rate.
    Dropped,
    /// Count and log that something was refused for what the client is, or is not.
    Denied(Denial, CorrelationId),
    /// Count that the credential was renewed.
    Refreshed,
    /// Count that the session is kept although its credential has ended.
    KeptInOutage,
    /// Answer the protocol ping that is being handled.
    Pong,
    /// Send a protocol ping.
    Ping,
    /// Send the close frame and let the session end.
    Close(DisconnectReason),
}

/// Where a joined subscription begins for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the whole state.
    Snapshot,
    /// After this publication of the log's present epoch.
    After(u64),
}

/// How a session came to be.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) connection_id: ConnectionId,
    /// The name the client wished for, when another session holds it.
    pub(crate) refused_id: Option<ConnectionId>,
    pub(crate) endpoint: Endpoint,
    /// The names in the query; the route's own when there were none.
    pub(crate) subscriptions: Option<Vec<String>>,
    pub(crate) since: Positions,
    /// The contract version in the query.
    pub(crate) wanted_version: Option<WantedVersion>,
    /// Whoever its credential showed.
    pub(crate) principal: Principal,
    pub(crate) correlation_id: CorrelationId,
}

/// The contract version that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WantedVersion {
    Version(ContractVersion),
    /// Something that is no version; it is not supported either.
    Other(String),
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    connection_id: ConnectionId,
    endpoint: Endpoint,
    connected_at: Timestamp,
    joined: SubMask,
    /// The contract version that it asked for, as long as that is served.
    version: Option<ContractVersion>,
    credential: Credential,
    bucket: TokenBucket,
    timers: Timers,
    send_failures: u32,
    /// [`Action::Close`] was given: nothing may follow it.
    ended: bool,
}

impl Session {
    pub(crate) fn connection_id(&self) -> &ConnectionId {
        &self.connection_id
    }

    #[cfg(test)]
    pub(crate) fn joined(&self) -> SubMask {
        self.joined
    }

    /// Takes one event and says what is to be done; nothing any more once it has said to close.
    pub(crate) fn handle(&mut self, event: Event<'_>, world: &impl World, actions: &mut Vec<Action>) {
        if self.ended {
            return;
        }
        match event {
            Event::Text(text) => self.on_text(text, world, actions),
            Event::TooLarge => self.on_too_large(world, actions),
            Event::Binary => self.close(DisconnectReason::BinaryUnsupported, actions),
            Event::Ping => self.on_ping(world, actions),
            Event::Pong => self.timers.on_pong(world.now(), world.limits()),
            Event::Tick => self.on_tick(world, actions),
            Event::SendFailed => self.on_send_failed(world, actions),
            Event::Disconnect(ending) => self.end(ending, world, actions),
            Event::Contract => self.on_contract(world, actions),
            Event::Access => self.on_access(world, actions),
        }
    }

    /// When the next [`Event::Tick`] is due.
    pub(crate) fn next_deadline(&self, limits: &Limits) -> Moment {
        let deadline = self.timers.next_deadline(limits);
        self.credential.next_deadline().map_or(deadline, |due| due.min(deadline))
    }

    /// Whether a message that comes now would be dropped, whatever it says.
    pub(crate) fn is_over_rate(&mut self, limits: &Limits, now: Moment) -> bool {
        self.bucket.is_empty(limits, now)
    }

    /// A frame left for the socket, or got a place in the outbox.
    pub(crate) fn sent(&mut self, now: Moment) {
        self.send_failures = 0;
        self.timers.on_sent(now);
    }

    /// The peer took bytes that had been waiting: slow, but there.
    pub(crate) fn progressed(&mut self, now: Moment) {
        self.timers.on_progress(now);
    }

    fn on_send_failed(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        self.send_failures += 1;
        if u64::from(self.send_failures) >= world.limits().backpressure_disconnect_threshold {
            let detail = format!("{} frames in a row could not be queued", self.send_failures);
            self.end(Ending::with_detail(DisconnectReason::Backpressure, detail), world, actions);
        }
    }

    /// The notice, then the close.
    fn end(&mut self, ending: Ending, world: &impl World, actions: &mut Vec<Action>) {
        let Ending { reason, detail, retry_after_ms, correlation_id } = ending;
        let notice = DisconnectNotice {
            correlation_id: correlation_id.unwrap_or_else(|| world.new_id()),
            timestamp: world.timestamp(),
            reason,
            code: reason.close_code(),
            retry_after_ms,
            detail,
        };
        actions.push(Action::Send(notice.into()));
        self.close(reason, actions);
    }

    fn close(&mut self, reason: DisconnectReason, actions: &mut Vec<Action>) {
        self.ended = true;
        actions.push(Action::Close(reason));
    }
}

/// The one place where `error` frames are made.
fn error_frame(
    world: &impl World,
    correlation_id: Option<CorrelationId>,
    code: ErrorCode,
    message: String,
    retry_after_ms: Option<u64>,
) -> Action {
    let frame = ErrorFrame {
        correlation_id: correlation_id.unwrap_or_else(|| world.new_id()),
        timestamp: world.timestamp(),
        message,
        code,
        retry_after_ms,
    };
    Action::Send(frame.into())
}

#[cfg(test)]
mod tests;
