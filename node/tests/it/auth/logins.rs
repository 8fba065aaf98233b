//! The routes that control decides about, over a control plane of the tests' own.

use hiveops_proto::access::{RevokedSubject, Role};
use serde_json::{Value, json};

use super::control::{EMAIL, PASSWORD, Plane, Replica, ada};
use super::{PAGE, bearer, check_ended, joined, leaks, start, tokens};
use crate::harness::{Node, Socket};
use crate::http::Answer;
use crate::openapi::check_described;

const BOTH: [&str; 2] = ["/api/auth", "/api/v1/auth"];

async fn login(node: &Node, prefix: &str) -> Answer {
    let body = json!({"email": EMAIL, "password": PASSWORD});
    let call =
        node.call("POST", &format!("{prefix}/login")).header("X-Correlation-ID", "login-1").json(&body);
    call.send().await
}

/// The cookies of an answer: name and path, value, and the rest.
fn cookies(answer: &Answer) -> Vec<(String, String, String)> {
    let lines = answer.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap());
    let cookies = lines.map(|line| {
        let mut parts = line.split("; ");
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let path = parts.next().unwrap().strip_prefix("Path=").unwrap();
        (format!("{name} {path}"), value.to_owned(), parts.collect::<Vec<_>>().join("; "))
    });
    cookies.collect()
}

#[tokio::test]
async fn a_login_gives_tokens_and_cookies_under_both_paths() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    for prefix in BOTH {
        let answer = login(&node, prefix).await;
        assert_eq!(
            (answer.header("cache-control"), answer.header("x-correlation-id")),
            ("no-store", "login-1")
        );
        let grant = answer.ok();
        assert_eq!((&grant["token_type"], &grant["expires_in"]), (&json!("Bearer"), &json!(600)));
        assert_eq!(grant["user"], ada());
        let (access, refresh) =
            (grant["access_token"].as_str().unwrap(), grant["refresh_token"].as_str().unwrap());
        let expected = [
            ("hiveops_refresh /api/auth", refresh, "Max-Age=604800; HttpOnly; SameSite=Strict"),
            ("hiveops_refresh /api/v1/auth", refresh, "Max-Age=604800; HttpOnly; SameSite=Strict"),
            ("hiveops_session /api/dashboard", access, "Max-Age=600; HttpOnly; SameSite=Strict"),
        ];
        assert_eq!(cookies(&answer), expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        // What was given lets in: by the header, and the page by its cookie.
        let me =
            node.call("GET", &format!("{prefix}/me")).header("Authorization", &bearer(access)).send().await;
        assert_eq!(me.ok(), ada());
        let page = [("cookie", &*format!("hiveops_session={access}")), ("origin", PAGE)];
        Socket::connect_with(&node, "dashboard?subscriptions=", &page)
            .await
            .expect("connection_established")
            .await;
    }
    // Control hears from where, and under which id.
    let (asked, id) = &plane.asked("/api/control/auth/login")[0];
    assert_eq!((&asked["address"], id.as_str()), (&json!("127.0.0.1"), "login-1"));
    assert_eq!(node.metric("hiveops_http_auth_success_total").await, 2.0);
    leaks::check();
}

