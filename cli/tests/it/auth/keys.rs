//! A signing key that is replaced: nobody who has a token notices, unless the key was lost and has to go now.
//!
//! The times of a rotation are short here (HIVEOPS_CONTROL_KEY_…), so that handshakes go on through all of it: the new
//! key is published, signs, and the old one is retired. That the usual times fit slow nodes and clocks that differ is
//! the state machine's, and tested there (`control/src/state/keys.rs`).

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_testkit::wait::{wait_for, wait_for_some};
use serde_json::Value;

use super::house::{ADA, Carrier, House, Login, goes_on, revoked};
use crate::control::cluster::call;

const HANDSHAKES: usize = 1_000;
/// By each key while both are good, which is 25 s.
const IN_OVERLAP: usize = 100;
/// So many that all of them are enough, however few the machine manages while a rotation's clock runs.
const BEFORE: usize = HANDSHAKES - 2 * IN_OVERLAP;
/// The login is refreshed after as many: they take far less than the 55 s for which its token is good.
const BETWEEN_REFRESHES: usize = 100;
const CLIENTS: usize = 4;
const PATH: &str = "dashboard?subscriptions=tasks";
/// A rotation takes 31 s here, and what comes before it as long as the machine needs.
const ROTATED_WITHIN: Duration = Duration::from_secs(240);
const INVALID: (u16, &str) = (4401, "credential_invalid");

