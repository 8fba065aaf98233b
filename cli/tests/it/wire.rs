//! Blocking HTTP and WebSocket clients: the tests that use them watch a process die, and must know what
//! had arrived by then.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use serde_json::Value;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// Bytes of an answer at most: the lists of these tests are short.
const BODY_BYTES_MAX: usize = 4 * 1_048_576;

/// Where a node shows its limits, and how old its view is.
pub(crate) const LIMITS: &str = "/api/dashboard/websocket/limits";

/// One connection that is used for request after request.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    pub(crate) fn connect(url: &str) -> Self {
        Self { stream: BufReader::new(connect(url)) }
    }

    /// One request and its answer, or the error that the connection ended with.
    pub(crate) fn call(
        &mut self,
        head: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<(u16, Value)> {
        let (status, body) = self.exchange(head, headers, body)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    fn exchange(&mut self, head: &str, headers: &[(&str, &str)], body: &str) -> io::Result<(u16, Vec<u8>)> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let request =
            format!("{head} HTTP/1.1\r\nHost: node\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let mut length = 0;
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().map_err(io::Error::other)?;
                }
                Some(_) => {}
            }
        }
        assert!(length <= BODY_BYTES_MAX, "an answer of {length} bytes");
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((status, body))
    }

    /// What is no JSON.
    pub(crate) fn text(&mut self, head: &str) -> io::Result<String> {
        let (_, body) = self.exchange(head, &[], "")?;
        String::from_utf8(body).map_err(io::Error::other)
    }

    pub(crate) fn publish(
        &mut self,
        subscription: &str,
        message_type: &str,
        headers: &[(&str, &str)],
        data: &Value,
    ) -> io::Result<(u16, Value)> {
        let path = "/api/dashboard/websocket/broadcast";
        let head = format!("POST {path}?subscription={subscription}&message_type={message_type}");
        self.call(&head, headers, &data.to_string())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// What a node answers on a path.
pub(crate) fn show(url: &str, path: &str) -> Value {
    let (status, shown) = Http::connect(url).call(&format!("GET {path}"), &[], "").unwrap();
    assert_eq!(status, 200, "{path}: {shown}");
    shown
}

/// A WebSocket session.
pub(crate) struct Socket {
    socket: WebSocket<TcpStream>,
}

impl Socket {
    /// Connects to `/api/dashboard/ws/` and `path`.
    pub(crate) fn connect(url: &str, path: &str, token: Option<&str>) -> Self {
        let bearer = token.map(|token| ("authorization", format!("Bearer {token}")));
        Self::connect_with(url, path, bearer.as_slice())
    }

    /// The same with these headers.
    pub(crate) fn connect_with(url: &str, path: &str, headers: &[(&'static str, String)]) -> Self {
        use tungstenite::client::IntoClientRequest as _;
        let address = url.replace("http://", "ws://");
        let mut request = format!("{address}/api/dashboard/ws/{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (socket, _) = tungstenite::client(request, connect(url)).unwrap();
        Self { socket }
    }

    /// A session, or the code and the reason that a handshake was closed with.
    pub(crate) fn try_connect(url: &str, path: &str) -> Result<Self, (u16, String)> {
        Self::try_connect_as(url, path, None)
    }

    /// The same with a credential.
    pub(crate) fn try_connect_as(url: &str, path: &str, token: Option<&str>) -> Result<Self, (u16, String)> {
        Self::connect(url, path, token).opened()
    }

    /// A place that is there. A handshake waits 250 ms for control to lend it, and one that is late is told
    /// 1013, like one for which there is none: that is worth another try.
    #[track_caller]
    pub(crate) fn with_a_place(url: &str, path: &str) -> Self {
        let socket = wait_for_some("a place", PATIENCE, || match Self::try_connect(url, path) {
            Ok(socket) => Ok(Some(socket)),
            Err((1013, _)) => Ok(None),
            Err(closed) => panic!("{closed:?}"),
        });
        socket.unwrap()
    }

    /// The session of a new socket, or the code and the reason that it was closed with.
    pub(crate) fn opened(mut self) -> Result<Self, (u16, String)> {
        match self.socket.read().unwrap() {
            Message::Text(text) => {
                assert!(text.contains("connection_established"), "{text}");
                Ok(self)
            }
            Message::Close(Some(frame)) => Err((frame.code.into(), frame.reason.to_string())),
            other => panic!("{other:?} after the handshake"),
        }
    }

    /// How a handshake that gets no session is closed.
    pub(crate) fn refused(url: &str, path: &str) -> (u16, String) {
        Self::try_connect(url, path).err().expect("the handshake got a session")
    }

    /// Waits for the end: its code and its reason.
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.socket.read().unwrap() {
                let frame = frame.expect("a close without a code");
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next frame; none when the socket was closed.
    pub(crate) fn next(&mut self) -> Option<Value> {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// The next frame of this type; others are passed over.
    pub(crate) fn wait_for(&mut self, frame_type: &str) -> Value {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("closed instead of {frame_type}"));
            if frame["type"] == frame_type {
                return frame;
            }
        }
    }
}

fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