#[tokio::test]
async fn control_throttles_by_whom_a_proxy_names_only_where_it_is_believed() {
    for (trusted, address) in [("127.0.0.1", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")] {
        let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
        let proxies = ("HIVEOPS_TRUSTED_PROXIES", trusted);
        let node = plane.node_with(dir.path(), &[Replica::Sound], &[proxies]).await;
        let body = json!({"email": EMAIL, "password": PASSWORD});
        let call = node.call("POST", "/api/auth/login").json(&body);
        call.header("X-Forwarded-For", "198.51.100.1, 203.0.113.9:4711").send().await.ok();
        let (asked, _) = &plane.asked("/api/control/auth/login")[0];
        assert_eq!(asked["address"], json!(address));
    }
    leaks::check();
}

#[tokio::test]
async fn the_routes_answer_as_they_are_described() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let token = bearer(&tokens::token("ada", Role::Viewer));
    let described = "/api/openapi.json";
    let document = node.call("GET", described).header("Authorization", &token).send().await.ok();
    for prefix in BOTH {
        let check = |method: &str, name: &str, answer: &Answer| {
            check_described(&document, &format!("{method} {prefix}/{name}"), answer);
        };
        let granted = login(&node, prefix).await;
        check("POST", "login", &granted);
        let refresh = json!({"refresh_token": granted.ok()["refresh_token"]});
        let call = |method: &str, name: &str| node.call(method, &format!("{prefix}/{name}"));
        check("POST", "refresh", &call("POST", "refresh").json(&refresh).send().await);
        check("POST", "logout", &call("POST", "logout").json(&refresh).send().await);
        check("GET", "me", &call("GET", "me").header("Authorization", &token).send().await);
        check("POST", "ws-ticket", &call("POST", "ws-ticket").header("Authorization", &token).send().await);
    }
}

#[tokio::test]
async fn beyond_this_machine_cookies_are_secure() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let body = json!({"email": EMAIL, "password": PASSWORD});
    let call = node.call("POST", "/api/auth/login").header("Host", "ops.example").json(&body);
    let cookies = cookies(&call.send().await);
    assert!(
        cookies.len() == 3 && cookies.iter().all(|(_, _, rest)| rest.ends_with("; Secure")),
        "{cookies:?}"
    );
}

/// A balancer that puts its own idea of the host there makes no cookie that goes over a plain connection.
#[tokio::test]
async fn in_production_cookies_are_secure_whatever_the_host_says() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let production = ("HIVEOPS_PROFILE", "production");
    let node = plane.node_with(dir.path(), &[Replica::Sound], &[production]).await;
    let body = json!({"email": EMAIL, "password": PASSWORD});
    for host in ["localhost", "127.0.0.1:8000", "ops.example"] {
        let login = node.call("POST", "/api/auth/login").header("Host", host).json(&body).send().await;
        let refresh = json!({"refresh_token": login.ok()["refresh_token"]});
        let call = |route: &str| node.call("POST", &format!("/api/auth/{route}")).header("Host", host);
        let answers =
            [login, call("refresh").json(&refresh).send().await, call("logout").json(&refresh).send().await];
        for answer in &answers {
            let cookies = cookies(answer);
            assert!(cookies.len() == 3, "{host}: {cookies:?}");
            assert!(cookies.iter().all(|(_, _, rest)| rest.ends_with("; Secure")), "{host}: {cookies:?}");
        }
    }
    leaks::check();
}

#[tokio::test]
async fn what_control_refuses_is_refused_in_its_words() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let try_with = |password: &str| {
        let body = json!({"email": EMAIL, "password": leaks::secret(password)});
        node.call("POST", "/api/auth/login").json(&body)
    };
    let answer = try_with("a wrong password").send().await;
    assert_eq!(answer.refusal(), (401, "invalid_credentials".to_owned()));
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    assert_eq!(answer.headers.get("set-cookie"), None);
    let answer = try_with("too often").send().await;
    assert_eq!(answer.refusal(), (429, "login_throttled".to_owned()));
    assert_eq!(answer.header("retry-after"), "17");
    // Nobody's time is spent on this.
    let asked = plane.asked("/api/control/auth/login").len();
    assert_eq!(try_with(&"x".repeat(2_000)).send().await.refusal(), (422, "invalid_data".to_owned()));
    assert_eq!(plane.asked("/api/control/auth/login").len(), asked);
    let page = try_with(PASSWORD).header("Origin", "https://evil.example").send().await;
    assert_eq!(page.refusal(), (403, "forbidden".to_owned()));
    for reason in ["invalid_credentials", "login_throttled", "origin"] {
        let name = format!("hiveops_http_auth_denied_total{{reason=\"{reason}\"}}");
        assert_eq!(node.metric(&name).await, 1.0, "{reason}");
    }
    leaks::check();
}

