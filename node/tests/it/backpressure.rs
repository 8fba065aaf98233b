//! What a client that stops reading gets, and what it cannot do to others: the outbox and backpressure of
//! section 6, and the latest value per key of section 5.
//!
//! All nodes here have one shard, so that what a good reader has got was due to the bad one as well.

mod events;
mod falling_behind;
mod updates;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::{Node, Socket, soon};

/// A subscription that carries events and updates, and on which the node itself publishes nothing.
const SUBSCRIPTION: &str = "project_index";
const EVENT: &str = "project_index_event";
const UPDATE: &str = "project_index_update";

const PATH: &str = "dashboard?subscriptions=project_index";
const CLOSED: &str = r#"hiveops_ws_backpressure_disconnects_total{reason="outbox_full"}"#;
const FAILURES: &str = "hiveops_ws_messages_send_failures_total";
const OUTBOX: &str = "hiveops_ws_outbox_frames";

/// What the client's kernel may hold for it: little, so that what the node holds is what matters.
const RECEIVE_BYTES: u32 = 32 * 1_024;

/// Bytes of padding in most publications: some ten of them fill the kernel's buffers.
const LARGE: usize = 40_000;

async fn start(settings: &[(&str, &str)]) -> Node {
    Node::start(&[settings, &[("HIVEOPS_SHARDS", "1")]].concat()).await
}

/// Connects a client that reads only when the test says so.
async fn connect_slow(node: &Node) -> Socket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    let stream = soon("a connection", socket.connect(node.address)).await.unwrap();
    let url = format!("ws://{}/api/dashboard/ws/{PATH}", node.address);
    let handshake =
        tokio_tungstenite::client_async(url.into_client_request().unwrap(), MaybeTlsStream::Plain(stream));
    let (stream, _) = soon("a handshake", handshake).await.unwrap();
    Socket { stream }
}

/// The same, with its first frames and its empty snapshot read.
async fn joined_slow(node: &Node) -> Socket {
    let mut socket = connect_slow(node).await;
    socket.expect("connection_established").await;
    socket.expect("dashboard_initialized").await;
    socket.expect("snapshot").await;
    socket
}

/// A publication and a number to know it by.
fn data(id: &str, number: u64, padding: usize) -> Value {
    json!({"id": id, "number": number, "pad": "x".repeat(padding)})
}

/// What a client knows of the subscription, by the rule for clients: each frame follows the one before it
/// or an omission that was announced, else there is a gap, which is a bug here.
#[derive(Default)]
struct Follower {
    /// Up to where everything is known or known to be left out.
    seq: u64,
    values: BTreeMap<String, u64>,
    events: Vec<u64>,
    /// Publications that were announced as left out.
    omitted: u64,
}

impl Follower {
    fn take(&mut self, frame: &Value) {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("not a number in {value}"));
        match frame["type"].as_str().unwrap() {
            "snapshot" => {
                for item in frame["items"].as_array().unwrap() {
                    let key = item["key"].as_str().unwrap().to_owned();
                    self.values.insert(key, number(&item["data"]["number"]));
                }
                self.seq = number(&frame["seq"]);
            }
            "coalesced" => {
                let (from, to) = (number(&frame["from_seq"]), number(&frame["to_seq"]));
                assert_eq!(from, self.seq + 1, "an omission begins after what is known");
                assert_eq!(number(&frame["count"]), to + 1 - from);
                self.omitted += to + 1 - from;
                self.seq = to;
            }
            kind @ (EVENT | UPDATE) => {
                assert_eq!(number(&frame["prev_seq"]), self.seq, "a gap without a word");
                self.seq = number(&frame["seq"]);
                let value = number(&frame["data"]["number"]);
                if kind == EVENT {
                    self.events.push(value);
                } else {
                    self.values.insert(frame["data"]["id"].as_str().unwrap().to_owned(), value);
                }
            }
            _ => {}
        }
    }

    /// Reads up to this position.
    async fn read_to(&mut self, socket: &mut Socket, seq: u64) {
        while self.seq < seq {
            let frame = socket.next().await;
            self.take(&frame);
        }
        assert_eq!(self.seq, seq);
    }
}

/// Publishes one, and lets the good reader have it before the next, so that only the bad one is slow.
async fn publish(node: &Node, message_type: &str, data: Value, good: &mut (Socket, Follower)) -> u64 {
    let reply = node.publish(SUBSCRIPTION, message_type, data).await;
    let seq = reply["seq"].as_u64().unwrap();
    let (socket, follower) = good;
    follower.read_to(socket, seq).await;
    assert_eq!(follower.omitted, 0, "a reader that keeps up gets everything");
    seq
}

async fn good_reader(node: &Node) -> (Socket, Follower) {
    (Socket::joined(node, PATH).await, Follower::default())
}