/// The keys that a node publishes.
fn kids(house: &House, node: usize) -> Vec<String> {
    let set = house.whole.get(node, "/.well-known/jwks.json");
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// The key that signed a token.
fn kid(access: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(access.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// Whether a key that is not this one signs.
fn another_signs(house: &House, old: &str) -> bool {
    let address = house.whole.control.addr(1);
    let (_, answer) = call(address, "GET", "/api/control/keys", &[], "").unwrap();
    let keys = answer["keys"].as_array().unwrap();
    keys.iter().any(|key| key["state"] == "signing" && key["kid"] != old)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Before,
    Published,
    Both,
    Retired,
}

/// Clients that open one socket after the other.
struct Storm<'a> {
    house: &'a House,
    old_kid: String,
    phase: Mutex<Phase>,
    /// That of the old key, and that of the new one once there is one.
    tokens: Mutex<Vec<String>>,
    /// Sessions, by when they were begun and by which of the tokens.
    opened: Mutex<BTreeMap<(Phase, usize), usize>>,
    refused: AtomicUsize,
}

impl Storm<'_> {
    fn opened(&self, at: impl Fn(Phase, usize) -> bool) -> usize {
        let opened = self.opened.lock().unwrap();
        opened.iter().filter(|((phase, token), _)| at(*phase, *token)).map(|(_, count)| count).sum()
    }

    fn next(&self, phase: Phase) {
        *self.phase.lock().unwrap() = phase;
    }

    fn handshake(&self, number: usize, turn: usize) {
        let phase = *self.phase.lock().unwrap();
        let (which, token) = {
            let tokens = self.tokens.lock().unwrap();
            let which = turn % tokens.len();
            (which, tokens[which].clone())
        };
        let (node, carrier) = ((number + turn / 2) % 2, Carrier::ALL[turn % Carrier::ALL.len()]);
        match self.house.try_socket(node, PATH, &carrier.headers(&token)) {
            Ok(_) => *self.opened.lock().unwrap().entry((phase, which)).or_default() += 1,
            Err((code, reason)) => {
                // Only what the old key signed, and only from when this node does not take the key any more.
                let is_old = which == 0 && !kids(self.house, node).contains(&self.old_kid);
                assert!(is_old && (code, &*reason) == INVALID, "{phase:?} {carrier:?}: {code} {reason}");
                self.refused.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// One after the other, until the old key is gone and some have come in since.
    fn client(&self, number: usize) {
        let mut turn = 0;
        wait_for_some("the end of the rotation", ROTATED_WITHIN, || {
            self.handshake(number, turn);
            turn += 1;
            let after = self.opened(|phase, _| phase == Phase::Retired);
            Ok((after >= 10 * CLIENTS && self.refused.load(Ordering::SeqCst) > 0).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn a_whole_rotation_during_a_thousand_handshakes_refuses_none_and_then_the_old_key_is_out() {
    let house = House::in_a_hurry(2);
    house.add(ADA, "viewer");
    let login = house.log_in(0, ADA);
    let storm = Storm {
        house: &house,
        old_kid: kid(&login.access),
        phase: Mutex::new(Phase::Before),
        tokens: Mutex::new(vec![login.access.clone()]),
        opened: Mutex::default(),
        refused: AtomicUsize::new(0),
    };
    let (old, new) = thread::scope(|scope| {
        let storm = &storm;
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || storm.client(number))).collect();
        // A client that has failed says why; waiting for more would hide it.
        let failed = || clients.iter().any(|client| client.is_finished());
        let wait = |what: &str, holds: &dyn Fn() -> bool| {
            wait_for_some(what, ROTATED_WITHIN, || Ok((holds() || failed()).then_some(()))).unwrap();
        };
        // The last refresh is just before the rotation, so that its token outlives the key by a good while.
        let mut old = login;
        for count in (BETWEEN_REFRESHES..=BEFORE).step_by(BETWEEN_REFRESHES) {
            wait("the storm", &|| storm.opened(|_, _| true) >= count);
            old = house.refresh(0, &old.refresh);
            assert_eq!(kid(&old.access), storm.old_kid);
            storm.tokens.lock().unwrap()[0] = old.access.clone();
        }
        let mut sockets = house.everywhere(&old);
        house.run(&["keys", "rotate"]);
        storm.next(Phase::Published);
        wait("the new key everywhere", &|| (0..2).all(|node| kids(&house, node).len() == 2));
        wait("sessions since", &|| storm.opened(|phase, _| phase == Phase::Published) >= CLIENTS);
        wait("the new key to sign", &|| another_signs(&house, &storm.old_kid));
        let new = house.refresh(1, &old.refresh);
        assert_ne!(kid(&new.access), storm.old_kid);
        storm.tokens.lock().unwrap().push(new.access.clone());
        storm.next(Phase::Both);
        for token in 0..2 {
            wait("sessions by both keys", &|| {
                storm.opened(|phase, by| phase == Phase::Both && by == token) >= IN_OVERLAP
            });
        }
        assert_eq!(storm.refused.load(Ordering::SeqCst), 0, "both keys are good");
        sockets.iter_mut().for_each(goes_on);
        wait("the old key to go", &|| (0..2).all(|node| kids(&house, node) == [kid(&new.access)]));
        storm.next(Phase::Retired);
        // Who was in stays in.
        sockets.iter_mut().for_each(goes_on);
        (old, new)
    });
    let counts = storm.opened.lock().unwrap().clone();
    assert!(counts.values().sum::<usize>() >= HANDSHAKES, "{counts:?}");
    for (phase, token) in [(Phase::Before, 0), (Phase::Published, 0), (Phase::Both, 0), (Phase::Both, 1)] {
        assert!(counts.contains_key(&(phase, token)), "{phase:?} {token}: {counts:?}");
    }
    // Its token would be good for some twenty seconds still, by the leeway; it is the key that is gone.
    for node in 0..2 {
        let open = |login: &Login| house.try_socket(node, PATH, &Carrier::Header.headers(&login.access));
        assert_eq!(open(&old).err(), Some((INVALID.0, INVALID.1.to_owned())));
        assert!(open(&new).is_ok());
        let denied = |reason: &str| {
            house.figure(node, &format!("hiveops_ws_auth_denied_total{{reason=\"{reason}\"}}"))
        };
        assert!(denied("unknown_key") + denied("key_retired") >= 1.0);
        assert_eq!(denied("expired") + denied("revoked"), 0.0);
    }
    house.refresh(1, &new.refresh);
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
