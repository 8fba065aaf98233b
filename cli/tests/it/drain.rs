//! A node of the real binary that goes away: by a signal, by a second one, and by `hiveops drain`.

use std::collections::BTreeSet;
use std::thread::JoinHandle;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Place, Ran, nobody};
use crate::running::Running;
use crate::wire::{Http, Socket};

/// Longer than any test: whoever is sent off before is sent off by something else than the passing of time.
const FOR_EVER: &str = "3600";

fn node(place: &Place, drain_seconds: &str) -> (Running, String) {
    Running::dev(place, &[], &[("HIVEOPS_DRAIN_SECONDS", drain_seconds)])
}

fn tool(url: &str, args: &[&str]) -> Ran {
    Place::new().run(args, &[("HIVEOPS_URL", url)])
}

fn socket(url: &str) -> Socket {
    let mut socket = Socket::connect(url, "dashboard?subscriptions=tasks", None);
    socket.wait_for("snapshot");
    socket
}

/// Reads everything up to the close and hangs up, as a client does. Gives what came last.
fn reader(mut socket: Socket) -> JoinHandle<Value> {
    std::thread::spawn(move || {
        let mut last = Value::Null;
        while let Some(frame) = socket.next() {
            last = frame;
        }
        last
    })
}

/// The hints of the notices that ended these sessions.
fn hints(readers: Vec<JoinHandle<Value>>) -> BTreeSet<u64> {
    let notices = readers.into_iter().map(|reader| reader.join().unwrap());
    let hints = notices.map(|notice| {
        assert_eq!(
            (&notice["type"], &notice["reason"], &notice["code"]),
            (&json!("disconnect_notice"), &json!("draining"), &json!(1012))
        );
        notice["retry_after_ms"].as_u64().unwrap()
    });
    hints.collect()
}

#[test]
fn sigterm_sends_every_session_off_with_a_hint_of_its_own_and_ends_with_success() {
    let place = Place::new();
    let (mut node, url) = node(&place, "1");
    let readers: Vec<_> = (0..8).map(|_| reader(socket(&url))).collect();
    node.signal(Signal::TERM);
    assert_eq!(hints(readers).len(), 8);
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait_for_those_whose_turn_has_not_come() {
    let place = Place::new();
    let (mut node, url) = node(&place, FOR_EVER);
    let mut sockets = [socket(&url), socket(&url), socket(&url)];
    node.signal(Signal::TERM);
    // The first one was sent off; the last one is served as ever.
    sockets[0].wait_for("disconnect_notice");
    let (status, _) = Http::connect(&url).publish("tasks", "task_update", &[], &json!({"id": "t1"})).unwrap();
    assert_eq!(status, 200);
    assert_eq!(sockets[2].wait_for("task_update")["data"]["id"], "t1");
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(130));
}

#[test]
fn drain_sends_the_sessions_off_and_returns_when_the_node_has_gone() {
    let place = Place::new();
    let (mut node, url) = node(&place, FOR_EVER);
    let readers: Vec<_> = (0..3).map(|_| reader(socket(&url))).collect();
    let ran = tool(&url, &["drain", "--seconds", "1"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].ends_with(" drains: 3 sessions over 1 s"), "{lines:?}");
    assert!(lines.last().unwrap().ends_with(" has gone"), "{lines:?}");
    let between = &lines[1..lines.len() - 1];
    assert!(between.iter().all(|line| line.ends_with(" left")), "{lines:?}");
    assert_eq!(hints(readers).len(), 3);
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn drain_can_leave_a_node_alone_with_its_sessions_and_hurry_it_later() {
    let place = Place::new();
    let (mut node, url) = node(&place, FOR_EVER);
    let mut sockets = vec![socket(&url), socket(&url)];
    let begun = tool(&url, &["drain", "--no-wait"]);
    assert_eq!((begun.code, begun.out.lines().count()), (Some(0), 1), "{}{}", begun.out, begun.err);
    assert!(begun.out.ends_with(" drains: 2 sessions over 3600 s\n"), "{}", begun.out);
    sockets[0].wait_for("disconnect_notice");
    assert_eq!(tool(&url, &["healthcheck"]).code, Some(1));
    // The signal that follows, from whoever runs the node, finds it draining already.
    node.signal(Signal::TERM);
    let readers = sockets.drain(..).skip(1).map(reader).collect();
    let hurried = tool(&url, &["drain", "--seconds", "0", "--wait"]);
    assert_eq!(hurried.code, Some(0), "{}{}", hurried.out, hurried.err);
    assert_eq!(hints(readers).len(), 1);
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn drain_says_what_is_wrong_and_leaves_the_node_as_it_was() {
    let place = Place::new();
    let env = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", "a-token-of-the-tests")];
    let (_node, url) = Running::dev(&place, &[], &env);
    for (args, code, word) in [
        (&["drain", "--seconds", "soon", "--url", &url][..], 2, "whole seconds from 0 to 3600"),
        (&["drain", "--seconds", "3601", "--url", &url], 2, "whole seconds from 0 to 3600"),
        (&["drain", "--url", &url], 1, "unauthorized"),
        (&["drain", "--url", &nobody()], 1, "cannot reach a node"),
    ] {
        let ran = Place::new().run(args, &[]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(word), "{args:?}: {}", ran.err);
    }
    assert_eq!(tool(&url, &["healthcheck"]).code, Some(0));
}