#[tokio::test]
async fn a_refresh_rotates_by_body_or_by_cookie_and_a_used_token_is_refused() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let first = login(&node, "/api/auth").await.ok()["refresh_token"].clone();
    let by_body = node.call("POST", "/api/auth/refresh").json(&json!({"refresh_token": first})).send().await;
    let renewed = by_body.ok();
    let mut members: Vec<&String> = renewed.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(members, ["access_token", "expires_in", "refresh_token", "success", "token_type"]);
    assert_eq!((&renewed["success"], cookies(&by_body).len()), (&json!(true), 3));

    let cookie = format!("hiveops_refresh={}", renewed["refresh_token"].as_str().unwrap());
    let by_cookie = |cookie: &str, origin: Option<&str>| {
        let call = node.call("POST", "/api/v1/auth/refresh").header("Cookie", cookie);
        match origin {
            Some(origin) => call.header("Origin", origin),
            None => call,
        }
    };
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let answer = by_cookie(&cookie, origin).send().await;
        assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{origin:?}");
    }
    assert_eq!(by_cookie(&cookie, Some(PAGE)).send().await.ok()["success"], true);
    // The browser forgets what is good for nothing.
    let again = by_cookie(&cookie, Some(PAGE)).send().await;
    assert_eq!(again.refusal(), (401, "refresh_reused".to_owned()));
    let cleared = cookies(&again);
    assert!(
        cleared.len() == 3
            && cleared.iter().all(|(_, value, rest)| value.is_empty() && rest.starts_with("Max-Age=0"))
    );
    let unknown =
        node.call("POST", "/api/auth/refresh").json(&json!({"refresh_token": "unknown-token"})).send().await;
    assert_eq!(unknown.refusal(), (401, "invalid_refresh_token".to_owned()));
    assert_eq!(unknown.headers.get("set-cookie"), None);
    let none = node.call("POST", "/api/auth/refresh").send().await;
    assert_eq!(none.refusal(), (401, "unauthorized".to_owned()));
    for (outcome, count) in [("granted", 2.0), ("reused", 1.0), ("invalid", 1.0), ("unavailable", 0.0)] {
        let name = format!("hiveops_http_auth_refresh_total{{outcome=\"{outcome}\"}}");
        assert_eq!(node.metric(&name).await, count, "{outcome}");
    }
    leaks::check();
}

#[tokio::test]
async fn a_logout_ends_the_login_of_the_token_it_brings() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let grant = login(&node, "/api/auth").await.ok();
    let (access, refresh) =
        (grant["access_token"].as_str().unwrap(), grant["refresh_token"].as_str().unwrap());
    let logout = || node.call("POST", "/api/auth/logout");
    let answers = [
        logout().json(&json!({"refresh_token": refresh})).send().await,
        logout().header("Cookie", &format!("hiveops_refresh={refresh}")).header("Origin", PAGE).send().await,
        logout().header("Authorization", &bearer(access)).send().await,
    ];
    for answer in &answers {
        assert_eq!((answer.ok(), cookies(answer).len()), (json!({"success": true}), 3));
    }
    let asked: Vec<Value> =
        plane.asked("/api/control/auth/logout").into_iter().map(|(body, _)| body).collect();
    let by_token = json!({"refresh_token": refresh});
    assert_eq!(asked, [by_token.clone(), by_token, json!({"family": "family-of-ada"})]);
    let forged = logout().header("Cookie", &format!("hiveops_refresh={refresh}")).send().await;
    assert_eq!(forged.refusal(), (403, "forbidden".to_owned()));
    assert_eq!(logout().send().await.refusal(), (401, "unauthorized".to_owned()));
    leaks::check();
}

