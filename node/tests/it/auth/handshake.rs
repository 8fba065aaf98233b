//! The battery on the handshake: every token that control would not issue is closed with 4401 before any
//! data, and counted for what is wrong with it.

use hiveops_proto::Timestamp;
use hiveops_proto::access::{RevokedSubject, Role};
use hiveops_proto::control::AccessView;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::tokens::{self, claims, claims_until, encode, header, now, signed, signed_text, signed_with};
use super::{bearer, check_refused, denied, joined, leaks, start, start_with};
use crate::harness::{Node, Socket};

const QUIET: &str = "dashboard?subscriptions=";

fn head_with(name: &str, value: Value) -> Value {
    let mut changed = header();
    changed[name] = value;
    changed
}

fn with(name: &str, value: Value) -> Value {
    let mut changed = claims("ada", Role::Viewer);
    changed[name] = value;
    changed
}

/// Each token with what is wrong with it.
fn battery() -> Vec<(&'static str, String)> {
    let good = claims("ada", Role::Viewer);
    let text = good.to_string();
    let open = text.strip_suffix('}').unwrap();
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let public = EncodingKey::from_secret(tokens::PUBLIC.as_bytes());
    let hs256 = head_with("alg", json!("HS256")).to_string();
    let by_header = |header: &Value| signed(header, &good);
    let none = head_with("alg", json!("none"));
    let cases = [
        ("algorithm", leaks::secret(&format!("{}.{}.", encode(&none.to_string()), encode(&text)))),
        ("algorithm", by_header(&none)),
        ("algorithm", signed_with(&hs256, &text, &public, Algorithm::HS256)),
        ("signature", signed_with(&header().to_string(), &text, &public, Algorithm::HS256)),
        ("unknown_key", by_header(&head_with("kid", json!("k2")))),
        ("unknown_key", by_header(&head_with("kid", json!("../../../dev/null")))),
        ("header", by_header(&head_with("jku", json!("http://127.0.0.1/jwks")))),
        ("header", by_header(&head_with("x5u", json!("http://127.0.0.1/cert")))),
        (
            "header",
            by_header(&head_with("jwk", json!({"kty": "OKP", "crv": "Ed25519", "x": tokens::PUBLIC}))),
        ),
        ("header", by_header(&head_with("crit", json!(["x"])))),
        ("header", signed_text(r#"{"alg":"EdDSA","kid":"k1","kid":"k1"}"#, &text)),
        ("claims", signed_text(&header().to_string(), &format!(r#"{open},"role":"super_admin"}}"#))),
        ("claims", signed(&header(), &with("exp", json!((now() + 600).to_string())))),
        ("claims", signed(&header(), &with("exp", json!(now() as f64 + 600.5)))),
        ("claims", signed(&header(), &with("exp", json!(-1)))),
        ("claims", signed(&header(), &with("exp", json!(null)))),
        ("claims", signed(&header(), &with("exp", json!([now() + 600])))),
        ("claims", signed(&header(), &with("exp", json!({"of": now() + 600})))),
        ("claims", signed(&header(), &with("exp", json!(u64::MAX)))),
        ("header", signed_text(&format!(r#"{{"alg":"EdDSA","kid":"k1","x":{deep}}}"#), "{}")),
        ("issuer", signed(&header(), &with("iss", json!("c2")))),
        ("audience", signed(&header(), &with("aud", json!("others")))),
        ("expired", signed(&header(), &claims_until("ada", Role::Viewer, now() - 40))),
        ("not_yet", signed(&header(), &claims_until("ada", Role::Viewer, now() + 700))),
        ("too_large", leaks::secret(&format!("{}.{}", encode("{}"), "a".repeat(8 * 1_024)))),
        ("malformed", "not-a-token".to_owned()),
        ("malformed", "a.b".to_owned()),
    ];
    cases.into()
}

#[tokio::test]
async fn every_bent_token_is_refused_and_counted_for_what_is_wrong_with_it() {
    let node = start().await;
    for (reason, token) in battery() {
        let before = denied(&node, reason).await;
        let told = if reason == "expired" { "token_expired" } else { "credential_invalid" };
        check_refused(&node, QUIET, &[("authorization", &bearer(&token))], 4401, told).await;
        assert_eq!(denied(&node, reason).await, before + 1.0, "{reason}");
        // By the other way in it is no better.
        let answer =
            node.call("GET", "/api/dashboard/websocket/stats").header("Authorization", &bearer(&token));
        assert_eq!(answer.send().await.refusal(), (401, "unauthorized".to_owned()), "{reason}");
        let counted = node.metric(&format!("hiveops_http_auth_denied_total{{reason=\"{reason}\"}}")).await;
        assert_eq!(counted, before + 1.0, "{reason}");
    }
    assert_eq!(node.metric("hiveops_ws_connections_total").await, 0.0);
    leaks::check();
}

#[tokio::test]
async fn a_token_of_a_hundred_kib_is_not_even_read() {
    let node = start().await;
    let token = "a".repeat(100 * 1_024);
    let request = node.call("GET", "/api/dashboard/websocket/stats").header("Authorization", &bearer(&token));
    let status = request.plain().await;
    // How much a request's head may hold is not exact; one that is read is refused for its credential.
    assert!([401, 431].contains(&status), "{status}");
    let half = bearer(&token[..32 * 1_024]);
    check_refused(&node, QUIET, &[("authorization", &half)], 4401, "credential_invalid").await;
    assert_eq!(denied(&node, "too_large").await, 1.0);
    let mut socket = joined(&node, QUIET, &tokens::token("ada", Role::Viewer)).await;
    socket.expect("dashboard_initialized").await;
    // Nor is one that comes over an open socket.
    socket.send(json!({"type": "auth_refresh", "token": "a".repeat(50 * 1_024)})).await;
    super::check_ended(&mut socket, "credential_invalid").await;
    assert_eq!(denied(&node, "too_large").await, 2.0);
}

#[tokio::test]
async fn the_leeway_is_thirty_seconds_and_no_more() {
    let node = start().await;
    let just = signed(&header(), &claims_until("ada", Role::Viewer, now() - 15));
    joined(&node, QUIET, &just).await;
    let early = signed(&header(), &claims_until("ada", Role::Viewer, now() + 615));
    joined(&node, QUIET, &early).await;
}

#[tokio::test]
async fn a_revoked_token_a_retired_key_and_no_key_at_all_let_nobody_in() {
    let token = tokens::token("ada", Role::Viewer);
    let header = [("authorization", &*bearer(&token))];
    let mut revoked = tokens::access();
    let family = "family-of-ada".parse().unwrap();
    tokens::revoke(&mut revoked, RevokedSubject::Family { family });
    check_refused(&start_with(revoked).await, QUIET, &header, 4401, "revoked").await;
    let retired =
        AccessView { keys: vec![tokens::key("k1", Some(Timestamp::from_millis(1_000)))], ..tokens::access() };
    let node = start_with(retired).await;
    check_refused(&node, QUIET, &header, 4401, "credential_invalid").await;
    assert_eq!(denied(&node, "key_retired").await, 1.0);
    // A node that has heard of no control plane lets nobody in.
    let node = start_with(AccessView::default()).await;
    check_refused(&node, QUIET, &header, 4401, "credential_invalid").await;
    check_refused(&node, QUIET, &[], 4401, "credential_missing").await;
}

#[tokio::test]
async fn a_rotation_of_keys_refuses_nobody() {
    let node = start().await;
    let two = AccessView { keys: vec![tokens::key("k1", None), tokens::key("k2", None)], ..tokens::access() };
    let second = head_with("kid", json!("k2"));
    let connect = async |node: &Node, header: &Value| {
        let token = signed(header, &claims("ada", Role::Viewer));
        let path = QUIET;
        let mut socket = Socket::connect_with(node, path, &[("authorization", &bearer(&token))]).await;
        socket.next_message().await.is_ok_and(|frame| frame["type"] == "connection_established")
    };
    for round in 0..40 {
        assert!(connect(&node, &header()).await, "round {round}");
        if round == 10 {
            node.set_access(|access| *access = two.clone());
            let kids = json!("k2");
            node.shows("/.well-known/jwks.json", "/keys/1/kid", &kids).await;
        }
        if round > 10 {
            assert!(connect(&node, &second).await, "round {round}");
        }
    }
}
