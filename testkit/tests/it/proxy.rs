//! Each fault over real sockets. What happened is waited for with the proxy's counts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hiveops_testkit::proxy::{Direction, Fault, FaultProxy};
use hiveops_testkit::wait::PATIENCE;

/// A server of which a test takes the connections by hand, behind a proxy.
struct Pair {
    server: TcpListener,
    proxy: FaultProxy,
}

impl Pair {
    fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = FaultProxy::start(server.local_addr().unwrap(), 7).unwrap();
        Self { server, proxy }
    }

    /// A connection through the proxy: the client's end and the server's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = dial(self.proxy.addr());
        (client, self.accept())
    }

    fn accept(&self) -> TcpStream {
        patient(self.server.accept().unwrap().0)
    }
}

fn dial(addr: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(addr).unwrap())
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[track_caller]
fn assert_reads(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[track_caller]
fn assert_passes(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
    from.write_all(text.as_bytes()).unwrap();
    assert_reads(to, text);
}

#[test]
fn without_a_fault_bytes_and_ends_pass_in_both_directions() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    assert_passes(&mut client, &mut server, "question");
    assert_passes(&mut server, &mut client, "answer");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_passes(&mut server, &mut client, "more");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    pair.proxy.wait_for("the end", |counts| counts.open == 0).unwrap();
    let counts = pair.proxy.counts();
    assert_eq!((counts.connections, counts.bytes_to_server, counts.bytes_to_client), (1, 8, 10));
    assert_eq!((counts.bytes_delayed, counts.stalls, counts.resets, counts.slices), (0, 0, 0, 0));
}

#[test]
fn much_more_than_the_buffers_hold_passes_unchanged() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client
    });
    let mut received = vec![0; bytes.len()];
    server.read_exact(&mut received).unwrap();
    assert!(received == bytes);
    drop(sender.join().unwrap());
}

#[test]
fn a_delay_makes_bytes_late_and_its_end_releases_them() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::ToServer, Fault::Delay(Duration::from_millis(50)));
    let began = Instant::now();
    assert_passes(&mut client, &mut server, "late");
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
    pair.proxy.wait_for("the count", |counts| counts.bytes_delayed == 4).unwrap();
    assert_passes(&mut server, &mut client, "at once");
    pair.proxy.set(Direction::ToServer, Fault::Delay(Duration::from_secs(3_600)));
    client.write_all(b"waits").unwrap();
    pair.proxy.wait_for("the bytes", |counts| counts.bytes_from_client == 9).unwrap();
    assert_eq!(pair.proxy.counts().bytes_to_server, 4);
    pair.proxy.heal();
    assert_reads(&mut server, "waits");
}

#[test]
fn jitter_keeps_the_order() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::Both, Fault::Jitter { max: Duration::from_millis(5) });
    for number in 0..50_u64 {
        client.write_all(format!("{number:04}").as_bytes()).unwrap();
        // Each is a read of its own.
        pair.proxy.wait_for("a read", |counts| counts.bytes_from_client == 4 * (number + 1)).unwrap();
    }
    let all: String = (0..50).map(|number| format!("{number:04}")).collect();
    assert_reads(&mut server, &all);
    assert!(pair.proxy.counts().bytes_delayed > 0);
}

#[test]
fn a_rate_is_not_exceeded() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::ToServer, Fault::Rate { bytes_per_second: 100_000 });
    let began = Instant::now();
    assert_passes(&mut client, &mut server, &"x".repeat(20_000));
    assert!(began.elapsed() >= Duration::from_millis(199), "{:?}", began.elapsed());
    pair.proxy.wait_for("the count", |counts| counts.bytes_delayed == 20_000).unwrap();
}

#[test]
fn a_blackhole_holds_bytes_and_new_connections_until_it_ends() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::Both, Fault::Blackhole);
    client.write_all(b"held").unwrap();
    server.write_all(b"held too").unwrap();
    let mut second = dial(pair.proxy.addr());
    second.write_all(b"new").unwrap();
    pair.proxy.wait_for("both", |counts| counts.stalls == 2 && counts.connections == 2).unwrap();
    let counts = pair.proxy.counts();
    assert_eq!((counts.bytes_from_client, counts.bytes_from_server, counts.open), (0, 0, 2));
    pair.proxy.heal();
    assert_reads(&mut server, "held");
    assert_reads(&mut client, "held too");
    assert_reads(&mut pair.accept(), "new");
}

