//! What a test may rely on with `NatsServer`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use hiveops_testkit::broker::{NatsOptions, NatsServer};
use hiveops_testkit::wait::PATIENCE;

/// A client that speaks the protocol by hand, so that the kit depends on no client.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(server: &NatsServer, options: &str) -> Self {
        let stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { stream: BufReader::new(stream) };
        assert!(client.line().starts_with("INFO "));
        client.send(&format!("CONNECT {{\"verbose\":false{options}}}\r\nPING\r\n"));
        client
    }

    fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "closed");
        line.trim_end().to_owned()
    }

    /// A request of JetStream's interface, and the JSON it answers with.
    fn request(&mut self, subject: &str, body: &str) -> String {
        self.send(&format!("SUB _INBOX 1\r\nPUB {subject} _INBOX {}\r\n{body}\r\n", body.len()));
        while !self.line().starts_with("MSG ") {}
        self.send("UNSUB 1\r\n");
        self.line()
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_the_restart_on_the_same_port() {
    let mut server = NatsServer::start().unwrap();
    let addr = server.addr();
    assert!(server.info().unwrap().contains("\"version\":\"2.15."), "{}", server.info().unwrap());
    let mut client = Client::connect(&server, "");
    let made = client.request("$JS.API.STREAM.CREATE.T", r#"{"name":"T","subjects":["t.>"]}"#);
    assert!(made.contains("\"type\":\"io.nats.jetstream.api.v1.stream_create_response\""), "{made}");
    assert_eq!(client.request("t.1", "x"), r#"{"stream":"T","seq":1}"#);
    server.kill().unwrap();
    TcpStream::connect(addr).unwrap_err();
    server.restart().unwrap();
    assert_eq!(server.addr(), addr);
    assert_eq!(Client::connect(&server, "").request("t.2", "x"), r#"{"stream":"T","seq":2}"#);
}

#[test]
fn a_frozen_server_keeps_its_connections_and_answers_after_the_thaw() {
    let mut server = NatsServer::start().unwrap();
    let mut client = Client::connect(&server, "");
    assert_eq!(client.line(), "PONG");
    server.freeze().unwrap();
    client.send("PING\r\n");
    client.stream.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // Whatever it had sent by itself before it stood still.
    while client.stream.read_line(&mut String::new()).is_ok() {}
    server.thaw().unwrap();
    client.stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    while client.line() != "PONG" {}
}

#[test]
fn credentials_are_asked_for_and_limits_hold() {
    let options = NatsOptions {
        user: Some("hive".to_owned()),
        password: "a \"b\"".to_owned(),
        max_payload_bytes: Some(1_024),
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).unwrap();
    assert!(server.info().unwrap().contains("\"max_payload\":1024"));
    assert_eq!(Client::connect(&server, "").line(), "-ERR 'Authorization Violation'");
    let mut client = Client::connect(&server, r#","user":"hive","pass":"a \"b\"""#);
    assert_eq!(client.line(), "PONG");
}

#[test]
fn a_token_is_asked_for_and_is_in_the_url() {
    let options = NatsOptions { token: Some("t0ken".to_owned()), ..NatsOptions::default() };
    let server = NatsServer::start_with(options).unwrap();
    assert_eq!(server.url(), format!("nats://t0ken@{}", server.addr()));
    assert_eq!(Client::connect(&server, r#","auth_token":"t0ken""#).line(), "PONG");
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let options = NatsOptions { config: "nonsense: 1\n".to_owned(), ..NatsOptions::default() };
    let error = NatsServer::start_with(options).unwrap_err().to_string();
    assert!(error.contains("unknown field \"nonsense\""), "{error}");
}
