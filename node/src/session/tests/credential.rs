//! What a session does as its credential ends, is renewed, is taken away, or allows less than it did.

use hiveops_proto::access::Role;

use super::*;
use crate::auth::testing::{self, claims};

/// The beginning of these tests by the wall clock, in seconds.
const START: u64 = 1_700_000_000;

/// A session's idle time and pings are none of these tests' business.
fn world() -> Script {
    let mut world = Script::with(Limits {
        idle_disconnect_seconds: 86_400,
        protocol_ping_seconds: 3_600,
        heartbeat_silence_seconds: 3_600,
        auth_outage_grace_seconds: 300,
        ..Limits::default()
    });
    world.tokens = [
        ("later".to_owned(), token("ada", Role::Viewer, 1_200)),
        ("bob's".to_owned(), token("bob", Role::Viewer, 1_200)),
        ("promoted".to_owned(), token("ada", Role::SuperAdmin, 1_200)),
    ]
    .into();
    world
}

fn token(sub: &str, role: Role, ends: u64) -> AccessClaims {
    AccessClaims { iat: START + ends - 600, exp: START + ends, ..claims(sub, role) }
}

fn user(role: Role) -> Principal {
    testing::user(token("ada", role, 600))
}

fn opened_by(world: &Script, principal: Principal, subscriptions: &[&str]) -> (Session, Vec<String>) {
    let mut actions = Vec::new();
    let session = Session::open(Setup { principal, ..setup(subscriptions) }, world, &mut actions);
    let brief = brief(world, &actions);
    (session, brief)
}

fn refresh(token: &str) -> String {
    json!({"type": "auth_refresh", "token": token, "correlation_id": "r1"}).to_string()
}

#[test]
fn a_client_is_told_a_minute_before_and_closed_after_the_leeway() {
    let world = world();
    let (mut session, _) = opened_by(&world, user(Role::Viewer), &[]);
    let due = |session: &Session| session.next_deadline(world.limits()).as_millis();
    assert_eq!(due(&session), 540_000);
    check(&mut session, world.at(539_999), Event::Tick, &[]);
    let told = check(&mut session, world.at(540_000), Event::Tick, &["auth_expiring"]);
    assert_eq!(json_of(&told[0])["expires_at"], "2023-11-14T22:23:20.000Z");
    assert_eq!(due(&session), 630_000);
    check(&mut session, world.at(629_999), Event::Tick, &[]);
    let end = ["denied expired", "disconnect_notice", "close token_expired"];
    let ended = check(&mut session, world.at(630_000), Event::Tick, &end);
    assert_eq!(json_of(&ended[1])["code"], 4401);
    check(&mut session, world.at(700_000), Event::Tick, &[]);
}

#[test]
fn what_has_begun_late_ends_when_it_would_have_ended() {
    let world = world();
    let principal = testing::user(token("ada", Role::Viewer, 600));
    world.at(610_000);
    let (mut session, _) = opened_by(&world, principal, &[]);
    check(&mut session, &world, Event::Tick, &["auth_expiring"]);
    check(&mut session, world.at(629_999), Event::Tick, &[]);
    assert_eq!(handle(&mut session, world.at(630_000), Event::Tick).len(), 3);
    // A node that has just been started, whose clock has not run for as long as the leeway.
    let principal = testing::user(token("ada", Role::Viewer, 0));
    let (mut session, _) = opened_by(world.at(20_000), principal, &[]);
    check(&mut session, &world, Event::Tick, &["auth_expiring"]);
    check(&mut session, world.at(29_999), Event::Tick, &[]);
    assert_eq!(handle(&mut session, world.at(30_000), Event::Tick).len(), 3);
}

/// Else a client that renews when it is told would renew without end.
#[test]
fn of_a_short_credential_half_is_over_before_the_client_is_told_also_after_a_renewal() {
    for (good_seconds, told_ms) in [(10, 5_000), (40, 20_000), (60, 30_000), (90, 45_000), (150, 90_000)] {
        let mut world = world();
        let short = |from: u64| token("ada", Role::Viewer, from + good_seconds);
        world.tokens.insert("next".to_owned(), short(told_ms / 1_000));
        let (mut session, _) = opened_by(&world, testing::user(short(0)), &[]);
        check(&mut session, world.at(told_ms - 1), Event::Tick, &[]);
        check(&mut session, world.at(told_ms), Event::Tick, &["auth_expiring"]);
        check(&mut session, &world, Event::Text(&refresh("next")), &["refreshed", "auth_refreshed"]);
        check(&mut session, world.at(2 * told_ms - 1), Event::Tick, &[]);
        check(&mut session, world.at(2 * told_ms), Event::Tick, &["auth_expiring"]);
    }
}

