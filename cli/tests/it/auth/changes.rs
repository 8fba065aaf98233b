//! What an administrator changes of a user reaches the user's open sockets on every node.

use std::time::{Duration, Instant};

use serde_json::json;

use super::house::{ADA, BOB, Carrier, House, denied, goes_on, revoked};

/// What a change may take until it is in force on every node, from before the command is started. Well below
/// a second is usual; this is for a busy machine.
const CHANGED_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn a_disabled_user_is_out_on_every_node_and_in_again_once_enabled() {
    let house = House::open(2, 3);
    house.add(ADA, "super_admin");
    house.add(BOB, "operator");
    let (ada, bob) = (house.log_in(0, ADA), house.log_in(1, BOB));
    let mut others = house.everywhere(&ada);
    let sockets = house.everywhere(&bob);
    let begun = Instant::now();
    house.run(&["users", "disable", BOB]);
    revoked(begun, sockets);
    for node in 0..2 {
        let refused = house.try_socket(node, "dashboard", &Carrier::Header.headers(&bob.access));
        assert_eq!(refused.err(), Some((4401, "revoked".to_owned())));
        denied(house.try_refresh(node, &bob.refresh), (401, "invalid_refresh_token"));
    }
    others.iter_mut().for_each(goes_on);
    house.run(&["users", "enable", BOB]);
    let bob = house.log_in(0, BOB);
    house.everywhere(&bob).iter_mut().for_each(goes_on);
    house.check_nothing_leaked();
}

#[test]
fn a_role_that_was_taken_away_is_gone_on_every_node_and_the_login_goes_on_with_less() {
    let house = House::open(2, 1);
    house.add(ADA, "super_admin");
    house.add(BOB, "enterprise_admin");
    let bob = house.log_in(0, BOB);
    let path = "dashboard?subscriptions=alerts,tasks";
    let open = |node, access: &str| {
        house.try_socket(node, path, &Carrier::Header.headers(access)).expect("a session")
    };
    let mut admins = [0, 1].map(|node| {
        let mut socket = open(node, &bob.access);
        let begun = socket.wait_for("dashboard_initialized");
        assert_eq!(begun["subscriptions"], json!(["alerts", "tasks"]));
        socket
    });
    let broadcast = |node, access: &str| {
        let bearer = format!("Bearer {access}");
        let path = "/api/dashboard/websocket/broadcast?subscription=tasks&message_type=task_event";
        house.call(node, &format!("POST {path}"), &[("Authorization", &bearer)], r#"{"note":"n"}"#)
    };
    assert_eq!(broadcast(1, &bob.access).0, 200);

    let begun = Instant::now();
    house.run(&["users", "set-role", BOB, "viewer"]);
    // The sockets go on with what a viewer may have, and so does the login.
    for socket in &mut admins {
        assert_eq!(socket.wait_for("error")["code"], "forbidden");
        assert_eq!(socket.wait_for("subscription_updated")["subscriptions"], json!(["tasks"]));
        assert!(begun.elapsed() < CHANGED_WITHIN, "{:?} were not enough", begun.elapsed());
        goes_on(socket);
    }
    let viewer = house.refresh(1, &bob.refresh);
    for node in 0..2 {
        denied(broadcast(node, &bob.access), (401, "unauthorized"));
        denied(broadcast(node, &viewer.access), (403, "forbidden"));
        let mut socket = open(node, &viewer.access);
        let error = socket.wait_for("error");
        assert_eq!(error["code"], "forbidden", "{error}");
        socket.send(r#"{"type":"subscribe","subscriptions":["alerts"]}"#);
        assert_eq!(socket.wait_for("error")["code"], "forbidden");
        assert_eq!(socket.wait_for("subscription_updated")["subscriptions"], json!(["tasks"]));
    }
    // Whoever loses more than a role is out, also on a socket that has gone on with another one.
    let begun = Instant::now();
    house.run(&["users", "disable", BOB]);
    revoked(begun, admins);
    house.check_nothing_leaked();
}
