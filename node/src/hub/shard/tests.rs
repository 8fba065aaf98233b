//! A shard over real sockets of the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use hiveops_proto::access::{RevokedSubject, Role};
use hiveops_proto::path::Endpoint;
use hiveops_proto::{Limits, Positions};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::admission::Budget;
use crate::auth::Principal;
use crate::hub::registry::SessionInfo;
use crate::hub::testing::{self, Source};
use crate::ws::client::{self, CLOSE, TEXT};
use crate::ws::{Caps, Incoming, Kind};

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
    /// Who opens sessions.
    principal: Principal,
}

/// The other end of a session's socket.
struct Peer {
    socket: TcpStream,
    /// Frames that came compressed.
    compressed: usize,
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
    fn start(io_uring: bool, limits: Limits) -> Self {
        Self::start_with(io_uring, limits, |_| {})
    }

    fn start_with(io_uring: bool, limits: Limits, change: impl FnOnce(&mut Shared)) -> Self {
        let (held_by, held) = sync_channel(1);
        let (release, released) = sync_channel(1);
        let gate = Gate { held: held_by, release: Mutex::new(released) };
        let mut shared = testing::shared(io_uring, limits, Box::new(gate));
        change(Arc::get_mut(&mut shared).unwrap());
        let shard = start(0, Arc::clone(&shared)).unwrap();
        Self { held, release, shared, shard, principal: Principal::Anyone }
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
        self.open_coded(id, names, read, Coding::Plain).await
    }

    async fn open_coded(&self, id: &str, names: &[&str], read: &[u8], coding: Coding) -> Peer {
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
            principal: self.principal.clone(),
            correlation_id: self.shared.clock.correlation_id(),
        };
        let info = SessionInfo { endpoint: Endpoint::Dashboard, connected_at: Timestamp::from_millis(0) };
        let wanted = setup.connection_id.clone();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let limits = Limits::default();
        let registry = &self.shared.registry;
        let made = || unreachable!("names are unique here");
        let place = self.shared.budget.place();
        let registration =
            registry.register(Some(&wanted), made, address, (info, 0), place, &limits).unwrap();
        let intent = Intent::Open(Box::new(setup), registration);
        let read = Bytes::copy_from_slice(read);
        self.tell(Command::Admit(Box::new(Admission {
            socket,
            tls: None,
            read,
            coding,
            intent,
            working: None,
        })))
        .await;
        Peer { socket: peer, compressed: 0 }
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

    async fn drain(&self, window: Duration, linger: Duration) {
        let stop = Stop { reason: DisconnectReason::Draining, window, linger };
        self.tell(Command::Stop(stop, Turn::ALONE)).await;
    }