#[test]
fn what_is_renewed_in_time_goes_on_and_is_told_again() {
    let world = world();
    let (mut session, _) = opened_by(&world, user(Role::Viewer), &[]);
    check(&mut session, world.at(540_000), Event::Tick, &["auth_expiring"]);
    let actions = check(
        &mut session,
        world.at(550_000),
        Event::Text(&refresh("later")),
        &["refreshed", "auth_refreshed"],
    );
    let frame = json_of(&actions[1]);
    assert_eq!(
        (&frame["expires_at"], &frame["correlation_id"]),
        (&json!("2023-11-14T22:33:20.000Z"), &json!("r1"))
    );
    check(&mut session, world.at(1_139_999), Event::Tick, &[]);
    check(&mut session, world.at(1_140_000), Event::Tick, &["auth_expiring"]);
}

#[test]
fn a_bad_token_or_somebody_elses_ends_the_session_and_shows_nothing() {
    for (token, denial, reason) in
        [("s3cret", "signature", "credential_invalid"), ("bob's", "subject", "credential_invalid")]
    {
        let world = world();
        let (mut session, _) = opened_by(&world, user(Role::Viewer), &["tasks"]);
        let (denied, closed) = (format!("denied {denial}"), format!("close {reason}"));
        let expected = [denied.as_str(), "disconnect_notice", closed.as_str()];
        let actions = check(&mut session, &world, Event::Text(&refresh(token)), &expected);
        assert_eq!(json_of(&actions[1])["correlation_id"], "r1");
        assert!(!format!("{actions:?}").contains("s3cret"));
    }
}

#[test]
fn what_does_not_end_cannot_be_renewed() {
    for principal in [Principal::Anyone, Principal::Shared(Role::Viewer)] {
        let world = world();
        let (mut session, _) = opened_by(&world, principal, &[]);
        check(&mut session, &world, Event::Text(&refresh("later")), &["error invalid_message"]);
        check(&mut session, world.at(10_000_000), Event::Access, &[]);
    }
}

#[test]
fn while_control_is_away_a_session_is_kept_for_its_time_and_told_when_control_is_back() {
    let world = world();
    let (mut session, _) = opened_by(&world, user(Role::Viewer), &[]);
    check(&mut session, world.at(540_000), Event::Tick, &["auth_expiring"]);
    world.is_control_away.set(true);
    check(&mut session, world.at(630_000), Event::Tick, &["kept"]);
    check(&mut session, world.at(631_000), Event::Tick, &[]);
    check(&mut session, world.at(700_000), Event::Tick, &[]);
    world.is_control_away.set(false);
    check(&mut session, world.at(701_000), Event::Tick, &["auth_expiring"]);
    check(&mut session, world.at(730_999), Event::Tick, &[]);
    assert_eq!(handle(&mut session, world.at(731_000), Event::Tick).len(), 3, "it was not renewed");
}

#[test]
fn the_time_that_it_is_kept_ends() {
    let world = world();
    let (mut session, _) = opened_by(&world, user(Role::Viewer), &[]);
    world.is_control_away.set(true);
    check(&mut session, world.at(630_000), Event::Tick, &["auth_expiring", "kept"]);
    check(&mut session, world.at(929_999), Event::Tick, &[]);
    assert_eq!(session.next_deadline(world.limits()).as_millis(), 930_999);
    let end = ["denied expired", "disconnect_notice", "close token_expired"];
    check(&mut session, world.at(930_999), Event::Tick, &end);
}

#[test]
fn a_known_revocation_ends_a_session_whether_control_is_there_or_not() {
    for away in [false, true] {
        let world = world();
        let (mut session, _) = opened_by(&world, user(Role::Viewer), &["tasks"]);
        check(&mut session, &world, Event::Access, &[]);
        world.is_control_away.set(away);
        world.standing.set(Standing::Revoked);
        let end = ["denied revoked", "disconnect_notice", "close revoked"];
        let actions = check(&mut session, &world, Event::Access, &end);
        assert_eq!(json_of(&actions[1])["code"], 4401);
    }
}

