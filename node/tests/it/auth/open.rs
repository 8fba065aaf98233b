//! Open sockets: told before their credential ends, renewed without a reconnect, closed when it is taken away.

use hiveops_proto::access::{ChangedRole, RevokedSubject, Role};
use serde_json::{Value, json};

use super::tokens::{self, claims, claims_until, header, now, signed, token};
use super::{check_ended, check_refused, denied, joined, leaks, start};
use crate::harness::{Node, Socket};

const QUIET: &str = "dashboard?subscriptions=";

async fn quiet(node: &Node, token: &str) -> Socket {
    let mut socket = joined(node, QUIET, token).await;
    socket.expect("dashboard_initialized").await;
    socket
}

async fn refresh(socket: &mut Socket, token: &str) {
    socket.send(json!({"type": "auth_refresh", "token": token, "correlation_id": "r1"})).await;
}

#[tokio::test]
async fn a_socket_is_renewed_without_a_reconnect() {
    let node = start().await;
    let mut socket = quiet(&node, &token("ada", Role::Viewer)).await;
    let renewed = claims("ada", Role::Viewer);
    refresh(&mut socket, &signed(&header(), &renewed)).await;
    let frame = socket.expect("auth_refreshed").await;
    assert_eq!(frame["correlation_id"], "r1");
    let expires_at = hiveops_proto::Timestamp::parse(frame["expires_at"].as_str().unwrap()).unwrap();
    assert_eq!(expires_at.as_millis(), renewed["exp"].as_i64().unwrap() * 1_000);
    assert_eq!(node.metric("hiveops_ws_auth_refreshed_total").await, 1.0);
    leaks::check();
}

#[tokio::test]
async fn a_bad_token_or_another_users_closes_the_socket() {
    let node = start().await;
    let bent = signed(&header(), &json!({"sub": "ada"}));
    for (renewal, reason) in [(token("bob", Role::SuperAdmin), "subject"), (bent, "claims")] {
        let mut socket = quiet(&node, &token("ada", Role::Viewer)).await;
        refresh(&mut socket, &renewal).await;
        check_ended(&mut socket, "credential_invalid").await;
        assert_eq!(denied(&node, reason).await, 1.0);
    }
    leaks::check();
}

#[tokio::test]
async fn a_socket_whose_token_ends_soon_is_told_and_then_closed() {
    let node = start().await;
    // It ends within the leeway: in four or five seconds nothing keeps it.
    let last = signed(&header(), &claims_until("ada", Role::Viewer, now() - 25));
    let mut socket = quiet(&node, &last).await;
    let told = socket.expect("auth_expiring").await;
    assert!(told["expires_at"].is_string());
    check_ended(&mut socket, "token_expired").await;
    assert_eq!(denied(&node, "expired").await, 1.0);
}

#[tokio::test]
async fn a_socket_that_was_told_and_is_renewed_stays() {
    let node = start().await;
    let last = signed(&header(), &claims_until("ada", Role::Viewer, now() - 20));
    let mut socket = quiet(&node, &last).await;
    socket.expect("auth_expiring").await;
    refresh(&mut socket, &token("ada", Role::Viewer)).await;
    socket.expect("auth_refreshed").await;
    socket.send(json!({"type": "ping"})).await;
    socket.expect("pong").await;
}

#[tokio::test]
async fn while_control_is_away_a_socket_whose_token_has_ended_is_kept() {
    let mut node = start().await;
    node.lose_control();
    node.shows("/api/dashboard/websocket/limits", "/stale", &json!(true)).await;
    // Only now: what is left of it is for the handshake, however long the view took to be stale.
    let last = signed(&header(), &claims_until("ada", Role::Viewer, now() - 25));
    let mut socket = quiet(&node, &last).await;
    socket.expect("auth_expiring").await;
    node.metric_reaches("hiveops_ws_auth_outage_kept_total", |kept| kept == 1.0).await;
    socket.send(json!({"type": "ping"})).await;
    socket.wait_for("pong").await;
    assert_eq!(denied(&node, "expired").await, 0.0);
}

