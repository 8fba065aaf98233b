//! Control is gone, all of it: who is in stays in, who has a good token comes in, and a token that ends
//! meanwhile ends nobody's session.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::Timestamp;
use hiveops_proto::access::{ACCESS_TOKEN_MS, AccessClaims, TOKEN_LEEWAY_MS};
use hiveops_testkit::wait::wait_for;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::house::{ADA, Carrier, House, Login, denied, goes_on, password};
use crate::control::keys::private_keys;

/// How much of the leeway after its end a token has left: a busy machine needs some of it for the handshake.
const LEFT_MS: u64 = 8_000;

/// A token of the same login, as control would have made it ten minutes ago: by the key on the replica's disk.
fn nearly_ended(house: &House, login: &Login) -> String {
    let parts: Vec<&str> = login.access.split('.').collect();
    let part = |at: usize| URL_SAFE_NO_PAD.decode(parts[at]).unwrap();
    let header: Value = serde_json::from_slice(&part(0)).unwrap();
    let claims: AccessClaims = serde_json::from_slice(&part(1)).unwrap();
    let now: Timestamp = serde_json::from_value(house.whole.limits()[0]["timestamp"].clone()).unwrap();
    let ends = u64::try_from(now.as_millis()).unwrap() - TOKEN_LEEWAY_MS + LEFT_MS;
    let exp = ends / 1_000;
    let claims = AccessClaims { iat: exp - ACCESS_TOKEN_MS / 1_000, exp, ..claims };
    let keys = private_keys(&house.whole.control.place.dir.path().join("d1"));
    let private = URL_SAFE_NO_PAD.decode(&keys[0]).unwrap();
    let kid = header["kid"].as_str().unwrap().to_owned();
    let header = Header { kid: Some(kid), ..Header::new(Algorithm::EdDSA) };
    let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&private)).unwrap();
    house.secret(&token);
    token
}

/// For how long ended tokens keep their sockets in the test of the end of that, which looks at one meanwhile.
const GRACE_SECONDS: u64 = 8;

#[test]
fn the_time_for_which_an_ended_token_keeps_its_socket_ends() {
    let mut house = House::open(1, 1);
    house.add(ADA, "viewer");
    let login = house.log_in(0, ADA);
    house.whole.set("auth_outage_grace_seconds", GRACE_SECONDS);
    let mut good = house.socket(0, &login);
    house.kill_control();
    house.whole.all("views that say they are stale", |limits| limits["stale"] == true);
    let begun = Instant::now();
    let token = nearly_ended(&house, &login);
    let opened = house.try_socket(0, "dashboard?subscriptions=tasks", &Carrier::Header.headers(&token));
    let mut kept = opened.expect("a session");
    kept.wait_for("auth_expiring");
    wait_for("the end of the token", || house.figure(0, "hiveops_ws_auth_outage_kept_total") == 1.0).unwrap();
    goes_on(&mut kept);
    let notice = kept.wait_for("disconnect_notice");
    assert_eq!((&notice["reason"], &notice["code"]), (&json!("token_expired"), &json!(4401)));
    assert_eq!(kept.closed(), (4401, "token_expired".to_owned()));
    // Tokens end on whole seconds, so up to one of what it had left may be missing.
    let least = Duration::from_millis(LEFT_MS - 1_000) + Duration::from_secs(GRACE_SECONDS);
    assert!(begun.elapsed() >= least, "it was kept for {:?}", begun.elapsed());
    let expired = house.figure(0, "hiveops_ws_auth_denied_total{reason=\"expired\"}");
    assert_eq!(expired, 1.0);
    goes_on(&mut good);
    // So that the replica says what it has to say, too.
    house.restart_control();
    house.check_nothing_leaked();
}

#[test]
fn without_control_sockets_go_on_good_tokens_open_more_and_an_ended_one_is_kept() {
    let mut house = House::open(2, 1);
    house.add(ADA, "viewer");
    let login = house.log_in(0, ADA);
    let mut sockets = house.everywhere(&login);
    house.kill_control();
    house.whole.all("views that say they are stale", |limits| limits["stale"] == true);
    sockets.iter_mut().for_each(goes_on);
    house.everywhere(&login).iter_mut().for_each(goes_on);
    for node in 0..2 {
        denied(house.try_refresh(node, &login.refresh), (503, "control_unavailable"));
        let body = json!({"email": ADA, "password": password(ADA)});
        denied(house.post(node, "/api/auth/login", &body), (503, "control_unavailable"));
    }

    let token = nearly_ended(&house, &login);
    let opened = house.try_socket(0, "dashboard?subscriptions=tasks", &Carrier::Header.headers(&token));
    let mut kept = opened.expect("a session");
    kept.wait_for("auth_expiring");
    wait_for("the end of the token", || house.figure(0, "hiveops_ws_auth_outage_kept_total") == 1.0).unwrap();
    goes_on(&mut kept);
    let late = house.try_socket(0, "dashboard", &Carrier::Header.headers(&token));
    assert_eq!(late.err(), Some((4401, "token_expired".to_owned())), "nobody new comes in by it");

    house.restart_control();
    house.whole.all("fresh views", |limits| limits["stale"] == false);
    let renewed = house.refresh(0, &login.refresh);
    kept.send(&json!({"type": "auth_refresh", "token": renewed.access}).to_string());
    kept.wait_for("auth_refreshed");
    goes_on(&mut kept);
    sockets.iter_mut().for_each(goes_on);
    house.check_nothing_leaked();
}
