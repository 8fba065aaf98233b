//! What the floor understands and says, without its sockets: the handshake, the broadcast route, and the
//! frames of the contract that the load waits for.

use std::collections::BTreeMap;

use hiveops_proto::frame::{ConnectionInfo, DashboardInitialized, Publication};
use hiveops_proto::http::BroadcastReply;
use hiveops_proto::path::{self, Endpoint};
use hiveops_proto::{
    ConnectionId, ContractVersion, CorrelationId, Epoch, MessageType, NodeId, Payload, ServerFrame,
    SubscriptionName, SubscriptionSet, Timestamp,
};

use crate::http::{header, split_head};
use crate::wire::{Opcode, server_frame};

/// What the floor prints before its address.
pub(crate) const LISTENING: &str = "floor listening on ";

/// The floor keeps no calendar: its timestamps have the length of real ones and mean nothing.
const TIMESTAMP_MILLIS: i64 = 1_750_000_000_123;

/// What a client wants.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    Upgrade { path: String },
    Publish { subscription: SubscriptionName, message_type: MessageType, data: Payload },
    Other,
}

impl Request {
    /// The first request in `bytes` and its length; `None` while it is incomplete.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (head, body_at) = split_head(bytes)?;
        let length = header(head, "content-length").map_or(Some(0), |length| length.parse().ok());
        let Some(end) = length.and_then(|length: usize| body_at.checked_add(length)) else {
            return Some((Self::Other, bytes.len()));
        };
        let body = bytes.get(body_at..end)?;
        Some((Self::read(head, body).unwrap_or(Self::Other), end))
    }

    fn read(head: &str, body: &[u8]) -> Option<Self> {
        let mut line = head.lines().next()?.split(' ');
        let (method, target) = (line.next()?, line.next()?);
        if method == "GET" && header(head, "upgrade")?.eq_ignore_ascii_case("websocket") {
            return Some(Self::Upgrade { path: target.to_owned() });
        }
        let (route, query) = target.split_once('?')?;
        if method != "POST" || route != path::WS_BROADCAST {
            return None;
        }
        Some(Self::Publish {
            subscription: SubscriptionName::new(parameter(query, "subscription")?).ok()?,
            message_type: MessageType::new(parameter(query, "message_type")?).ok()?,
            data: Payload::parse(std::str::from_utf8(body).ok()?).ok()?,
        })
    }
}

/// The value of one query parameter; names and lists of names need no decoding.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// One publication and the frame that every socket gets.
pub(crate) struct Published {
    publication: Publication,
    pub(crate) frame: String,
}

/// Makes the floor's answers, and whole frames for servers that only pass them on.
pub(crate) struct Responder {
    epoch: Epoch,
    node_id: NodeId,
    /// The last place in the log of each subscription.
    seqs: BTreeMap<SubscriptionName, u64>,
    published: u64,
    sessions: u64,
}

impl Responder {
    pub(super) const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

    pub(crate) fn new() -> Self {
        Self {
            epoch: Epoch::new("floor").expect("five lower-case letters are an epoch"),
            node_id: NodeId::new("floor").expect("five letters are a node id"),
            seqs: BTreeMap::new(),
            published: 0,
            sessions: 0,
        }
    }

    /// The answer to a handshake and, right behind it, the frame that completes the session; and what it has
    /// joined.
    pub(super) fn upgraded(&mut self, target: &str) -> (Vec<u8>, SubscriptionSet) {
        self.sessions += 1;
        let (route, query) = target.split_once('?').unwrap_or((target, ""));
        let endpoint = Endpoint::ALL.iter().find(|endpoint| endpoint.path() == route);
        let endpoint = endpoint.copied().unwrap_or(Endpoint::Dashboard);
        let subscriptions: SubscriptionSet = match parameter(query, "subscriptions") {
            Some(names) => names.split(',').filter_map(|name| SubscriptionName::new(name).ok()).collect(),
            None => endpoint.default_subscriptions().iter().filter_map(|name| name.parse().ok()).collect(),
        };
        let frame = ServerFrame::from(DashboardInitialized {
            correlation_id: correlation_id(self.sessions),
            timestamp: Timestamp::from_millis(TIMESTAMP_MILLIS),
            subscriptions: subscriptions.clone(),
            connection_info: ConnectionInfo {
                connection_id: ConnectionId::new(&format!("floor-{}", self.sessions))
                    .expect("letters and digits are a connection id"),
                connection_type: endpoint.as_str().to_owned(),
                connected_at: Timestamp::from_millis(TIMESTAMP_MILLIS),
                node_id: self.node_id.clone(),
            },
            contract_version: contract_version(),
            positions: Default::default(),
            recovered: Default::default(),
        });
        let mut bytes =
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n".to_vec();
        bytes.extend(server_frame(Opcode::Text, json(&frame).as_bytes()));
        (bytes, subscriptions)
    }

