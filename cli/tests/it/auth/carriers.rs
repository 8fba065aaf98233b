//! Who logs in at one node is let in by every node, by each way that a credential can come; and is told
//! apart from whoever brings none, a bad one, or one from a page of somebody else's.

use serde_json::json;

use super::house::{ADA, Carrier, Headers, House, PAGE, goes_on, offer};

const PATH: &str = "dashboard?subscriptions=tasks";

#[test]
fn a_login_at_one_node_opens_sockets_at_both_by_each_carrier() {
    let house = House::open(2, 3);
    house.add(ADA, "operator");
    let login = house.log_in(0, ADA);
    for node in 0..2 {
        let (status, me) = house.me(node, &login.access);
        assert_eq!((status, &me["email"], &me["role"]), (200, &json!(ADA), &json!("operator")));
        for carrier in Carrier::ALL {
            let opened = house.try_socket(node, PATH, &carrier.headers(&login.access));
            let mut socket = opened.unwrap_or_else(|closed| panic!("{carrier:?}: {closed:?}"));
            goes_on(&mut socket);
        }
    }
    // A ticket opens one socket, once, and at the node that gave it.
    let bearer = format!("Bearer {}", login.access);
    let ticket = || {
        let (status, answer) = house.call(0, "POST /api/auth/ws-ticket", &[("Authorization", &bearer)], "");
        assert_eq!(status, 200, "{answer}");
        let ticket = answer["ticket"].as_str().unwrap().to_owned();
        house.secret(&ticket);
        format!("{PATH}&ticket={ticket}")
    };
    let refused = (4401, "credential_invalid".to_owned());
    let path = ticket();
    goes_on(&mut house.try_socket(0, &path, &[]).expect("a session"));
    assert_eq!(house.try_socket(0, &path, &[]).err(), Some(refused.clone()));
    assert_eq!(house.try_socket(1, &ticket(), &[]).err(), Some(refused));
    house.check_nothing_leaked();
}

#[test]
fn refused_handshakes_are_told_why_counted_and_logged() {
    let house = House::open(1, 1);
    house.add(ADA, "viewer");
    let login = house.log_in(0, ADA);
    let (head, signature) = login.access.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let query = format!("{PATH}&access_token={}", login.access);
    let cookie = || ("cookie", format!("hiveops_session={}", login.access));
    let origin = |text: &str| ("origin", text.to_owned());
    let invalid = (4401, "credential_invalid");
    let foreign = (4403, "origin_denied");
    let table: [(&str, Headers, (u16, &str), &str); 8] = [
        (PATH, vec![], (4401, "credential_missing"), "credential_missing"),
        (PATH, vec![("authorization", format!("Bearer {forged}"))], invalid, "signature"),
        (PATH, vec![("sec-websocket-protocol", offer(&"x".repeat(5_000)))], invalid, "too_large"),
        (&query, vec![], invalid, "query_token"),
        (PATH, vec![cookie()], foreign, ""),
        (PATH, vec![cookie(), origin("https://ops.example.evil.example")], foreign, ""),
        (PATH, vec![cookie(), origin(PAGE), origin(PAGE)], foreign, ""),
        (PATH, [Carrier::Header.headers(&login.access), vec![origin("null")]].concat(), foreign, ""),
    ];
    let origins = || house.figure(0, "hiveops_ws_origin_denied_total");
    for (path, headers, (code, reason), counted) in table {
        let series = format!("hiveops_ws_auth_denied_total{{reason=\"{counted}\"}}");
        let count = || if counted.is_empty() { origins() } else { house.figure(0, &series) };
        let before = count();
        let refused = house.try_socket(0, path, &headers).err();
        assert_eq!(refused, Some((code, reason.to_owned())), "{counted}");
        assert_eq!(count(), before + 1.0, "{counted}");
    }
    house.check_nothing_leaked();
}
