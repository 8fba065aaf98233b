//! Refresh tokens: many who use one at the same time get the same next one, who uses an old one ends the
//! login and its sockets, and so does logging out.

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::house::{ADA, House, Login, denied, goes_on, revoked};
use crate::control::metrics::figure;

const PARALLEL: usize = 50;

/// What became of the refreshes that the replicas were asked for.
fn outcomes(house: &House, outcome: &str) -> f64 {
    let series = format!("hiveops_auth_refresh_total{{outcome=\"{outcome}\"}}");
    (1..=3).map(|id| figure(&house.whole.control, id, &series)).sum()
}

#[test]
fn fifty_refreshes_at_once_through_two_nodes_are_one_lineage() {
    let house = House::open(2, 3);
    house.add(ADA, "viewer");
    let first = house.log_in(0, ADA);
    let logins: Vec<Login> = thread::scope(|scope| {
        let (house, first) = (&house, &first);
        let refresh = |number| scope.spawn(move || house.refresh_at_last(number % 2, &first.refresh));
        let runs: Vec<_> = (0..PARALLEL).map(refresh).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let newest: BTreeSet<&str> = logins.iter().map(|login| login.refresh.as_str()).collect();
    assert_eq!(newest.len(), 1, "there is one newest token");
    assert_ne!(logins[0].refresh, first.refresh);
    // A decision that comes late is refused, counted as that, and asked for again by the node or the client;
    // one whose asker has gone may still be counted. So these are not the exact number of askers.
    let (rotated, in_grace) = (outcomes(&house, "rotated"), outcomes(&house, "in_grace"));
    assert!(
        rotated <= 1.0 && rotated + in_grace >= PARALLEL as f64,
        "{rotated} rotated, {in_grace} in grace"
    );
    // Each of them is good, and the lineage goes on from the one token.
    for (number, login) in logins.iter().enumerate() {
        assert_eq!(house.me(number % 2, &login.access).0, 200);
    }
    house.refresh(1, &logins[0].refresh);
    assert_eq!(outcomes(&house, "reused"), 0.0);
    house.check_nothing_leaked();
}

#[test]
fn a_used_token_ends_the_login_and_its_sockets_on_both_nodes() {
    let house = House::open(2, 3);
    house.add(ADA, "viewer");
    let first = house.log_in(0, ADA);
    let second = house.refresh(1, &first.refresh);
    let third = house.refresh(0, &second.refresh);
    let other = house.log_in(1, ADA);
    // Sockets of the login's older and newer tokens, and those of another login of the same user.
    let sockets = [house.everywhere(&first), house.everywhere(&third)].into_iter().flatten();
    let sockets: Vec<_> = sockets.collect();
    let mut others = house.everywhere(&other);
    let begun = Instant::now();
    denied(house.try_refresh(1, &first.refresh), (401, "refresh_reused"));
    revoked(begun, sockets);
    // Whoever looks after the cluster learns whose login it was.
    let ended = house.logged("login ended, a refresh token of it was used again", 1);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0]["user"], house.me(0, &other.access).1["id"]);
    for node in 0..2 {
        denied(house.try_refresh(node, &third.refresh), (401, "invalid_refresh_token"));
        denied(house.me(node, &third.access), (401, "unauthorized"));
        let reused = house.figure(node, "hiveops_http_auth_refresh_total{outcome=\"reused\"}");
        assert_eq!(reused, if node == 1 { 1.0 } else { 0.0 });
    }
    others.iter_mut().for_each(goes_on);
    house.check_nothing_leaked();
}

#[test]
fn logging_out_at_one_node_closes_the_sockets_of_that_login_at_both() {
    let house = House::open(2, 1);
    house.add(ADA, "viewer");
    for by_refresh_token in [true, false] {
        let (login, other) = (house.log_in(0, ADA), house.log_in(1, ADA));
        let sockets = house.everywhere(&login);
        let mut others = house.everywhere(&other);
        let begun = Instant::now();
        let (status, answer) = if by_refresh_token {
            house.post(0, "/api/v1/auth/logout", &json!({"refresh_token": login.refresh}))
        } else {
            let bearer = format!("Bearer {}", login.access);
            house.call(0, "POST /api/auth/logout", &[("Authorization", &bearer)], "")
        };
        assert_eq!((status, answer), (200, json!({"success": true})));
        revoked(begun, sockets);
        denied(house.try_refresh(1, &login.refresh), (401, "invalid_refresh_token"));
        others.iter_mut().for_each(goes_on);
        // Once more ends nothing, is answered alike, and is called what it is.
        let again = house.post(0, "/api/v1/auth/logout", &json!({"refresh_token": login.refresh}));
        assert_eq!(again, (200, json!({"success": true})));
    }
    let ignored = house.logged("logout ignored", 2);
    assert_eq!(ignored.len(), 2);
    assert!(ignored.iter().all(|line| line["reason"] == "no_login" && line["correlation_id"].is_string()));
    let logouts = |outcome: &str| {
        let series = format!("hiveops_auth_logout_total{{outcome=\"{outcome}\"}}");
        figure(&house.whole.control, 1, &series)
    };
    assert_eq!((logouts("ended"), logouts("no_login"), logouts("invalid")), (2.0, 2.0, 0.0));
    house.check_nothing_leaked();
}
