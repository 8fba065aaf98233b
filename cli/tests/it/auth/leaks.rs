//! Secrets where they do not belong, and in forms that nobody expects: none of it comes back, and none of it
//! is in a log or a metric.

use serde_json::{Value, json};

use super::house::{ADA, Carrier, House, denied, offer, password};

#[test]
fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
    let house = House::open(1, 1);
    house.add(ADA, "viewer");
    let login = house.log_in(0, ADA);
    let bearer = format!("Bearer {}", login.access);
    let paths = ["/api/auth/login", "/api/auth/refresh", "/api/auth/logout", "/api/v1/auth/login"];
    let bodies: [Value; 6] = [
        json!(login.access),
        json!([login.refresh]),
        json!({"email": login.access, "password": [password(ADA)]}),
        json!({"email": [login.refresh], "password": password(ADA)}),
        json!({"refresh_token": [login.refresh]}),
        json!({"refresh_token": 7, "access_token": login.access}),
    ];
    for path in paths {
        for body in &bodies {
            let (status, problem) = house.post(0, path, body);
            assert!((400..500).contains(&status), "{path}: {status} {problem}");
        }
        // What is no JSON at all is quoted by many a parser.
        let (status, _) = house.call(0, &format!("POST {path}"), &[], &password(ADA));
        assert!((400..500).contains(&status));
    }
    // Tokens that are none, as names, in paths and in queries; and twice.
    for head in ["GET /api/auth/me", "POST /api/auth/ws-ticket", "GET /api/dashboard/websocket/stats"] {
        let twice = [("Authorization", bearer.as_str()), ("Authorization", bearer.as_str())];
        denied(house.call(0, head, &twice, ""), (401, "unauthorized"));
        let basic = format!("Basic {}", login.access);
        denied(house.call(0, head, &[("Authorization", &basic)], ""), (401, "unauthorized"));
    }
    let unknown = format!("POST /api/dashboard/websocket/broadcast?subscription={}", login.access);
    house.call(0, &unknown, &[("Authorization", &bearer)], "{}");
    let huge = "A".repeat(100 * 1_024);
    let (status, _) = house.call(0, "GET /api/auth/me", &[("Authorization", &format!("Bearer {huge}"))], "");
    assert!([401, 431].contains(&status), "{status}");
    // The refresh token as an access token, and the other way round.
    let refused = house.try_socket(0, "dashboard", &Carrier::Header.headers(&login.refresh)).err();
    assert_eq!(refused, Some((4401, "credential_invalid".to_owned())));
    let twice = format!("{}, {}", offer(&login.access), offer(&login.access));
    let refused = house.try_socket(0, "dashboard", &[("sec-websocket-protocol", twice)]).err();
    assert_eq!(refused, Some((4401, "credential_invalid".to_owned())));
    denied(house.try_refresh(0, &login.access), (401, "invalid_refresh_token"));
    let mut socket = house.socket(0, &login);
    socket.send(&json!({"type": login.access, "token": login.refresh}).to_string());
    socket.wait_for("error");
    socket.send(&json!({"type": "auth_refresh", "token": login.refresh}).to_string());
    assert_eq!(socket.closed(), (4401, "credential_invalid".to_owned()));
    house.check_nothing_leaked();
}

/// The look itself: a name that is no secret, and stands in the logs, is found when it is taken for one.
#[test]
#[should_panic(expected = "a secret was seen")]
fn what_stands_in_a_log_is_found_there() {
    let house = House::open(1, 1);
    house.add(ADA, "viewer");
    let login = house.log_in(0, ADA);
    let (_, me) = house.me(0, &login.access);
    house.check_nothing_leaked();
    house.secret(me["id"].as_str().unwrap());
    house.check_nothing_leaked();
}
