//! A WebSocket client that does what it should not: bytes by hand over a plain socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{Node, soon};
use crate::schema;

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

/// The mask of every frame: its value does not matter, but zeros would hide a missing unmasking.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// The path of a session that is joined to nothing, so that nothing comes but what is asked for.
pub(crate) const QUIET: &str = "/api/dashboard/ws/dashboard?subscriptions=";

/// A masked frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A close frame with a code.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A `ping` message of the contract.
pub(crate) fn ping_message(correlation_id: &str) -> String {
    format!(r#"{{"type":"ping","correlation_id":"{correlation_id}"}}"#)
}

/// The head of a handshake, with these lines in the place of those of the same name; an empty value
/// leaves the line out.
pub(crate) fn handshake(path: &str, other: &[(&str, &str)]) -> Vec<u8> {
    let mut lines = BTreeMap::from([
        ("Host", "node"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]);
    lines.extend(other.iter().copied());
    let mut head = format!("GET {path} HTTP/1.1\r\n");
    for (name, value) in lines.into_iter().filter(|(_, value)| !value.is_empty()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What became of a handshake.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is a session.
    Admitted(Raw),
    /// The upgrade was accepted, and then closed with this code and reason.
    Closed(u16, String),
    /// It was answered with a problem document.
    Refused(Head, Value),
    /// The connection was closed without an answer.
    Unheard,
}

/// A frame from the node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    fn close_code_if_close(&self) -> Option<u16> {
        if self.first == CLOSE { self.close_code() } else { None }
    }

    /// The code of a close frame; none when it is empty.
    pub(crate) fn close_code(&self) -> Option<u16> {
        assert_eq!(self.first, CLOSE, "{self:?}");
        self.payload.first_chunk().map(|code| u16::from_be_bytes(*code))
    }
}

impl Raw {
    pub(crate) async fn connect(node: &Node) -> Self {
        let stream = soon("a connection", TcpStream::connect(node.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Connects from this address: all of 127/8 is this machine.
    pub(crate) async fn connect_from(node: &Node, from: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let stream = soon("a connection", socket.connect(node.address)).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Tries a handshake of a session that is joined to nothing.
    pub(crate) async fn attempt(mut self, other: &[(&str, &str)]) -> Attempt {
        let request = handshake(QUIET, other);
        // Whoever was closed already learns it by reading.
        let _ = soon("a write", self.stream.write_all(&request)).await;
        while !self.read.windows(4).any(|window| window == b"\r\n\r\n") {
            if !matches!(soon("bytes", self.stream.read_buf(&mut self.read)).await, Ok(1..)) {
                assert!(self.read.is_empty(), "a head that ends: {:?}", self.read);
                return Attempt::Unheard;
            }
        }
        let head = self.head().await;
        if head.status != 101 {
            let problem = self.problem_after(&head).await;
            return Attempt::Refused(head, problem);
        }
        let first = self.frame().await;
        match first.close_code_if_close() {
            Some(code) => Attempt::Closed(code, String::from_utf8(first.payload[2..].to_vec()).unwrap()),
            None => Attempt::Admitted(self),
        }
    }

    /// A session that is joined to nothing and has read its first frames.
    pub(crate) async fn quiet(node: &Node) -> Self {
        let mut raw = Self::connect(node).await;
        raw.write(&handshake(QUIET, &[])).await;
        assert_eq!(raw.head().await.status, 101);
        raw.expect("connection_established").await;
        raw.expect("dashboard_initialized").await;
        raw
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon("a write", self.stream.write_all(bytes)).await.unwrap();
    }

    /// Says that nothing more will be written.
    pub(crate) async fn finish(&mut self) {
        soon("the end", self.stream.shutdown()).await.unwrap();
    }

    /// Reads the head of a response.
    pub(crate) async fn head(&mut self) -> Head {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more().await,
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Head { status, headers }
    }

    /// Reads a response that is a problem document.
    pub(crate) async fn problem(&mut self) -> (Head, Value) {
        let head = self.head().await;
        let body = self.problem_after(&head).await;
        (head, body)
    }

    /// Reads the problem document behind the head of its response.
    pub(crate) async fn problem_after(&mut self, head: &Head) -> Value {
        assert_eq!(head.headers["content-type"], "application/problem+json", "{head:?}");
        let len = head.headers["content-length"].parse().unwrap();
        while self.read.len() < len {
            self.more().await;
        }
        let body: Value = serde_json::from_slice(&self.read[..len]).unwrap();
        assert_eq!(body["status"], head.status, "{body}");
        assert_eq!(body["correlation_id"], head.headers["x-correlation-id"]);
        body
    }

    /// Reads the next frame of whatever kind.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.frame_or_end().await.expect("a frame, not the end")
    }

    /// Reads the next frame, which must be a message of this type.
    pub(crate) async fn expect(&mut self, frame_type: &str) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame.first, TEXT, "{frame:?}");
        let value = schema::read(std::str::from_utf8(&frame.payload).unwrap());
        assert_eq!(value["type"], frame_type, "{value}");
        value
    }

    /// Reads to a close frame and the end of the stream behind it; messages before it are passed over.
    pub(crate) async fn closed(&mut self) -> Frame {
        let close = loop {
            let frame = self.frame().await;
            if frame.first == CLOSE {
                break frame;
            }
        };
        assert_eq!(self.frame_or_end().await, None, "nothing follows a close frame");
        close
    }

    /// Reads the next frame, or finds the orderly end of the stream.
    pub(crate) async fn frame_or_end(&mut self) -> Option<Frame> {
        loop {
            if let Some((header_len, len)) = whole(&self.read) {
                let frame: Vec<u8> = self.read.drain(..header_len + len).collect();
                return Some(Frame { first: frame[0], payload: frame[header_len..].to_vec() });
            }
            if !self.try_more().await {
                assert!(self.read.is_empty(), "the stream ends inside a frame");
                return None;
            }
        }
    }

    async fn more(&mut self) {
        assert!(self.try_more().await, "the stream ended; read so far: {:?}", self.read);
    }

    async fn try_more(&mut self) -> bool {
        soon("bytes", self.stream.read_buf(&mut self.read)).await.unwrap() > 0
    }
}

/// The lengths of the header and the payload of the first frame, when all of it is here.
fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header_len, len) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).unwrap()),
        len => {
            assert!(len < 0x80, "a node does not mask");
            (2, usize::from(len))
        }
    };
    (bytes.len() >= header_len + len).then_some((header_len, len))
}
