//! A shard over real sockets of the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use hiveops_proto::path::Endpoint;
use hiveops_proto::{Limits, Positions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::hub::registry::SessionInfo;
use crate::hub::testing::{self, Source};
use crate::ws::client::{self, CLOSE, TEXT};

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Holds up the shard's thread while it answers `request_data`, so that a test can choose what the shard
/// finds when it looks again.
struct Gate {
    held: SyncSender<()>,
    release: Mutex<Receiver<()>>,
}

impl Answers for Gate {
    fn answer(&self, _: &Request<'_>, _: Timestamp) -> Result<Payload, (ErrorCode, String)> {
        self.held.send(()).unwrap();
        let _ = self.release.lock().recv_timeout(PATIENCE);
        Ok(Payload::parse("{}").unwrap())
    }
}

/// A running shard and what it shares with the test.
struct Bench {
    held: Receiver<()>,
    release: SyncSender<()>,
    shared: Arc<Shared>,
    shard: Handle,
}

/// The other end of a session's socket.
struct Peer {
    socket: TcpStream,
}

/// What a peer gets.
#[derive(Debug, PartialEq)]
enum Seen {
    Text(Value),
    Close(u16, String),
    Ping,
    Pong,
    End,
}

impl Seen {
    #[track_caller]
    fn text(self, frame_type: &str) -> Value {
        match self {
            Self::Text(frame) if frame["type"] == frame_type => frame,
            other => panic!("{frame_type} expected, got {other:?}"),
        }
    }
}

impl Bench {
    fn start(limits: Limits) -> Self {
        let (held_by, held) = sync_channel(1);
        let (release, released) = sync_channel(1);
        let shared = testing::shared(limits, Box::new(Gate { held: held_by, release: Mutex::new(released) }));
        let shard = start(0, Arc::clone(&shared)).unwrap();
        Self { held, release, shared, shard }
    }

    async fn tell(&self, command: Command) {
        self.shard.mailbox.send(command).await.unwrap();
    }

    async fn publish(&self, publication: Arc<Publication>) {
        self.tell(Command::Publish(publication)).await;
    }

    /// Makes the log of `source` the given one.
    async fn reset(&self, source: &Source, head: u64, entries: &[Arc<Publication>]) {
        self.tell(Command::Reset(Arc::new(source.reset(head, 0)), entries.to_vec().into())).await;
    }

    /// A session that is joined to `names`, before it has read anything.
    async fn open(&self, id: &str, names: &[&str]) -> Peer {
        self.open_with(id, names, &[]).await
    }

    /// The same, with `read` already read along with its handshake.
    async fn open_with(&self, id: &str, names: &[&str], read: &[u8]) -> Peer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        // Small, so that a peer that does not read is noticed soon.
        socket2::SockRef::from(&socket).set_send_buffer_size(16 * 1024).unwrap();
        socket2::SockRef::from(&peer).set_recv_buffer_size(16 * 1024).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let setup = Setup {
            connection_id: ConnectionId::new(id).unwrap(),
            refused_id: None,
            endpoint: Endpoint::Dashboard,
            subscriptions: Some(names.iter().map(ToString::to_string).collect()),
            since: Positions::new(),
            wanted_version: None,
            correlation_id: self.shared.clock.correlation_id(),
        };
        let info = SessionInfo { endpoint: Endpoint::Dashboard, connected_at: Timestamp::from_millis(0) };
        let wanted = setup.connection_id.clone();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let limits = Limits::default();
        let registry = &self.shared.registry;
        let made = || unreachable!("names are unique here");
        let registration = registry.register(Some(&wanted), made, address, (info, 0), &limits).unwrap();
        let intent = Intent::Open(Box::new(setup), registration);
        self.tell(Command::Admit(Box::new(Admission { socket, read: Bytes::copy_from_slice(read), intent }))).await;
        Peer { socket: peer }
    }

    /// A session that has read its first frames and the empty snapshot of each of `names`.
    async fn joined(&self, id: &str, names: &[&str]) -> Peer {
        let mut peer = self.open(id, names).await;
        peer.read().text("connection_established");
        peer.read().text("dashboard_initialized");
        for _ in names {
            peer.read().text("snapshot");
        }
        peer
    }

    /// Does something while the shard does nothing.
    fn while_held(&self, by: &mut Peer, act: impl FnOnce()) {
        by.send(&json!({"type": "request_data", "data_type": "system_health"}));
        self.held.recv_timeout(PATIENCE).unwrap();
        act();
        self.release.send(()).unwrap();
    }

    #[track_caller]
    fn wait(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !reached(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    }

    fn sessions(&self) -> usize {
        self.shard.gauges.sessions()
    }

    async fn stop(self) {
        self.tell(Command::Stop(Stop { reason: DisconnectReason::Draining, linger: Duration::ZERO })).await;
        self.shard.thread.join().unwrap().unwrap();
    }
}

impl Peer {
    fn send(&mut self, frame: &Value) {
        self.socket.write_all(&text(frame)).unwrap();
    }

    /// The next frame.
    fn read(&mut self) -> Seen {
        let mut head = [0; 2];
        match self.socket.read(&mut head[..1]) {
            Ok(0) => return Seen::End,
            Ok(_) => self.socket.read_exact(&mut head[1..]).unwrap(),
            Err(error) => panic!("nothing came: {error}"),
        }
        let len = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.take())),
            127 => u64::from_be_bytes(self.take()),
            short => u64::from(short),
        };
        let mut payload = vec![0; len as usize];
        self.socket.read_exact(&mut payload).unwrap();
        match head[0] {
            0x81 => Seen::Text(serde_json::from_slice(&payload).unwrap()),
            0x88 if payload.is_empty() => Seen::Close(1005, String::new()),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                Seen::Close(code, String::from_utf8(payload[2..].to_vec()).unwrap())
            }
            0x89 => Seen::Ping,
            0x8A => Seen::Pong,
            other => panic!("unknown frame {other:#x}"),
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }
}

