//! A node that does what a test says: accepts, sends these frames, expects those messages, closes.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hiveops_client::{Client, Event, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Only what hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Node {
    listener: TcpListener,
}

/// One accepted connection.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub(crate) query: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(format!("http://{}", self.listener.local_addr().unwrap()))
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let mut seen = None;
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let note = |request: &Request, response: Response| {
            let authorization = request.headers().get("authorization");
            let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
            let uri = request.uri();
            let query = uri.query().unwrap_or_default().replace("%3A", ":").replace("%2C", ",");
            seen = Some((query, uri.path().to_owned(), authorization));
            Ok(response)
        };
        let socket = timeout(PATIENCE, accept_hdr_async(stream, note)).await.unwrap().unwrap();
        let (query, path, authorization) = seen.unwrap();
        Peer { socket, query, path, authorization }
    }

    /// Answers the next handshake with this HTTP response instead.
    pub(crate) async fn refuse(&self, response: &str) {
        let (mut stream, _) = timeout(PATIENCE, self.listener.accept()).await.unwrap().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(response.as_bytes()).await.unwrap();
    }

    /// A client and its connection, joined to `tasks` at e1:5 with an empty snapshot.
    pub(crate) async fn live(&self, options: Options) -> (Client, Peer) {
        let (client, mut peer) = tokio::join!(Client::connect(options), self.accept());
        let mut client = client.unwrap();
        peer.begin(5, false).await;
        peer.send(snapshot(5)).await;
        assert!(matches!(next(&mut client).await, Event::Connected { .. }));
        assert!(matches!(next(&mut client).await, Event::Frame(_)));
        assert!(matches!(next(&mut client).await, Event::Snapshot { .. }));
        (client, peer)
    }
}

impl Peer {
    /// The first two frames: `tasks` is joined and its head is `seq`.
    pub(crate) async fn begin(&mut self, seq: u64, recovered: bool) {
        self.send(json!({
            "type": "connection_established", "connection_id": "s1", "subscriptions": ["tasks"],
            "server_time": "2026-01-01T00:00:00Z", "node_id": "n1", "contract_version": "1.0.0",
            "supported_versions": ["1.0.0"], "limits": {
                "rate_limit_tokens_per_second": 20, "rate_limit_burst_capacity": 40,
                "rate_limit_notify_cooldown_seconds": 5, "max_inbound_message_bytes": 65536,
                "max_subscriptions_per_connection": 10, "idle_disconnect_seconds": 60,
                "heartbeat_silence_seconds": 25,
            },
        }))
        .await;
        self.send(json!({
            "type": "dashboard_initialized", "subscriptions": ["tasks"], "contract_version": "1.0.0",
            "connection_info": {
                "connection_id": "s1", "connection_type": "dashboard", "node_id": "n1",
                "connected_at": "2026-01-01T00:00:00Z",
            },
            "positions": {"tasks": {"epoch": "e1", "seq": seq}}, "recovered": {"tasks": recovered},
        }))
        .await;
    }

    pub(crate) async fn send(&mut self, mut frame: Value) {
        if frame["correlation_id"].is_null() {
            frame["correlation_id"] = json!("c1");
        }
        frame["timestamp"] = json!("2026-01-01T00:00:00Z");
        self.send_raw(Message::text(frame.to_string())).await;
    }

    pub(crate) async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    pub(crate) async fn close(mut self, code: u16, reason: &'static str) {
        self.socket
            .send(Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() })))
            .await
            .unwrap();
    }

    /// The next message of the client. `client` is driven meanwhile; `None` when it has ended.
    pub(crate) async fn receive(&mut self) -> Option<Value> {
        match timeout(PATIENCE, self.socket.next()).await.expect("the client says nothing") {
            Some(Ok(Message::Text(text))) => Some(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Close(_))) | None => None,
            other => panic!("{other:?} is no text"),
        }
    }
}

/// The next event, which must come.
pub(crate) async fn next(client: &mut Client) -> Event {
    timeout(PATIENCE, client.next()).await.expect("nothing happens").expect("the client has ended")
}

/// What the client says to the node, while it waits for events that do not come.
pub(crate) async fn said(client: &mut Client, peer: &mut Peer) -> Value {
    tokio::select! {
        message = peer.receive() => message.expect("the client has closed"),
        event = client.next() => panic!("{event:?} came instead of a message"),
    }
}

pub(crate) fn snapshot(seq: u64) -> Value {
    json!({"type": "snapshot", "subscription": "tasks", "epoch": "e1", "seq": seq, "items": [], "part": 1, "parts": 1})
}

pub(crate) fn update(seq: u64) -> Value {
    json!({
        "type": "task_update", "subscription": "tasks", "epoch": "e1", "seq": seq, "prev_seq": seq - 1,
        "data": {"id": "t1", "n": seq},
    })
}

pub(crate) fn replayed(seq: u64) -> Value {
    let mut frame = update(seq);
    frame["replayed"] = json!(true);
    frame
}
