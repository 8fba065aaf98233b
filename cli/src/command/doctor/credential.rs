//! Whether what lets people in is fit for production, and whether only those can read it who should.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hiveops_node::Config;
use hiveops_node::config::{Auth, AuthMode, Kind, Loaded, Profile, Secret};

use super::{Check, Finding};

/// What `openssl rand -hex 16` gives; a shorter one was typed by somebody.
const PRODUCTION_CHARS_MIN: usize = 32;

/// The bit by which everybody on the machine may read a file.
const OTHERS_READ: u32 = 0o004;

pub(super) fn check(loaded: &Loaded) -> Vec<Finding> {
    let Config { auth, profile, .. } = &loaded.config;
    // The listener that most can reach.
    let listeners = [Some(loaded.config.listen), loaded.config.admin_listen];
    let outermost = listeners.into_iter().flatten().find(|listen| !listen.ip().is_loopback());
    let secrets = loaded.shown.iter().filter(|shown| shown.setting.kind == Kind::Secret);
    let secrets = secrets.filter_map(|shown| Some((shown.setting.name, shown.file.as_deref()?)));
    let held: Vec<(&str, &Path)> = secrets.chain(named(&loaded.config)).collect();
    vec![
        exposure(outermost, auth.required, *profile),
        issuer(auth, !loaded.config.control.is_empty()),
        token(auth, *profile),
        query(auth),
        files(&held, *profile),
    ]
}

/// Files with a secret that a setting names: there is no other way to give it.
fn named(config: &Config) -> impl Iterator<Item = (&str, &Path)> {
    let files = [
        ("tls_key", config.tls.as_ref().map(|tls| &tls.key)),
        ("bus_key", config.bus_files.key.as_ref()),
        ("bus_credentials", config.bus_files.credentials.as_ref()),
    ];
    files.into_iter().filter_map(|(name, path)| Some((name, path?.as_path())))
}

/// `outside` is a listener that other machines reach.
fn exposure(outside: Option<SocketAddr>, required: bool, profile: Profile) -> Finding {
    let check = Check::SecretsRequired;
    let fix = "set WS_AUTH_REQUIRED=true and WS_AUTH_TOKEN or WS_AUTH_MODE=jwt, or listen on 127.0.0.1";
    match (required, outside, profile) {
        (true, _, _) => Finding::ok(check, "a credential is required"),
        (false, None, Profile::Dev) => {
            Finding::ok(check, "no credential is required; only this machine can connect")
        }
        (false, None, Profile::Production) => {
            let fix = "leave WS_AUTH_REQUIRED out, or set it to true";
            Finding::fail(check, "no credential is required in production", fix)
        }
        (false, Some(listen), Profile::Dev) => {
            let text = format!("no credential is required, and {listen} can be reached from outside");
            Finding::warn(check, text, fix)
        }
        (false, Some(listen), Profile::Production) => {
            let text =
                format!("no credential is required in production, and {listen} can be reached from outside");
            Finding::fail(check, text, fix)
        }
    }
}

fn issuer(auth: &Auth, has_control: bool) -> Finding {
    let check = Check::SecretsIssuer;
    match (auth.required, auth.mode, has_control) {
        (true, AuthMode::Jwt, true) => Finding::ok(check, "the control plane issues access tokens"),
        (true, AuthMode::Jwt, false) => {
            let text = "access tokens are asked for, and there is no control plane that issues them";
            Finding::fail(check, text, "set HIVEOPS_CONTROL, or WS_AUTH_MODE=token")
        }
        (true, AuthMode::Token, _) | (false, _, _) => {
            let hint = "set WS_AUTH_MODE=jwt and HIVEOPS_CONTROL to have users";
            Finding::skip(check, "no access tokens of users are asked for", hint)
        }
    }
}

fn token(auth: &Auth, profile: Profile) -> Finding {
    let check = Check::SecretsToken;
    let Some(token) = auth.token.as_ref().map(Secret::expose) else {
        let hint = "users are better; else `openssl rand -hex 24` makes one for WS_AUTH_TOKEN_FILE";
        return Finding::skip(check, "there is no static token", hint);
    };
    let is_short = token.chars().count() < PRODUCTION_CHARS_MIN;
    match (profile, is_short) {
        (Profile::Production, true) => {
            let text = format!("WS_AUTH_TOKEN is shorter than {PRODUCTION_CHARS_MIN} characters");
            Finding::fail(check, text, "make one with `openssl rand -hex 24`")
        }
        (Profile::Dev, true) => Finding::ok(check, "the static token will do outside production"),
        (Profile::Dev | Profile::Production, false) => {
            Finding::ok(check, format!("the static token has {PRODUCTION_CHARS_MIN} characters or more"))
        }
    }
}