fn text(frame: &Value) -> Vec<u8> {
    client::frame(TEXT, frame.to_string().as_bytes(), [1, 2, 3, 4])
}

#[tokio::test]
async fn a_session_gets_its_first_frames_the_snapshot_and_what_comes() {
    let (bench, tasks) = (Bench::start(Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 2, &[tasks.update(1, "a", 0), tasks.update(2, "b", 0)]).await;
    let mut peer = bench.open("me", &["tasks"]).await;
    assert_eq!(peer.read().text("connection_established")["connection_id"], "me");
    assert_eq!(peer.read().text("dashboard_initialized")["positions"]["tasks"]["seq"], 2);
    let snapshot = peer.read().text("snapshot");
    assert_eq!((snapshot["seq"].as_u64(), snapshot["items"].as_array().unwrap().len()), (Some(2), 2));
    bench.publish(tasks.event(3, 0)).await;
    let event = peer.read().text("task_event");
    assert_eq!((event["seq"].as_u64(), event["prev_seq"].as_u64()), (Some(3), Some(2)));
    bench.stop().await;
}

#[tokio::test]
async fn the_end_of_a_peer_is_noticed_when_it_comes_with_its_last_bytes() {
    let bench = Bench::start(Limits::default());
    let (mut other, mut peer) = (bench.joined("other", &[]).await, bench.joined("me", &[]).await);
    bench.while_held(&mut other, || {
        peer.send(&json!({"type": "unsubscribe", "subscriptions": []}));
        peer.socket.shutdown(std::net::Shutdown::Write).unwrap();
    });
    bench.wait("the session stays although its peer has gone", |bench| bench.sessions() == 1);
    bench.stop().await;
}

#[tokio::test]
async fn what_came_with_the_handshake_is_answered() {
    let bench = Bench::start(Limits::default());
    let mut peer = bench.open_with("me", &[], &text(&json!({"type": "ping", "correlation_id": "x"}))).await;
    peer.read().text("connection_established");
    peer.read().text("dashboard_initialized");
    assert_eq!(peer.read().text("pong")["correlation_id"], "x");
    peer.socket.write_all(&client::frame(CLOSE, &1000_u16.to_be_bytes(), [0; 4])).unwrap();
    assert_eq!(peer.read(), Seen::Close(1000, String::new()));
    assert_eq!(peer.read(), Seen::End);
    bench.stop().await;
}