#[test]
fn a_blackhole_in_one_direction_leaves_the_other_alone_and_holds_even_the_end() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::ToClient, Fault::Blackhole);
    assert_passes(&mut client, &mut server, "goes");
    drop(server);
    pair.proxy.wait_for("the stall", |counts| counts.stalls == 1).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    pair.proxy.heal();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_reset_that_comes_during_a_blackhole_is_passed_on_after_it() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    // The proxy has both connections in hand.
    assert_passes(&mut client, &mut server, "x");
    pair.proxy.set(Direction::Both, Fault::Blackhole);
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    pair.proxy.wait_for("the stall", |counts| counts.stalls == 1).unwrap();
    assert_eq!(pair.proxy.counts().open, 1);
    pair.proxy.heal();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_piles_up_before_a_blackhole_is_bounded() {
    let pair = Pair::new();
    let (mut client, _server) = pair.connect();
    pair.proxy.set(Direction::ToServer, Fault::Blackhole);
    client.set_nonblocking(true).unwrap();
    let mut sent = 0_u64;
    let chunk = vec![0; 65_536];
    while let Ok(length) = client.write(&chunk) {
        sent += length as u64;
        assert!(sent < 100 * 1_048_576, "somebody reads");
    }
    assert_eq!(pair.proxy.counts().bytes_from_client, 0);
}

#[test]
fn a_half_close_ends_one_direction_only() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::ToServer, Fault::HalfClose);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    client.write_all(b"into nothing").unwrap();
    assert_passes(&mut server, &mut client, "still here");
    pair.proxy.wait_for("the bytes", |counts| counts.bytes_dropped == 12).unwrap();
    let counts = pair.proxy.counts();
    assert_eq!((counts.half_closes, counts.bytes_to_server, counts.open), (1, 0, 1));
}

#[test]
fn a_reset_reaches_both_ends_and_those_that_come_while_it_is_set() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    assert_passes(&mut client, &mut server, "x");
    pair.proxy.set(Direction::Both, Fault::Reset);
    for end in [&mut client, &mut server] {
        assert_eq!(end.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let mut second = dial(pair.proxy.addr());
    assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    pair.proxy.wait_for("both", |counts| counts.resets == 2 && counts.open == 0).unwrap();
    pair.proxy.heal();
    let (mut client, mut server) = pair.connect();
    assert_passes(&mut client, &mut server, "well again");
}

#[test]
fn slices_are_small_and_lose_nothing() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::ToServer, Fault::Slice { max_bytes: 7 });
    let text: String = (0..300).map(|number| format!("{number:03}")).collect();
    assert_passes(&mut client, &mut server, &text);
    // 900 bytes in pieces of seven at most.
    pair.proxy.wait_for("the slices", |counts| counts.slices >= 129).unwrap();
}

#[test]
fn refused_connections_are_told_so_and_open_ones_go_on() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::Both, Fault::Refuse);
    pair.proxy.wait_for("the listener's end", |counts| !counts.listening).unwrap();
    let error = TcpStream::connect(pair.proxy.addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_passes(&mut client, &mut server, "goes on");
    pair.proxy.heal();
    pair.proxy.wait_for("the listener", |counts| counts.listening).unwrap();
    let (mut client, mut server) = pair.connect();
    assert_passes(&mut client, &mut server, "on the same port");
    assert_eq!(pair.proxy.counts().listener_closings, 1);
}

#[test]
fn new_connections_follow_the_upstream_and_find_out_that_it_is_gone() {
    let pair = Pair::new();
    let (mut old, mut server) = pair.connect();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    pair.proxy.set_upstream(other.local_addr().unwrap());
    let mut new = dial(pair.proxy.addr());
    assert_passes(&mut new, &mut patient(other.accept().unwrap().0), "new");
    assert_passes(&mut old, &mut server, "old");
    drop(other);
    let mut lost = dial(pair.proxy.addr());
    assert_eq!(lost.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    pair.proxy.wait_for("the failure", |counts| counts.upstream_failures == 1).unwrap();
}

#[test]
fn its_end_is_the_end_of_its_connections_even_in_a_blackhole() {
    let pair = Pair::new();
    let (mut client, mut server) = pair.connect();
    pair.proxy.set(Direction::Both, Fault::Blackhole);
    let addr = pair.proxy.addr();
    drop(pair.proxy);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
