//! Whether what lets people in is fit for production, and whether only those can read it who should.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hiveops_node::config::{Auth, AuthMode, Kind, Profile, Secret, Shown};

use super::Finding;

/// What `openssl rand -hex 16` gives; a shorter one was typed by somebody.
const PRODUCTION_CHARS_MIN: usize = 32;

/// The bit by which everybody on the machine may read a file.
const OTHERS_READ: u32 = 0o004;

pub(super) fn check(auth: &Auth, profile: Profile, has_control: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if auth.required && auth.mode == AuthMode::Jwt && !has_control {
        let text = "access tokens are asked for, and there is no control plane that issues them";
        findings.push(Finding::fail("credential", text, "set HIVEOPS_CONTROL, or WS_AUTH_MODE=token"));
    }
    let length = auth.token.as_ref().map(Secret::expose).map(|token| token.chars().count());
    if profile == Profile::Production && length.is_some_and(|length| length < PRODUCTION_CHARS_MIN) {
        let text = format!("WS_AUTH_TOKEN is shorter than {PRODUCTION_CHARS_MIN} characters");
        findings.push(Finding::fail("credential", text, "make one with `openssl rand -hex 24`"));
    }
    if auth.query_token {
        let text = "access tokens are taken from the query, where proxies and histories keep them";
        let fix = "remove WS_AUTH_QUERY_TOKEN, and use the subprotocol or a ticket";
        findings.push(Finding::warn("credential", text, fix));
    }
    findings
}

/// Every file that holds a secret of the configuration.
pub(super) fn files(shown: &[Shown], profile: Profile) -> Vec<Finding> {
    let secrets = shown.iter().filter(|shown| shown.setting.kind == Kind::Secret);
    let held = secrets.filter_map(|shown| Some((shown.setting.name, shown.file.as_deref()?)));
    held.filter_map(|(name, path)| file(name, path, profile)).collect()
}

/// Nothing for one that only its owner and group can read.
pub(super) fn file(name: &str, path: &Path, profile: Profile) -> Option<Finding> {
    // It has been read just now; who took it away meanwhile has made it unreadable.
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    if mode & OTHERS_READ == 0 {
        return None;
    }
    let text = format!("{}, which holds {name}, can be read by everybody on this machine", path.display());
    let fix = format!("chmod o= {}", path.display());
    Some(match profile {
        Profile::Dev => Finding::warn("secret file", text, fix),
        Profile::Production => Finding::fail("secret file", text, fix),
    })
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
    fn a_short_static_token_is_for_trying_things_out() {
        let levels = |length: usize, profile| -> Vec<Level> {
            let auth = auth(AuthMode::Token, Some(&"x".repeat(length)));
            check(&auth, profile, false).iter().map(|finding| finding.level).collect()
        };
        assert_eq!(levels(31, Profile::Production), [Level::Fail]);
        assert_eq!(levels(32, Profile::Production), []);
        assert_eq!(levels(31, Profile::Dev), []);
    }

    #[test]
    fn access_tokens_need_somebody_who_issues_them_and_do_not_belong_in_a_query() {
        let jwt = auth(AuthMode::Jwt, None);
        assert_eq!(check(&jwt, Profile::Production, true), []);
        assert_eq!(check(&jwt, Profile::Production, false)[0].level, Level::Fail);
        let query = Auth { query_token: true, ..jwt };
        assert_eq!(check(&query, Profile::Production, true)[0].level, Level::Warn);
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_none() {
        let held = tempfile::NamedTempFile::new().unwrap();
        for (mode, dev, production) in
            [(0o600, None, None), (0o640, None, None), (0o644, Some(Level::Warn), Some(Level::Fail))]
        {
            std::fs::set_permissions(held.path(), Permissions::from_mode(mode)).unwrap();
            let level = |profile| file("ws_auth_token", held.path(), profile).map(|finding| finding.level);
            assert_eq!((level(Profile::Dev), level(Profile::Production)), (dev, production), "{mode:o}");
        }
    }
}