fn query(auth: &Auth) -> Finding {
    if auth.query_token {
        let text = "access tokens are taken from the query, where proxies and histories keep them";
        let fix = "remove WS_AUTH_QUERY_TOKEN, and use the subprotocol or a ticket";
        return Finding::warn(Check::SecretsQuery, text, fix);
    }
    Finding::ok(Check::SecretsQuery, "no access token is taken from the query")
}

/// Every file that holds a secret of the configuration, by the setting that names it.
fn files(held: &[(&str, &Path)], profile: Profile) -> Finding {
    let check = Check::SecretsFiles;
    if held.is_empty() {
        let hint = "put them into files: each secret setting has one with `_FILE` at its end";
        return Finding::skip(check, "no secret is in a file", hint);
    }
    let open: Vec<&(&str, &Path)> = held.iter().filter(|(_, path)| is_open(path)).collect();
    if open.is_empty() {
        return Finding::ok(check, "only owner and group can read the files with secrets");
    }
    let each = open.iter().map(|(name, path)| format!("{}, which holds {name}", path.display()));
    let text = format!("can be read by everybody on this machine: {}", each.collect::<Vec<_>>().join("; "));
    let paths: Vec<String> = open.iter().map(|(_, path)| path.display().to_string()).collect();
    let fix = format!("chmod o= {}", paths.join(" "));
    match profile {
        Profile::Dev => Finding::warn(check, text, fix),
        Profile::Production => Finding::fail(check, text, fix),
    }
}

fn is_open(path: &Path) -> bool {
    // It has been read just now; who took it away meanwhile has made it unreadable.
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use hiveops_proto::access::Role;

    use super::super::Level;
    use super::*;

    fn auth(mode: AuthMode, token: Option<&str>) -> Auth {
        let token = token.map(|token| Secret::new(token.to_owned()));
        Auth { required: true, mode, token, role: Role::Viewer, query_token: false }
    }

    #[test]
    fn an_open_node_is_worse_the_more_can_reach_it() {
        let level = |outside: Option<&str>, required, profile| {
            exposure(outside.map(|listen| listen.parse().unwrap()), required, profile).level
        };
        let outside = Some("0.0.0.0:1");
        assert_eq!(level(None, false, Profile::Dev), Level::Ok);
        assert_eq!(level(outside, false, Profile::Dev), Level::Warn);
        assert_eq!(level(None, false, Profile::Production), Level::Fail);
        assert_eq!(level(outside, false, Profile::Production), Level::Fail);
        assert_eq!(level(outside, true, Profile::Production), Level::Ok);
    }

    #[test]
    fn a_short_static_token_is_for_trying_things_out() {
        let level =
            |length: usize, profile| token(&auth(AuthMode::Token, Some(&"x".repeat(length))), profile).level;
        assert_eq!(level(31, Profile::Production), Level::Fail);
        assert_eq!(level(32, Profile::Production), Level::Ok);
        assert_eq!(level(31, Profile::Dev), Level::Ok);
        assert_eq!(token(&auth(AuthMode::Jwt, None), Profile::Production).level, Level::Skip);
    }

    #[test]
    fn access_tokens_need_somebody_who_issues_them_and_do_not_belong_in_a_query() {
        let jwt = auth(AuthMode::Jwt, None);
        assert_eq!((issuer(&jwt, true).level, issuer(&jwt, false).level), (Level::Ok, Level::Fail));
        assert_eq!(issuer(&auth(AuthMode::Token, None), false).level, Level::Skip);
        assert_eq!(query(&jwt).level, Level::Ok);
        assert_eq!(query(&Auth { query_token: true, ..jwt }).level, Level::Warn);
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, dev, production) in
            [(0o600, Level::Ok, Level::Ok), (0o640, Level::Ok, Level::Ok), (0o644, Level::Warn, Level::Fail)]
        {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let level = |profile| files(&[("ws_auth_token", file.path())], profile).level;
            assert_eq!((level(Profile::Dev), level(Profile::Production)), (dev, production), "{mode:o}");
        }
        assert_eq!(files(&[], Profile::Production).level, Level::Skip);
    }
}