/// Forms are stopped by their type, but a script can send a body that has none without asking, and on a page of
/// the same site the answer would set or clear cookies.
#[tokio::test]
async fn a_page_of_somebody_else_brings_no_refresh_token_of_its_own() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let body = json!({"refresh_token": login(&node, "/api/auth").await.ok()["refresh_token"]});
    for route in ["refresh", "logout"] {
        let path = format!("/api/auth/{route}");
        for origin in ["https://evil.example", "null"] {
            let send = || node.call("POST", &path).header("Origin", origin).text(body.to_string());
            let answer = send().send().await;
            assert_eq!(answer.refusal(), (403, "forbidden".to_owned()), "{route} {origin}");
            assert_eq!(answer.headers.get("set-cookie"), None);
            let form = send().header("Content-Type", "text/plain").send().await;
            assert_eq!(form.refusal(), (415, "unsupported_media_type".to_owned()));
        }
        assert_eq!(plane.asked(&format!("/api/control/auth/{route}")).len(), 0);
    }
    let ours = node.call("POST", "/api/auth/refresh").header("Origin", PAGE).json(&body).send().await;
    assert_eq!(ours.ok()["success"], true);
    assert_eq!(node.metric("hiveops_http_auth_denied_total{reason=\"origin\"}").await, 4.0);
    leaks::check();
}

#[tokio::test]
async fn a_logout_closes_the_sockets_of_its_login() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let grant = login(&node, "/api/auth").await.ok();
    let mut socket = joined(&node, "dashboard?subscriptions=", grant["access_token"].as_str().unwrap()).await;
    let mut other = joined(&node, "dashboard?subscriptions=", &tokens::token("bob", Role::Viewer)).await;
    plane.revoke(RevokedSubject::Family { family: "family-of-ada".parse().unwrap() });
    check_ended(&mut socket, "revoked").await;
    other.send(json!({"type": "ping"})).await;
    other.wait_for("pong").await;
}

#[tokio::test]
async fn the_next_replica_is_asked_when_one_cannot_decide() {
    for broken in [Replica::Leaderless, Replica::Stranger] {
        let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
        let node = plane.node(dir.path(), &[broken, broken, Replica::Sound]).await;
        assert_eq!(login(&node, "/api/auth").await.status, 200, "{broken:?}");
    }
    // A full queue is an answer: the others hash at the same leader.
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Busy, Replica::Sound]).await;
    let answer = login(&node, "/api/auth").await;
    assert_eq!((answer.refusal(), answer.header("retry-after")), ((503, "busy".to_owned()), "3"));
}

#[tokio::test]
async fn without_a_replica_that_decides_it_is_503_and_no_wrong_password() {
    for (broken, code) in [(Replica::Leaderless, "no_leader"), (Replica::Stranger, "control_unavailable")] {
        let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
        let node = plane.node(dir.path(), &[broken]).await;
        let answer = login(&node, "/api/auth").await;
        assert_eq!((answer.refusal(), answer.header("retry-after")), ((503, code.to_owned()), "1"));
    }
    // A node that has no control plane knows no users.
    let node = start().await;
    for prefix in BOTH {
        assert_eq!(login(&node, prefix).await.refusal(), (503, "control_unavailable".to_owned()));
        let me = node.call("GET", &format!("{prefix}/me"));
        let me = me.header("Authorization", &bearer(&tokens::token("ada", Role::Viewer))).send().await;
        assert_eq!(me.refusal(), (503, "control_unavailable".to_owned()));
    }
    leaks::check();
}

#[tokio::test]
async fn me_is_whoever_the_access_token_says() {
    let (plane, dir) = (Plane::new(), tempfile::tempdir().unwrap());
    let node = plane.node(dir.path(), &[Replica::Sound]).await;
    let me = || node.call("GET", "/api/auth/me");
    assert_eq!(me().send().await.refusal(), (401, "unauthorized".to_owned()));
    assert_eq!(me().send().await.header("www-authenticate"), "Bearer");
    let bent = me().header("Authorization", "Bearer x").send().await;
    assert_eq!(bent.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    // Control has never heard of this one.
    let ghost = bearer(&tokens::token("ghost", Role::SuperAdmin));
    assert_eq!(me().header("Authorization", &ghost).send().await.refusal(), (401, "unauthorized".to_owned()));
    assert_eq!(
        me().header("Authorization", &bearer(&tokens::token("ada", Role::Viewer))).send().await.ok(),
        ada()
    );
}