#[test]
fn with_another_role_a_session_goes_on_with_what_that_allows() {
    let world = world();
    let (mut session, _) = opened_by(&world, user(Role::SuperAdmin), &["alerts", "tasks"]);
    let change = |role, generation| world.standing.set(Standing::Role { role, generation });
    change(Role::Viewer, 4);
    let expected = ["leave alerts", "denied forbidden", "error forbidden", "subscription_updated"];
    let actions = check(&mut session, &world, Event::Access, &expected);
    let (error, updated) = (json_of(&actions[2]), json_of(&actions[3]));
    assert!(error["message"].as_str().unwrap().ends_with(": alerts"), "{error}");
    assert_eq!(updated["subscriptions"], json!(["tasks"]));
    assert_eq!(error["correlation_id"], updated["correlation_id"]);
    // Once; and it may not join it again.
    check(&mut session, &world, Event::Access, &[]);
    let subscribe = json!({"type": "subscribe", "subscriptions": ["alerts"]}).to_string();
    let refused = ["denied forbidden", "error forbidden", "subscription_updated"];
    check(&mut session, &world, Event::Text(&subscribe), &refused);
    // With more than before it hears nothing, and may.
    change(Role::EnterpriseAdmin, 5);
    check(&mut session, &world, Event::Access, &[]);
    let joined = ["subscription_updated", "join alerts by snapshot"];
    check(&mut session, &world, Event::Text(&subscribe), &joined);
}

#[test]
fn a_role_joins_what_it_may_and_hears_once_of_the_rest() {
    let world = world();
    let names = ["alerts", "tasks", "zoo"];
    let (mut session, first) = opened_by(&world, user(Role::Viewer), &names);
    let begun = [
        "connection_established",
        "error unknown_subscription",
        "denied forbidden",
        "error forbidden",
        "dashboard_initialized",
        "join tasks by snapshot",
    ];
    assert_eq!(first, begun);
    let subscribe =
        json!({"type": "subscribe", "subscriptions": ["alerts", "system"], "correlation_id": "s1"});
    let expected = ["denied forbidden", "error forbidden", "subscription_updated", "join system by snapshot"];
    let actions = check(&mut session, &world, Event::Text(&subscribe.to_string()), &expected);
    assert_eq!(json_of(&actions[1])["correlation_id"], "s1");
    assert!(json_of(&actions[1])["message"].as_str().unwrap().ends_with(": alerts"));
    for principal in [Principal::Anyone, user(Role::EnterpriseAdmin), Principal::Shared(Role::SuperAdmin)] {
        let (session, first) = opened_by(&world, principal, &["alerts"]);
        assert!(!first.contains(&"error forbidden".to_owned()) && session.joined().len() == 1, "{first:?}");
    }
}

#[test]
fn the_defaults_of_a_route_are_joined_as_far_as_the_role_goes() {
    let world = world();
    let setup = Setup {
        principal: user(Role::Operator),
        endpoint: Endpoint::System,
        subscriptions: None,
        ..setup(&[])
    };
    let mut actions = Vec::new();
    let session = Session::open(setup, &world, &mut actions);
    assert_eq!(session.joined().iter().collect::<Vec<_>>(), [world.sub("system")]);
    assert!(brief(&world, &actions).contains(&"error forbidden".to_owned()));
}

#[test]
fn with_less_than_before_a_session_leaves_what_it_may_not_have() {
    let world = world();
    let (mut session, _) = opened_by(&world, user(Role::SuperAdmin), &["alerts", "tasks"]);
    let expected = [
        "refreshed",
        "auth_refreshed",
        "leave alerts",
        "denied forbidden",
        "error forbidden",
        "subscription_updated",
    ];
    check(&mut session, &world, Event::Text(&refresh("later")), &expected);
    check(&mut session, &world, Event::Text(&refresh("promoted")), &["refreshed", "auth_refreshed"]);
    let subscribe = json!({"type": "subscribe", "subscriptions": ["alerts"]}).to_string();
    check(
        &mut session,
        &world,
        Event::Text(&subscribe),
        &["subscription_updated", "join alerts by snapshot"],
    );
}
