//! What a client can make a node hold by announcing much and sending little; measured on the real binary,
//! whose memory nothing else shares.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::Place;

/// How long a test waits for something that must come. Long, because a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sockets of one measurement: many, so that what the process needs for itself does not count.
const SOCKETS: u64 = 200;

/// What one announcement may cost: far less than the smallest message it could have been for.
const BYTES_MAX: u64 = 16 * 1_024;

/// A running node, killed when it is dropped.
struct Node {
    process: Child,
    address: String,
}

impl Node {
    fn start() -> Self {
        let place = Place::new();
        let mut process = Command::new(env!("CARGO_BIN_EXE_hiveops"))
            .args(["node", "--listen", "127.0.0.1:0", "--shards", "1"])
            .env_clear()
            .current_dir(place.dir.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let line = lines.by_ref().find(|line| line.as_ref().unwrap().contains("\"listening\"")).unwrap();
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        // Whoever writes to a full pipe waits, so the rest is read as well.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address: line["address"].as_str().unwrap().to_owned() }
    }

    /// How much of the machine's memory it occupies.
    fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib * 1_024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Opens a WebSocket that is joined to nothing and reads its first two frames.
fn connect(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(&node.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "GET /api/dashboard/ws/dashboard?subscriptions= HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 4_096];
    while !read.windows(21).any(|window| window == b"dashboard_initialized") {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&read));
        read.extend(&buffer[..count]);
    }
    stream
}

/// The header of a masked text frame that announces `len` bytes.
fn header(len: u64) -> Vec<u8> {
    [&[0x81, 0xFF], &len.to_be_bytes()[..], &[1, 2, 3, 4]].concat()
}

/// How much the node grows by while many sessions at once do this, per session. What the sessions cost
/// by themselves does not count.
fn growth(node: &Node, act: impl Fn(&mut TcpStream)) -> u64 {
    let mut streams: Vec<TcpStream> = (0..SOCKETS).map(|_| connect(node)).collect();
    let before = node.resident_bytes();
    streams.iter_mut().for_each(act);
    // An answer to a further session shows that what came before it has been read.
    connect(node);
    let after = node.resident_bytes();
    after.saturating_sub(before) / SOCKETS
}

#[test]
fn a_header_that_announces_a_tebibyte_costs_next_to_nothing() {
    let node = Node::start();
    let each = growth(&node, |stream| {
        stream.write_all(&header(1 << 40)).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let close = [&[0x88, 17], &1009_u16.to_be_bytes()[..], b"message_too_big"].concat();
        assert!(rest.ends_with(&close), "{rest:?}");
    });
    assert!(each < BYTES_MAX, "{each} bytes for each header");
}

#[test]
fn a_message_that_is_announced_and_not_sent_costs_what_has_arrived() {
    let node = Node::start();
    for announced in [65_536, 262_144] {
        let each = growth(&node, |stream| {
            stream.write_all(&[&header(announced)[..], &[0; 100]].concat()).unwrap();
        });
        assert!(each < BYTES_MAX, "{each} bytes for each of {announced}");
    }
}

/// A message over the soft cap is read past, so even its whole payload costs nothing.
#[test]
fn a_message_over_the_soft_cap_costs_nothing_while_it_arrives() {
    let node = Node::start();
    let each = growth(&node, |stream| {
        stream.write_all(&[header(262_144), vec![0x20; 200_000]].concat()).unwrap();
    });
    assert!(each < BYTES_MAX, "{each} bytes for each message");
}
