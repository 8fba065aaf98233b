//! The cap per user, over two nodes that follow one control plane.

use std::thread;

use hiveops_testkit::wait::{PATIENCE, wait_for, wait_for_some};
use serde_json::json;

use super::{assert_ended, metric};
use crate::whole::Whole;
use crate::wire::{Http, Socket};

const PER_USER: &str = "max_connections_per_user";
const PASSWORD: &str = "pw-marker-71aa03";
const PATH: &str = "dashboard?subscriptions=";

/// Makes a user and logs in through the first node.
fn token(fleet: &Whole, email: &str) -> String {
    let urls = fleet.control.urls();
    let args = ["users", "add", email, "--name", "Somebody", "--role", "viewer", "--control", &urls];
    let made = fleet.control.place.run_with(&args, &[], PASSWORD);
    assert_eq!(made.code, Some(0), "{}{}", made.out, made.err);
    let body = json!({"email": email, "password": PASSWORD}).to_string();
    let json = [("Content-Type", "application/json")];
    let (status, grant) = Http::connect(fleet.url(0)).call("POST /api/auth/login", &json, &body).unwrap();
    assert_eq!(status, 200, "{grant}");
    grant["access_token"].as_str().unwrap().to_owned()
}

fn attempt(fleet: &Whole, node: usize, token: &str) -> Result<Socket, (u16, String)> {
    Socket::try_connect_as(fleet.url(node), PATH, Some(token))
}

/// A place that is there. Control may be slow to say so: that is 1013, and worth another try.
fn session(fleet: &Whole, node: usize, token: &str) -> Socket {
    let socket = wait_for_some("a place", PATIENCE, || match attempt(fleet, node, token) {
        Ok(socket) => Ok(Some(socket)),
        Err((1013, _)) => Ok(None),
        Err(closed) => panic!("{closed:?}"),
    });
    socket.unwrap()
}

/// The user has all there is, and is told so once control has.
fn assert_full(fleet: &Whole, node: usize, token: &str) {
    wait_for("a refusal that is certain", || match attempt(fleet, node, token) {
        Ok(_) => panic!("a place too many"),
        Err((code, reason)) => {
            assert_eq!(reason, "connection_limit");
            code == 4403
        }
    })
    .unwrap();
}

/// Waits until the user gets in there.
fn admitted_again(fleet: &Whole, node: usize, token: &str) -> Socket {
    let socket = wait_for_some("a place again", PATIENCE, || Ok(attempt(fleet, node, token).ok()));
    socket.unwrap()
}

#[test]
fn a_users_places_are_counted_over_all_nodes_and_are_nobody_elses() {
    let fleet = Whole::with_logins(2);
    let (ada, bob) = (token(&fleet, "ada@example.org"), token(&fleet, "bob@example.org"));
    fleet.set(PER_USER, 3);
    let mut sessions = Vec::from([0, 1, 0].map(|node| session(&fleet, node, &ada)));
    for node in [0, 1] {
        assert_full(&fleet, node, &ada);
        let refused = metric(fleet.url(node), "hiveops_ws_handshakes_refused_total{reason=\"user_full\"}");
        assert_eq!(refused, 1.0);
    }
    session(&fleet, 0, &bob);
    // One that is closed at a node is a place at the other.
    drop(sessions.remove(0));
    sessions.push(admitted_again(&fleet, 1, &ada));
    assert_full(&fleet, 0, &ada);
}

#[test]
fn a_hundred_at_once_at_two_nodes_get_exactly_the_places_of_their_user() {
    let fleet = Whole::with_logins(2);
    let ada = token(&fleet, "ada@example.org");
    fleet.set(PER_USER, 10);
    let attempts: Vec<_> = thread::scope(|scope| {
        let one = |number: usize| {
            let (fleet, ada) = (&fleet, &ada);
            scope.spawn(move || attempt(fleet, number % 2, ada))
        };
        let threads: Vec<_> = (0..100).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sessions = Vec::new();
    for attempt in attempts {
        match attempt {
            Ok(socket) => sessions.push(socket),
            // A node that has not heard in time that there is none says so, and no more.
            Err((code, reason)) => {
                assert!([1013, 4403].contains(&code) && reason == "connection_limit", "{code} {reason}");
            }
        }
    }
    assert!(sessions.len() <= 10, "{}", sessions.len());
    // Places that were asked for and not used find somebody.
    while sessions.len() < 10 {
        sessions.push(admitted_again(&fleet, sessions.len() % 2, &ada));
    }
    [0, 1].iter().for_each(|node| assert_full(&fleet, *node, &ada));
    // All of them are served, to the last.
    for socket in &mut sessions {
        socket.send(r#"{"type":"ping"}"#);
        socket.wait_for("pong");
    }
}

#[test]
fn a_users_limit_that_is_lowered_ends_the_youngest_of_who_has_too_many() {
    let fleet = Whole::with_logins(1);
    let (ada, bob) = (token(&fleet, "ada@example.org"), token(&fleet, "bob@example.org"));
    let mut adas: Vec<Socket> = (0..4).map(|_| session(&fleet, 0, &ada)).collect();
    let mut bobs = session(&fleet, 0, &bob);
    fleet.set(PER_USER, 2);
    adas.drain(2..).for_each(|mut socket| {
        socket.wait_for("dashboard_initialized");
        assert_ended(&mut socket, "connection_limit");
    });
    for socket in adas.iter_mut().chain([&mut bobs]) {
        socket.send(r#"{"type":"ping"}"#);
        socket.wait_for("pong");
    }
    assert_full(&fleet, 0, &ada);
    session(&fleet, 0, &bob);
}
