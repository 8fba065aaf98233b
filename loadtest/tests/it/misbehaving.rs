//! Servers that refuse, end or disturb connections: what the tool says about each.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;

use crate::support::{Output, run};

const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// A whole text frame of under 126 bytes.
fn text(message: &str) -> Vec<u8> {
    let mut frame = vec![0x81, u8::try_from(message.len()).unwrap()];
    assert!(message.len() < 126);
    frame.extend(message.as_bytes());
    frame
}

/// Serves every connection that sends a request with `serve`, and returns the URL of its socket. The thread
/// ends with the test process: it waits for connections that no longer come.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            // The first connection only asks whether anybody is there, and says nothing.
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                request.push(byte[0]);
            }
            if request.ends_with(b"\r\n\r\n") {
                serve(stream);
            }
        }
    });
    url
}

fn idle(url: &str, more: &[&str]) -> Output {
    let always = ["idle", "--url", url, "--connections", "3", "--warmup", "0", "--settle-seconds", "0.1"];
    run(&[&always[..], more].concat())
}

#[test]
fn a_refusal_names_the_setting_to_raise() {
    let url = server(|mut stream| {
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let output = idle(&url, &[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.errors.contains("3 connections"), "{output:?}");
    assert!(output.errors.contains("WS_MAX_CONNECTIONS_PER_NODE"), "{output:?}");
    assert!(output.errors.contains("ulimit -n"), "{output:?}");
}

#[test]
fn a_close_for_overload_names_the_setting_to_raise() {
    let url = server(|mut stream| {
        let close = [&[0x88, 18, 0x03, 0xF5][..], b"connection_limit"].concat();
        stream.write_all(&[UPGRADED, &close].concat()).unwrap();
    });
    let output = idle(&url, &[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.errors.contains("1013 connection_limit"), "{output:?}");
    assert!(output.errors.contains("WS_MAX_CONNECTIONS_TOTAL"), "{output:?}");
}

#[test]
fn a_server_that_says_nothing_is_given_up_on() {
    let (hold, held) = sync_channel(8);
    let url = server(move |stream| hold.send(stream).unwrap());
    let output = idle(&url, &["--timeout-seconds", "0.3"]);
    drop(held);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.errors.contains("waiting for the handshake's answer"), "{output:?}");
    assert!(output.errors.contains("--timeout-seconds"), "{output:?}");
}

#[test]
fn a_session_without_its_subscription_is_a_failure() {
    let (hold, held) = sync_channel(8);
    let url = server(move |mut stream| {
        let frame = text(r#"{"type":"dashboard_initialized","subscriptions":["agents"]}"#);
        stream.write_all(&[UPGRADED, &frame].concat()).unwrap();
        hold.send(stream).unwrap();
    });
    let output = idle(&url, &["--subscriptions", "agents,tasks"]);
    drop(held);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.errors.contains("did not subscribe it to `tasks`"), "{output:?}");
}

#[test]
fn a_server_that_compresses_unasked_is_a_failure() {
    let url = server(|mut stream| {
        // `idle` does not offer it.
        stream.write_all(&[UPGRADED, &[0xC1, 2, 0x03, 0x00]].concat()).unwrap();
    });
    let output = idle(&url, &[]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.errors.contains("compresses without having been asked"), "{output:?}");
}

#[test]
fn pings_are_answered_and_a_ready_session_may_come_in_pieces() {
    let (report, pongs) = sync_channel(8);
    let url = server(move |mut stream| {
        let frame = text(r#"{"type":"dashboard_initialized","subscriptions":[]}"#);
        let ping = [0x89, 3, b'a', b'b', b'c'];
        for byte in [UPGRADED, &frame, &ping].concat() {
            stream.write_all(&[byte]).unwrap();
        }
        let mut pong = [0; 9];
        stream.read_exact(&mut pong).unwrap();
        report.send(pong).unwrap();
        // The client closes in the end and waits for the answer.
        let mut close = [0; 8];
        stream.read_exact(&mut close).unwrap();
        assert_eq!(close[0], 0x88);
        stream.write_all(&[0x88, 0]).unwrap();
    });
    let output = run(&[
        "idle",
        "--url",
        &url,
        "--connections",
        "1",
        "--warmup",
        "0",
        "--settle-seconds",
        "0.1",
        "--subscriptions",
        "none",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let [opcode, length, mask @ .., a, b, c] = pongs.recv().unwrap();
    assert_eq!((opcode, length), (0x8A, 0x80 | 3));
    assert_eq!([a ^ mask[0], b ^ mask[1], c ^ mask[2]], *b"abc");
}
