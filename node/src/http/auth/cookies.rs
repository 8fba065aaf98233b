//! The cookies of a login: which there are, where a browser sends them, and how they go away. Pure.

use std::net::IpAddr;

use hiveops_proto::access::LOGIN_IDLE_MS;
use hiveops_proto::auth::Grant;
use hiveops_proto::path::{REFRESH_COOKIE, SESSION_COOKIE};
use http::HeaderMap;
use http::header::{HOST, HeaderValue};

use crate::config::{Profile, TlsFiles};

/// Where the refresh token goes: a browser takes a path for all below it, and there are two.
const REFRESH_PATHS: [&str; 2] = ["/api/auth", "/api/v1/auth"];

/// Where the access token goes: what the dashboards are made of, sockets included.
const SESSION_PATH: &str = "/api/dashboard";

/// How long a browser keeps a refresh token that it does not use: control ends the login then.
const REFRESH_SECONDS: u64 = LOGIN_IDLE_MS / 1_000;

/// What a browser is to keep.
pub(super) fn granted(way: Way, grant: &Grant) -> Vec<HeaderValue> {
    let refresh = (grant.refresh_token.as_str(), REFRESH_SECONDS);
    written(way, refresh, (&grant.access_token, grant.expires_in))
}

/// What makes it forget that.
pub(super) fn cleared(way: Way) -> Vec<HeaderValue> {
    written(way, ("", 0), ("", 0))
}

/// How the browser has come to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// On its own machine over a plain connection: there is no certificate, and nobody on the way.
    PlainLoopback,
    /// From elsewhere, or by TLS that this node ends. In production a request that names this machine came through a
    /// balancer that does not pass the client's host on.
    Guarded,
}

impl Way {
    /// `tls` is what this node ends TLS by.
    pub(super) fn of(headers: &HeaderMap, profile: Profile, tls: Option<&TlsFiles>) -> Self {
        match profile {
            Profile::Dev if tls.is_none() && is_loopback(headers) => Self::PlainLoopback,
            Profile::Dev | Profile::Production => Self::Guarded,
        }
    }
}

fn written(way: Way, refresh: (&str, u64), session: (&str, u64)) -> Vec<HeaderValue> {
    let secure = match way {
        Way::PlainLoopback => "",
        Way::Guarded => "; Secure",
    };
    let cookie = |name: &str, path: &str, (value, seconds): (&str, u64)| {
        let text =
            format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        // Tokens are made of what a header may hold; another is not kept.
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    let cookies = [
        cookie(REFRESH_COOKIE, REFRESH_PATHS[0], refresh),
        cookie(REFRESH_COOKIE, REFRESH_PATHS[1], refresh),
        cookie(SESSION_COOKIE, SESSION_PATH, session),
    ];
    cookies.into_iter().flatten().collect()
}

/// Whether the browser reached this node on its own machine.
fn is_loopback(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Validity;

    fn of(host: &str) -> Vec<String> {
        over((Profile::Dev, None), host)
    }

    fn of_profile(profile: Profile, host: &str) -> Vec<String> {
        over((profile, None), host)
    }

    fn over((profile, tls): (Profile, Option<&TlsFiles>), host: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        written(Way::of(&headers, profile, tls), ("r1", REFRESH_SECONDS), ("a1", 600))
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_refresh_token_goes_to_the_auth_paths_and_the_access_token_to_the_dashboards() {
        let rest = "HttpOnly; SameSite=Strict; Secure";
        assert_eq!(
            of("ops.example"),
            [
                format!("hiveops_refresh=r1; Path=/api/auth; Max-Age=604800; {rest}"),
                format!("hiveops_refresh=r1; Path=/api/v1/auth; Max-Age=604800; {rest}"),
                format!("hiveops_session=a1; Path=/api/dashboard; Max-Age=600; {rest}"),
            ]
        );
    }

    #[test]
    fn only_on_this_machine_they_go_over_a_plain_connection() {
        for host in ["localhost:8000", "127.0.0.1:8000", "127.8.9.1", "[::1]:8000", "LOCALHOST"] {
            assert!(of(host).iter().all(|cookie| !cookie.contains("Secure")), "{host}");
            let production = of_profile(Profile::Production, host);
            assert!(production.iter().all(|cookie| cookie.ends_with("; Secure")), "{host}");
        }
        for host in
            ["ops.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1:8000", "[::2]"]
        {
            assert!(of(host).iter().all(|cookie| cookie.ends_with("; Secure")), "{host}");
        }
        assert!(!is_loopback(&HeaderMap::new()));
    }

    #[test]
    fn a_node_that_ends_tls_gives_none_that_goes_over_a_plain_connection() {
        let good = Validity { not_before: 0, not_after: 0 };
        let tls = TlsFiles { cert: "cert.pem".into(), key: "key.pem".into(), own: good, chain: good };
        for host in ["localhost:8000", "127.0.0.1:8000", "ops.example"] {
            assert!(
                over((Profile::Dev, Some(&tls)), host).iter().all(|cookie| cookie.ends_with("; Secure")),
                "{host}"
            );
        }
    }

    #[test]
    fn a_cookie_is_no_way_to_write_another_header() {
        let way = Way::Guarded;
        assert_eq!(written(way, ("r\r\nX: y", 1), ("a", 1)).len(), 1);
        assert!(cleared(way).iter().all(|cookie| cookie.to_str().unwrap().contains("Max-Age=0")));
    }
}