    async fn stop(self) {
        self.drain(Duration::ZERO, Duration::ZERO).await;
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
            0xC1 => {
                self.compressed += 1;
                let caps = Caps { soft: usize::MAX / 2, hard: usize::MAX, deflate: true };
                match Inflater::new().message(Kind::Text, &payload, &caps).unwrap() {
                    Incoming::Text(text) => Seen::Text(serde_json::from_str(&text).unwrap()),
                    other => panic!("{other:?}"),
                }
            }
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

async fn a_session_gets_its_first_frames_the_snapshot_and_what_comes(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
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

async fn sessions_get_the_same_frames_plain_and_compressed(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 2, &[tasks.update(1, "a", 900), tasks.update(2, "b", 0)]).await;
    let mut peers = Vec::new();
    for (id, coding) in [("p", Coding::Plain), ("d", Coding::Deflate), ("s", Coding::DeflateSmall)] {
        peers.push(bench.open_coded(id, &["tasks"], &[], coding).await);
    }
    bench.publish(tasks.update(3, "c", 500)).await;
    bench.publish(tasks.event(4, 0)).await;
    let mut seen = Vec::new();
    for peer in &mut peers {
        peer.read().text("connection_established");
        peer.read().text("dashboard_initialized");
        seen.push([
            peer.read().text("snapshot"),
            peer.read().text("task_update"),
            peer.read().text("task_event"),
        ]);
    }
    assert!(seen.iter().all(|frames| frames == &seen[0]), "{seen:#?}");
    // The snapshot and the large update; not what is small, and not what is for one session.
    assert_eq!(peers.iter().map(|peer| peer.compressed).collect::<Vec<_>>(), [0, 2, 2]);
    bench.stop().await;
}

async fn a_compressed_message_is_inflated_unless_it_is_dropped_for_its_rate(io_uring: bool) {
    let limits = Limits { rate_limit_burst_capacity: 20, ..Limits::default() };
    let bench = Bench::start(io_uring, limits);
    let mut peer = bench.open_coded("me", &[], &[], Coding::Deflate).await;
    peer.read().text("connection_established");
    peer.read().text("dashboard_initialized");
    // 7.2.3.1 of RFC 7692: `Hello`, which is no JSON.
    let hello = client::frame(0xC1, &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], [1, 2, 3, 4]);
    // What cannot be inflated ends a session, unless nobody looks at it.
    let nonsense = client::frame(0xC1, &[0xFF; 9], [1, 2, 3, 4]);
    peer.socket.write_all(&[hello.repeat(20), nonsense.clone()].concat()).unwrap();
    for _ in 0..20 {
        assert_eq!(peer.read().text("error")["code"], "invalid_json");
    }
    assert_eq!(peer.read().text("error")["code"], "rate_limited");
    let mut other = bench.open_coded("other", &[], &nonsense, Coding::Deflate).await;
    other.read().text("connection_established");
    other.read().text("dashboard_initialized");
    assert_eq!(other.read(), Seen::Close(1002, "protocol_error".to_owned()));
    bench.stop().await;
}

async fn the_end_of_a_peer_is_noticed_when_it_comes_with_its_last_bytes(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let (mut other, mut peer) = (bench.joined("other", &[]).await, bench.joined("me", &[]).await);
    bench.while_held(&mut other, || {
        peer.send(&json!({"type": "unsubscribe", "subscriptions": []}));
        peer.socket.shutdown(std::net::Shutdown::Write).unwrap();
    });
    bench.wait("the session stays although its peer has gone", |bench| bench.sessions() == 1);
    bench.stop().await;
}

async fn what_came_with_the_handshake_is_answered(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let mut peer = bench.open_with("me", &[], &text(&json!({"type": "ping", "correlation_id": "x"}))).await;
    peer.read().text("connection_established");
    peer.read().text("dashboard_initialized");
    assert_eq!(peer.read().text("pong")["correlation_id"], "x");
    peer.socket.write_all(&client::frame(CLOSE, &1000_u16.to_be_bytes(), [0; 4])).unwrap();
    assert_eq!(peer.read(), Seen::Close(1000, String::new()));
    assert_eq!(peer.read(), Seen::End);
    bench.stop().await;
}

/// A stop deals out turns by how many sessions each shard has.
async fn a_session_that_has_heard_of_itself_is_counted(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let request = text(&json!({"type": "request_data", "data_type": "system_health"}));
    let mut peer = bench.open_with("me", &[], &request).await;
    // The shard has not come to the end of its turn.
    bench.held.recv_timeout(PATIENCE).unwrap();
    peer.read().text("connection_established");
    assert_eq!(bench.sessions(), 1);
    bench.release.send(()).unwrap();
    bench.stop().await;
}

async fn who_is_admitted_while_the_shard_stops_is_told(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let mut other = bench.joined("other", &[]).await;
    let linger = Duration::from_secs(60);
    bench.drain(Duration::ZERO, linger).await;
    let notice = other.read().text("disconnect_notice");
    assert_eq!((notice["reason"].as_str(), notice["retry_after_ms"].as_u64()), (Some("draining"), Some(250)));
    assert_eq!(other.read(), Seen::Close(1012, "draining".to_owned()));
    let mut late = bench.open("late", &["tasks"]).await;
    assert_eq!(late.read(), Seen::Close(1012, "draining".to_owned()));
    bench.wait("the late one is registered", |bench| bench.shared.registry.summary().total == 1);
    drop((other, late));
    bench.shard.thread.join().unwrap().unwrap();
}

/// Longer than any test: whoever is closed before is closed by something else than the passing of time.
const FOR_EVER: Duration = Duration::from_secs(3_600);

async fn until_its_turn_comes_a_session_is_served_and_a_second_stop_is_quick(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut peers = Vec::new();
    for id in ["a", "b", "c"] {
        peers.push(bench.joined(id, &["tasks"]).await);
    }
    bench.drain(FOR_EVER, FOR_EVER).await;
    let mut hints = vec![peers[0].read().text("disconnect_notice")["retry_after_ms"].as_u64().unwrap()];
    assert_eq!(peers[0].read(), Seen::Close(1012, "draining".to_owned()));
    bench.publish(tasks.event(1, 0)).await;
    for peer in &mut peers[1..] {
        assert_eq!(peer.read().text("task_event")["seq"], 1);
        peer.send(&json!({"type": "unsubscribe", "subscriptions": []}));
        peer.read().text("subscription_updated");
    }
    bench.drain(Duration::ZERO, FOR_EVER).await;
    for peer in &mut peers[1..] {
        let notice = peer.read().text("disconnect_notice");
        hints.push(notice["retry_after_ms"].as_u64().unwrap());
        assert_eq!(peer.read(), Seen::Close(1012, "draining".to_owned()));
    }
    hints.sort_unstable();
    hints.dedup();
    assert_eq!(hints.len(), 3, "{hints:?}");
    drop(peers);
    bench.shard.thread.join().unwrap().unwrap();
}

async fn who_leaves_before_its_turn_holds_up_nobody(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let (mut first, second) = (bench.joined("first", &[]).await, bench.joined("second", &[]).await);
    bench.drain(FOR_EVER, FOR_EVER).await;
    first.read().text("disconnect_notice");
    drop(second);
    bench.wait("the session stays", |bench| bench.sessions() == 1);
    drop(first);
    bench.shard.thread.join().unwrap().unwrap();
}

async fn what_was_queued_for_a_session_reaches_it_before_the_notice(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut slow = bench.joined("slow", &["tasks"]).await;
    for seq in 1..=40 {
        bench.publish(tasks.event(seq, 20_000)).await;
    }
    bench.wait("the socket takes all", |bench| bench.shard.gauges.outbox_frames() > 0);
    bench.drain(Duration::ZERO, FOR_EVER).await;
    for seq in 1..=40 {
        assert_eq!(slow.read().text("task_event")["seq"], seq);
    }
    slow.read().text("disconnect_notice");
    assert_eq!(slow.read(), Seen::Close(1012, "draining".to_owned()));
    drop(slow);
    bench.shard.thread.join().unwrap().unwrap();
}

async fn shorter_limits_hold_for_deadlines_that_run(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let mut peer = bench.joined("me", &[]).await;
    let limits = Limits { protocol_ping_seconds: 1, protocol_pong_timeout_seconds: 1, ..Limits::default() };
    let view = testing::control(Limits { idle_disconnect_seconds: 1, ..limits });
    bench.tell(Command::Control(view, crate::board::testing::catalog())).await;
    assert_eq!(peer.read().text("disconnect_notice")["reason"], "idle_timeout");
    assert_eq!(peer.read(), Seen::Close(4408, "idle_timeout".to_owned()));
    bench.stop().await;
}

/// Its handshake was judged by the view before.
async fn who_was_revoked_meanwhile_gets_no_session(io_uring: bool) {
    let family = RevokedSubject::Family { family: "f1".parse().unwrap() };
    let mut bench = Bench::start_with(io_uring, Limits::default(), |shared| {
        let gate = crate::auth::testing::open_gate(shared.clock);
        gate.renew(&crate::auth::testing::revoked(family));
        shared.gate = Arc::new(gate);
    });
    bench.principal = crate::auth::testing::user(crate::auth::testing::claims("ada", Role::Viewer));
    let mut peer = bench.open("me", &["tasks"]).await;
    assert_eq!(peer.read(), Seen::Close(4401, "revoked".to_owned()));
    let denied = bench.shared.metrics.auth_denied.with_label_values(&["revoked"]).get();
    assert_eq!((denied, bench.shared.metrics.connections.get()), (1, 0));
    bench.stop().await;
}

async fn a_named_session_is_ended_with_a_notice(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let mut peer = bench.joined("me", &["tasks"]).await;
    for (id, there) in [("you", false), ("me", true), ("me", false)] {
        let (reply, found) = oneshot::channel();
        let (id, reason) = (ConnectionId::new(id).unwrap(), DisconnectReason::Admin);
        bench
            .tell(Command::Disconnect { id, ending: Ending::with_detail(reason, "bye".to_owned()), reply })
            .await;
        assert_eq!(found.await, Ok(there));
    }
    assert_eq!(peer.read().text("disconnect_notice")["detail"], "bye");
    assert_eq!(peer.read(), Seen::Close(1000, "admin".to_owned()));
    let sub = Source::new("tasks").sub;
    assert_eq!(bench.shard.gauges.joined(sub), 0);
    peer.socket.write_all(&client::frame(CLOSE, &1000_u16.to_be_bytes(), [0; 4])).unwrap();
    assert_eq!(peer.read(), Seen::End);
    bench.wait("the connection stays", |bench| bench.sessions() == 0);
    bench.stop().await;
}

async fn a_hole_that_the_bus_made_is_announced(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut peer = bench.joined("me", &["tasks", "agents"]).await;
    bench.publish(tasks.update(1, "a", 0)).await;
    peer.read().text("task_update");
    bench.publish(tasks.update(5, "a", 0)).await;
    let notice = peer.read().text("coalesced");
    assert_eq!((notice["from_seq"].as_u64(), notice["to_seq"].as_u64()), (Some(2), Some(4)));
    assert_eq!(peer.read().text("task_update")["seq"], 5);
    bench.publish(tasks.event(6, 0)).await;
    assert_eq!(peer.read().text("task_event")["prev_seq"], 5);
    assert_eq!(bench.shard.gauges.outbox_frames(), 0);
    bench.stop().await;
}

async fn a_peer_that_does_not_read_is_closed_and_one_that_reads_misses_nothing(io_uring: bool) {
    let limits = Limits { outbox_frames_max: 8, ..Limits::default() };
    let (bench, tasks) = (Bench::start(io_uring, limits), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let (mut slow, mut quick) =
        (bench.joined("slow", &["tasks"]).await, bench.joined("quick", &["tasks"]).await);
    let mut published = Vec::new();
    for seq in 1..=200 {
        published.push(tasks.event(seq, 20_000));
        bench.publish(Arc::clone(&published[published.len() - 1])).await;
        assert_eq!(quick.read().text("task_event")["seq"], seq);
    }
    bench.wait("the slow session stays", |bench| {
        bench.shared.metrics.backpressure_disconnects.with_label_values(&["outbox_full"]).get() == 1
    });
    let mut last = 0;
    let end = loop {
        match slow.read() {
            Seen::Text(frame) if frame["type"] == "task_event" => {
                assert_eq!(frame["prev_seq"], last);
                last += 1;
            }
            other => break other,
        }
    };
    assert_eq!(end.text("disconnect_notice")["reason"], "backpressure");
    assert_eq!(slow.read(), Seen::Close(1013, "backpressure".to_owned()));
    bench.wait("frames are still counted as waiting", |bench| bench.shard.gauges.outbox_frames() == 0);
    let counts: Vec<_> = published.iter().map(|publication| publication.tally().unwrap().counts()).collect();
    let ended = counts.iter().position(|counts| counts.recipients == 1).unwrap();
    assert!(
        counts[..ended].iter().all(|counts| (counts.recipients, counts.pending()) == (2, 0)),
        "{counts:?}"
    );
    let slow: u32 = counts.iter().map(|counts| counts.delivered.saturating_sub(1)).sum();
    assert_eq!(u64::from(slow), last, "what the slow one was sent is what it has read");
    assert!(counts[..ended].iter().any(|counts| counts.enqueued == 1 && counts.delivered == 2));
    assert!(counts[ended..].iter().all(|counts| (counts.recipients, counts.delivered) == (1, 1)));
    let lost: u32 = counts.iter().map(|counts| counts.lost[0]).sum();
    assert_eq!(u64::from(lost), ended as u64 - last, "the rest was thrown away for backpressure");
    bench.stop().await;
}

async fn a_peer_that_reads_in_time_gets_the_latest_values_and_every_event(io_uring: bool) {
    let limits = Limits { outbox_frames_max: 40, ..Limits::default() };
    let (bench, tasks) = (Bench::start(io_uring, limits), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let (mut slow, mut quick) =
        (bench.joined("slow", &["tasks"]).await, bench.joined("quick", &["tasks"]).await);
    let mut events = Vec::new();
    for seq in 1..=400 {
        let publication =
            if seq % 20 == 0 { tasks.event(seq, 2_000) } else { tasks.update(seq, "k", 20_000) };
        events.extend((seq % 20 == 0).then_some(seq));
        bench.publish(publication).await;
        quick.read();
    }
    let (mut at, mut seen) = (0, Vec::new());
    while at < 400 {
        let Seen::Text(frame) = slow.read() else { panic!("the session has ended") };
        let number = |name: &str| frame[name].as_u64().unwrap();
        if frame["type"] == "coalesced" {
            assert_eq!(number("from_seq"), at + 1);
            at = number("to_seq");
        } else {
            assert_eq!(number("prev_seq"), at);
            at = number("seq");
            seen.extend((frame["type"] == "task_event").then_some(at));
        }
    }
    assert_eq!(seen, events);
    bench.wait("frames are still counted as waiting", |bench| bench.shard.gauges.outbox_frames() == 0);
    bench.stop().await;
}

async fn a_log_that_was_made_anew_comes_as_a_snapshot(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut peer = bench.joined("me", &["tasks"]).await;
    bench.publish(tasks.update(1, "a", 0)).await;
    peer.read().text("task_update");
    let anew = Source::in_epoch("tasks", 8);
    bench.reset(&anew, 1, &[anew.update(1, "b", 0)]).await;
    let snapshot = peer.read().text("snapshot");
    assert_eq!((&snapshot["epoch"], &snapshot["items"][0]["key"]), (&json!("0000000000000008"), &json!("b")));
    bench.publish(anew.update(2, "b", 0)).await;
    assert_eq!(peer.read().text("task_update")["prev_seq"], 1);
    bench.stop().await;
}

async fn lists_stay_right_while_sessions_come_leave_and_come_back(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut peers = Vec::new();
    for index in 0..6 {
        peers.push(bench.joined(&format!("p{index}"), &["tasks"]).await);
    }
    // The first one leaves, so that the last of the list takes its place, and then that one leaves.
    for index in [0, 5, 2] {
        peers[index].send(&json!({"type": "unsubscribe", "subscriptions": ["tasks"]}));
        peers[index].read().text("subscription_updated");
    }
    peers[2].send(&json!({"type": "subscribe", "subscriptions": ["tasks"]}));
    peers[2].read().text("subscription_updated");
    peers[2].read().text("snapshot");
    drop(peers.remove(3));
    bench.wait("the session stays", |bench| bench.sessions() == 5);
    assert_eq!(bench.shard.gauges.joined(tasks.sub), 3);
    bench.publish(tasks.event(1, 0)).await;
    for index in [1, 2, 3] {
        peers[index].read().text("task_event");
    }
    for index in [0, 4] {
        peers[index].send(&json!({"type": "ping", "correlation_id": "x"}));
        peers[index].read().text("pong");
    }
    bench.stop().await;
}

async fn a_shard_that_panics_is_noticed_and_leaves_nobody_registered(io_uring: bool) {
    let bench = Bench::start(io_uring, Limits::default());
    let mut peer = bench.joined("me", &["tasks"]).await;
    let Bench { held, release: _release, shared, shard, principal: _ } = bench;
    // Answering panics when nobody waits for the gate.
    drop(held);
    peer.send(&json!({"type": "request_data", "data_type": "system_health"}));
    shard.mailbox.ended().await;
    assert!(shard.thread.join().is_err());
    assert_eq!(shared.registry.summary().total, 0);
    let (reason, window, linger) = (DisconnectReason::Draining, Duration::ZERO, Duration::ZERO);
    let stop = Command::Stop(Stop { reason, window, linger }, Turn::ALONE);
    assert_eq!(shard.mailbox.send(stop).await, Err(Ended));
    assert_eq!(peer.read(), Seen::End);
}

async fn a_shard_that_stood_still_ends_who_has_lost_its_place_before_it_serves_anybody(io_uring: bool) {
    let bench = Bench::start_with(io_uring, Limits::default(), |shared| {
        shared.budget = Budget::new(Some(shared.node_id.clone()), shared.clock);
        shared.budget.grant(3, 3_600_000);
    });
    let source = Source::new("tasks");
    let (mut other, mut peer) = (bench.joined("other", &[]).await, bench.joined("me", &["tasks"]).await);
    let mut late = None;
    by_standing_still(&bench, &mut other, async {
        // It has its place while there is one: the next lease is too short to rely on.
        late = Some(bench.open("late", &[]).await);
        bench.shared.budget.grant(3, 1);
        let until = bench.shared.budget.good_until().unwrap();
        bench.publish(source.update(1, "a", 0)).await;
        bench.wait("the lease to run out", |bench| bench.shared.clock.moment() >= until);
    })
    .await;
    other.read().text("data_response");
    for peer in [&mut other, &mut peer] {
        assert_eq!(peer.read().text("disconnect_notice")["reason"], "lease_lost");
        assert_eq!(peer.read(), Seen::Close(1_013, "lease_lost".to_owned()));
    }
    assert_eq!(late.unwrap().read(), Seen::Close(1_013, "lease_lost".to_owned()));
    bench.stop().await;
}

/// Does something while the shard does nothing.
async fn by_standing_still(bench: &Bench, by: &mut Peer, act: impl Future<Output = ()>) {
    by.send(&json!({"type": "request_data", "data_type": "system_health"}));
    bench.held.recv_timeout(PATIENCE).unwrap();
    act.await;
    bench.release.send(()).unwrap();
}

/// Each test, with either way to send.
macro_rules! on_both {
    ($($name:ident)+) => {
        mod write {
            $(#[tokio::test]
            async fn $name() {
                super::$name(false).await;
            })+
        }

        mod io_uring {
            $(#[tokio::test]
            async fn $name() {
                super::$name(true).await;
            })+
        }
    };
}

on_both! {
    a_session_gets_its_first_frames_the_snapshot_and_what_comes
    sessions_get_the_same_frames_plain_and_compressed
    a_compressed_message_is_inflated_unless_it_is_dropped_for_its_rate
    the_end_of_a_peer_is_noticed_when_it_comes_with_its_last_bytes
    what_came_with_the_handshake_is_answered
    a_session_that_has_heard_of_itself_is_counted
    who_is_admitted_while_the_shard_stops_is_told
    until_its_turn_comes_a_session_is_served_and_a_second_stop_is_quick
    who_leaves_before_its_turn_holds_up_nobody
    what_was_queued_for_a_session_reaches_it_before_the_notice
    shorter_limits_hold_for_deadlines_that_run
    who_was_revoked_meanwhile_gets_no_session
    a_named_session_is_ended_with_a_notice
    a_hole_that_the_bus_made_is_announced
    a_peer_that_does_not_read_is_closed_and_one_that_reads_misses_nothing
    a_peer_that_reads_in_time_gets_the_latest_values_and_every_event
    a_log_that_was_made_anew_comes_as_a_snapshot
    lists_stay_right_while_sessions_come_leave_and_come_back
    a_shard_that_panics_is_noticed_and_leaves_nobody_registered
    a_shard_that_stood_still_ends_who_has_lost_its_place_before_it_serves_anybody
}

mod books;
