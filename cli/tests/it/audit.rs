//! `hiveops audit`: a node whose books are even, and endpoints whose are not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::harness::{Place, Ran, hiveops, nobody};
use crate::running::Running;
use crate::wire::Socket;

/// Something that answers one audit after the other with these residuals, and the last one from then on; it
/// ends with the test.
struct Fake {
    url: String,
    _serving: JoinHandle<()>,
}

impl Fake {
    fn new(answers: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let last = answers.last().cloned();
            let mut answers =
                answers.into_iter().chain(std::iter::repeat_with(move || last.clone().unwrap()));
            while let Ok((mut socket, _)) = listener.accept() {
                let mut head = BufReader::new(socket.try_clone().unwrap()).lines();
                let request = head.next().unwrap().unwrap();
                assert!(request.starts_with("GET /api/dashboard/audit "), "{request}");
                while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let body = answers.next().unwrap().to_string();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                // Who asked may have ended.
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        Self { url, _serving: serving }
    }

    fn audit(&self, args: &[&str]) -> Ran {
        hiveops(&[&["audit", "--url", &self.url], args].concat())
    }
}

fn books(status: &str, residual: i64) -> Value {
    json!({"node_id": "n1", "timestamp": "2026-11-24T18:30:45.007Z", "cluster": {
        "status": status, "residual": residual.unsigned_abs(), "missing": [],
        "nodes": [{"node_id": "n1", "incarnation": "0000000000000001", "complete": true, "residual": residual.unsigned_abs(),
            "subscriptions": {"tasks": {"recipients": 5, "caught_up": 0, "delivered": 5 - residual, "coalesced": 0,
                "dropped": {"closed": 0}, "pending": 0, "residual": residual}}}],
    }})
}

#[test]
fn the_books_of_a_running_node_are_even() {
    let (_node, url) = Running::dev(&Place::new(), &[], &[]);
    let mut socket = Socket::connect(&url, "dashboard?subscriptions=tasks", None);
    socket.wait_for("snapshot");
    for _ in 0..3 {
        let ran = hiveops(&["publish", "tasks", "task_event", r#"{"n":1}"#, "--url", &url]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        socket.wait_for("task_event");
    }
    let ran = hiveops(&["audit", "--url", &url]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let row = ran.out.lines().find(|line| line.contains(" tasks ")).unwrap();
    let words: Vec<&str> = row.split_whitespace().skip(1).collect();
    assert_eq!(words, ["tasks", "3", "3", "0", "0", "0", "0"]);
    assert!(ran.out.ends_with("residual 0: everything that was due is accounted for\n"), "{}", ran.out);
    let ran = hiveops(&["audit", "--url", &url, "--output", "json"]);
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &answer["cluster"]["residual"]), (Some(0), &json!(0)));
    assert_eq!(answer["cluster"]["nodes"][0]["subscriptions"]["tasks"]["delivered"], 3);
}

#[test]
fn a_residual_that_stays_fails_and_is_shown() {
    for residual in [1, -1] {
        let fake = Fake::new(vec![books("complete", residual)]);
        let ran = fake.audit(&["--timeout", "1"]);
        assert_eq!(ran.code, Some(1), "{}", ran.out);
        assert!(ran.out.ends_with("residual 1\n"), "{}", ran.out);
        assert!(ran.err.contains("1 frames are not accounted for"), "{}", ran.err);
        let ran = fake.audit(&["--timeout", "0", "--output", "json"]);
        let answer: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((ran.code, &answer["cluster"]["residual"]), (Some(1), &json!(1)));
    }
}

#[test]
fn books_that_become_even_or_whole_in_time_do_not_fail() {
    let fake = Fake::new(vec![books("complete", 2), books("partial", 0), books("complete", 0)]);
    assert_eq!(fake.audit(&[]).code, Some(0));
}

#[test]
fn books_that_are_not_whole_or_cannot_be_read_are_no_success() {
    let ran = Fake::new(vec![books("partial", 0)]).audit(&["--timeout", "0"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("not every node"), "{}", ran.err);
    let ran = Fake::new(vec![json!({"later": true})]).audit(&["--timeout", "0"]);
    assert!(ran.code == Some(1) && ran.err.contains("no books"), "{}", ran.err);
    let ran = hiveops(&["audit", "--url", &nobody(), "--timeout", "0"]);
    assert!(ran.code == Some(1) && ran.err.contains("cannot reach a node"), "{}", ran.err);
}