    /// The next publication, encoded.
    pub(crate) fn publication(
        &mut self,
        subscription: SubscriptionName,
        message_type: MessageType,
        data: Payload,
    ) -> Published {
        self.published += 1;
        let seq = self.seqs.entry(subscription.clone()).or_default();
        *seq += 1;
        let seq = *seq;
        let publication = Publication {
            message_type,
            correlation_id: correlation_id(self.published),
            source_correlation_id: None,
            timestamp: Timestamp::from_millis(TIMESTAMP_MILLIS),
            subscription,
            epoch: self.epoch.clone(),
            seq,
            prev_seq: seq - 1,
            replayed: false,
            data,
        };
        Published { frame: json(&publication), publication }
    }

    /// The answer to the publisher.
    pub(super) fn published(&self, published: &Published, clients_reached: u64) -> Vec<u8> {
        let Publication { subscription, message_type, correlation_id, epoch, seq, timestamp, .. } =
            published.publication.clone();
        let body = json(&BroadcastReply {
            success: true,
            subscription,
            message_type,
            clients_reached,
            scope: "node".to_owned(),
            correlation_id,
            epoch,
            seq,
            duplicate: false,
            timestamp,
        });
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    }
}

/// As long as a UUID, so that the frames are as long as real ones.
fn correlation_id(number: u64) -> CorrelationId {
    CorrelationId::new(&format!("{number:036}")).expect("digits are a correlation id")
}

fn contract_version() -> ContractVersion {
    let contract = hiveops_proto::Contract::parse(hiveops_proto::CONTRACT);
    contract.expect("the tests of proto parse the built-in contract").version
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("frames are maps with text keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISH: &str = "POST /api/dashboard/websocket/broadcast?subscription=tasks&message_type=task_event \
                           HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

    #[test]
    fn a_request_is_whole_or_not_there() {
        for split in 0..PUBLISH.len() {
            assert_eq!(Request::parse(&PUBLISH.as_bytes()[..split]), None, "split at {split}");
        }
        let (request, used) = Request::parse(PUBLISH.as_bytes()).unwrap();
        assert!(matches!(request, Request::Publish { .. }), "{request:?}");
        assert_eq!(used, PUBLISH.len());
    }

    #[test]
    fn what_is_neither_handshake_nor_publication_is_other() {
        for head in [
            "GET / HTTP/1.1",
            "POST /x?subscription=tasks&message_type=task_event HTTP/1.1",
            "\u{0}",
            "GET / HTTP/1.1\r\nContent-Length: x",
        ] {
            let bytes = format!("{head}\r\n\r\n");
            assert!(matches!(Request::parse(bytes.as_bytes()), Some((Request::Other, _))), "{head}");
        }
    }

    #[test]
    fn the_answers_are_those_of_the_contract() {
        let mut responder = Responder::new();
        let name = SubscriptionName::new("tasks").unwrap();
        let kind = MessageType::new("task_event").unwrap();
        let published = responder.publication(name, kind, Payload::parse("{\"a\":1}").unwrap());
        assert!(matches!(serde_json::from_str(&published.frame), Ok(ServerFrame::Publication(_))));
        let answer = responder.published(&published, 3);
        let (head, body_at) = split_head(&answer).unwrap();
        assert_eq!(crate::http::status(head), Some(200));
        let reply: BroadcastReply = serde_json::from_slice(&answer[body_at..]).unwrap();
        assert_eq!((reply.clients_reached, reply.seq), (3, 1));
    }
}
