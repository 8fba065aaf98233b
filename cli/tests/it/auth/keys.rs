//! A signing key that is replaced: nobody who has a token notices, unless the key was lost and has to go now.
//!
//! The new key signs a minute after it was published, which nothing shortens. So handshakes go on before,
//! during and after the step that reaches the nodes, which is the publishing; that each key is good for as
//! long as something that it signed is the state machine's, and tested there (`control/src/state/keys.rs`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use hiveops_testkit::wait::wait_for;

use super::house::{ADA, Carrier, House, Login, goes_on, revoked};

const HANDSHAKES: usize = 1_000;
const CLIENTS: usize = 4;
const PATH: &str = "dashboard?subscriptions=tasks";

/// The keys that a node publishes.
fn kids(house: &House, node: usize) -> Vec<String> {
    let set = house.whole.get(node, "/.well-known/jwks.json");
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_rotation_during_a_thousand_handshakes_refuses_none() {
    let house = House::open(2, 1);
    house.add(ADA, "viewer");
    let login = house.log_in(0, ADA);
    let mut sockets = house.everywhere(&login);
    let (opened, rotated) = (AtomicUsize::new(0), AtomicBool::new(false));
    let client = |number: usize| {
        // Until there were enough of them, and some after the rotation.
        for turn in 0.. {
            let after = rotated.load(Ordering::SeqCst);
            let carrier = Carrier::ALL[turn % Carrier::ALL.len()];
            let session = house.try_socket((number + turn) % 2, PATH, &carrier.headers(&login.access));
            session.unwrap_or_else(|closed| panic!("{carrier:?}: {closed:?}"));
            if opened.fetch_add(1, Ordering::SeqCst) + 1 >= HANDSHAKES && after {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let client = &client;
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        let ended = || clients.iter().any(|client| client.is_finished());
        wait_for("the storm", || opened.load(Ordering::SeqCst) >= HANDSHAKES / 4 || ended()).unwrap();
        house.run(&["keys", "rotate"]);
        wait_for("both keys at both nodes", || (0..2).all(|node| kids(&house, node).len() == 2)).unwrap();
        rotated.store(true, Ordering::SeqCst);
    });
    assert!(opened.load(Ordering::SeqCst) >= HANDSHAKES);
    sockets.iter_mut().for_each(goes_on);
    for node in 0..2 {
        let denials = house.figure(node, "hiveops_ws_auth_denied_total{reason=\"unknown_key\"}");
        assert_eq!(denials, 0.0);
    }
    house.refresh(1, &login.refresh);
    house.check_nothing_leaked();
}

#[test]
fn an_urgent_rotation_refuses_what_the_lost_key_signed_and_a_refresh_helps_at_once() {
    let house = House::open(2, 1);
    house.add(ADA, "viewer");
    let old = house.log_in(0, ADA);
    let (before, sockets) = (kids(&house, 0), house.everywhere(&old));
    let begun = Instant::now();
    house.run(&["keys", "rotate", "--urgent"]);
    // Somebody with the lost key could have opened them, as anybody.
    revoked(begun, sockets);
    wait_for("the new key alone", || {
        (0..2).all(|node| kids(&house, node).len() == 1 && kids(&house, node) != before)
    })
    .unwrap();
    let open = |node, login: &Login| house.try_socket(node, PATH, &Carrier::Header.headers(&login.access));
    for node in 0..2 {
        assert_eq!(open(node, &old).err(), Some((4401, "credential_invalid".to_owned())));
    }
    let new = house.refresh(1, &old.refresh);
    for node in 0..2 {
        assert!(open(node, &new).is_ok());
    }
    house.check_nothing_leaked();
}