/// Every kind of revocation, with one who is concerned by it and one who is not.
#[tokio::test]
async fn a_revocation_closes_the_sockets_that_it_names_and_no_others() {
    let node = start().await;
    let concerned = claims("ada", Role::Viewer);
    let jti = |claims: &Value| claims["jti"].as_str().unwrap().parse().unwrap();
    let subjects = [
        RevokedSubject::Token { jti: jti(&concerned) },
        RevokedSubject::Family { family: "family-of-ada".parse().unwrap() },
        RevokedSubject::User { user: "ada".parse().unwrap(), below_generation: 2, changed_role: None },
    ];
    let mut other = quiet(&node, &token("bob", Role::Viewer)).await;
    for (count, subject) in subjects.into_iter().enumerate() {
        let mut socket = quiet(&node, &signed(&header(), &concerned)).await;
        node.set_access(|access| tokens::revoke(access, subject));
        check_ended(&mut socket, "revoked").await;
        assert_eq!(denied(&node, "revoked").await, (count + 1) as f64);
        node.set_access(|access| access.revocations.clear());
        // The handshakes have heard of that as well.
        let mut again = quiet_when_good(&node, &signed(&header(), &concerned)).await;
        again.send(json!({"type": "ping"})).await;
        again.expect("pong").await;
    }
    other.send(json!({"type": "ping"})).await;
    other.expect("pong").await;
    leaks::check();
}

/// Connects once what was revoked is good again.
async fn quiet_when_good(node: &Node, token: &str) -> Socket {
    let header = super::bearer(token);
    crate::harness::soon("a handshake", async {
        loop {
            let mut socket = Socket::connect_with(node, QUIET, &[("authorization", &header)]).await;
            if socket.next_message().await.is_ok() {
                socket.expect("dashboard_initialized").await;
                return socket;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_user_whose_role_changes_goes_on_with_what_the_new_one_allows() {
    let node = start().await;
    let old = token("ada", Role::SuperAdmin);
    let mut socket = joined(&node, "dashboard?subscriptions=alerts,tasks", &old).await;
    assert_eq!(socket.expect("dashboard_initialized").await["subscriptions"], json!(["alerts", "tasks"]));
    let changed = |role, below_generation| RevokedSubject::User {
        user: "ada".parse().unwrap(),
        below_generation,
        changed_role: Some(ChangedRole { role, since_generation: 1 }),
    };
    node.set_access(|access| tokens::revoke(access, changed(Role::Viewer, 2)));
    let error = socket.wait_for("error").await;
    assert_eq!(error["code"], "forbidden", "{error}");
    let updated = socket.expect("subscription_updated").await;
    assert_eq!(updated["subscriptions"], json!(["tasks"]));
    assert_eq!(updated["correlation_id"], error["correlation_id"]);
    assert_eq!(denied(&node, "forbidden").await, 1.0);
    // What goes to those who may have it does not come any more, and cannot be had again.
    let admin = super::bearer(&token("root", Role::SuperAdmin));
    let alert = json!({"alerts": [], "timestamp": "2026-01-01T00:00:00Z"});
    let published = node.broadcast("alerts", "critical_alert").header("Authorization", &admin).json(&alert);
    assert_eq!(published.send().await.ok()["clients_reached"], 0);
    socket.send(json!({"type": "subscribe", "subscriptions": ["alerts"]})).await;
    assert_eq!(socket.expect("error").await["code"], "forbidden");
    assert_eq!(socket.expect("subscription_updated").await["subscriptions"], json!(["tasks"]));
    // The old token lets nobody in; a new one goes on, on the open socket as on another.
    check_refused(&node, QUIET, &[("authorization", &super::bearer(&old))], 4401, "revoked").await;
    let mut later = claims("ada", Role::Viewer);
    later["gen"] = json!(2);
    refresh(&mut socket, &signed(&header(), &later)).await;
    socket.expect("auth_refreshed").await;
    // Given back, it may be joined again; and whoever loses more than the role is out.
    node.set_access(|access| {
        access.revocations.clear();
        tokens::revoke(access, changed(Role::EnterpriseAdmin, 3));
    });
    crate::harness::until("the role to be back", async || {
        socket.send(json!({"type": "subscribe", "subscriptions": ["alerts"]})).await;
        socket.wait_for("subscription_updated").await["subscriptions"] == json!(["alerts", "tasks"])
    })
    .await;
    let user = RevokedSubject::User { user: "ada".parse().unwrap(), below_generation: 4, changed_role: None };
    node.set_access(|access| {
        access.revocations.clear();
        tokens::revoke(access, user);
    });
    check_ended(&mut socket, "revoked").await;
}
