//! What a client can make a node hold by announcing much and sending little; measured on the real binary,
//! whose memory nothing else shares.

use std::io::{Read, Write};
use std::net::TcpStream;

use hiveops_testkit::wait::PATIENCE;

use crate::harness::Place;
use crate::running::Running;

/// Sockets of one measurement: many, so that what the process needs for itself does not count.
const SOCKETS: u64 = 200;

/// What one announcement may cost: far less than the smallest message it could have been for.
const BYTES_MAX: u64 = 16 * 1_024;

/// Opens a WebSocket that is joined to nothing and reads its first two frames.
fn connect(url: &str) -> TcpStream {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
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
fn growth(node: &Running, url: &str, act: impl Fn(&mut TcpStream)) -> u64 {
    let mut streams: Vec<TcpStream> = (0..SOCKETS).map(|_| connect(url)).collect();
    let before = node.resident_bytes();
    streams.iter_mut().for_each(act);
    // An answer to a further session shows that what came before it has been read.
    connect(url);
    let after = node.resident_bytes();
    after.saturating_sub(before) / SOCKETS
}

#[test]
fn a_header_that_announces_a_tebibyte_costs_next_to_nothing() {
    let (node, url) = Running::node(&Place::new(), &["--shards", "1"], &[]);
    let each = growth(&node, &url, |stream| {
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
    let (node, url) = Running::node(&Place::new(), &["--shards", "1"], &[]);
    for announced in [65_536, 262_144] {
        let each = growth(&node, &url, |stream| {
            stream.write_all(&[&header(announced)[..], &[0; 100]].concat()).unwrap();
        });
        assert!(each < BYTES_MAX, "{each} bytes for each of {announced}");
    }
}

/// A message over the soft cap is read past, so even its whole payload costs nothing.
#[test]
fn a_message_over_the_soft_cap_costs_nothing_while_it_arrives() {
    let (node, url) = Running::node(&Place::new(), &["--shards", "1"], &[]);
    let each = growth(&node, &url, |stream| {
        stream.write_all(&[header(262_144), vec![0x20; 200_000]].concat()).unwrap();
    });
    assert!(each < BYTES_MAX, "{each} bytes for each message");
}
