//! The checks: each looks at one thing and says what it found. None of them changes anything.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use hiveops_node::Config;
use hiveops_node::config::{Loaded, Origins, Profile, TlsFiles};
use hiveops_proto::path::HEALTH;
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};
use serde_json::Value;

use super::{Finding, bus, control, credential, tls};
use crate::api::{Api, Target};

/// Files that a node needs beside its sockets: logs, listeners, pollers, the store.
const OTHER_FILES: u64 = 256;

/// Every check, in the order of the report.
pub(super) async fn all(loaded: &Loaded) -> Vec<Finding> {
    let config = &loaded.config;
    // A node raises its own limit as far as it may.
    let limit = getrlimit(Resource::Nofile).maximum;
    let valid = format!("valid, profile {}, node {}", config.profile, config.node_id);
    let mut findings = vec![Finding::ok("configuration", valid)];
    findings.extend(control::check(config).await);
    findings.extend([
        port(config.listen, "HIVEOPS_LISTEN", config.tls.as_ref()).await,
        file_limit(config.limits.max_connections_per_node, limit),
        origins(&config.origins, config.profile),
        exposure(config.listen, config.auth.required, config.profile),
        bus::check(&config.bus).await,
        data(config),
    ]);
    if let Some(listen) = config.admin_listen {
        findings.push(port(listen, "HIVEOPS_ADMIN_LISTEN", config.tls.as_ref()).await);
        if !config.auth.required && !listen.ip().is_loopback() {
            findings.push(exposure(listen, false, config.profile));
        }
    }
    findings.extend(config.tls.iter().flat_map(|files| tls::check(files, config.profile)));
    findings.extend(credential::check(&config.auth, config.profile, !config.control.is_empty()));
    findings.extend(credential::files(&loaded.shown, config.profile));
    findings
}

async fn port(listen: SocketAddr, setting: &str, tls: Option<&TlsFiles>) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ok("port", format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match version_at(listen, tls).await {
            Some(version) => {
                Finding::ok("port", format!("{listen} is held by a HiveOps node, version {version}"))
            }
            None => Finding::fail(
                "port",
                format!("{listen} is held by another program"),
                format!("stop it, or choose another address with {setting}"),
            ),
        },
        Err(error) => Finding::fail(
            "port",
            format!("cannot listen on {listen}: {error}"),
            format!("choose an address of this machine, and a port above 1023, with {setting}"),
        ),
    }
}

/// The version of the node that listens there, when it is one.
async fn version_at(address: SocketAddr, tls: Option<&TlsFiles>) -> Option<String> {
    let url = crate::address::node_url(address, tls);
    // It is this node's certificate, whatever name it is reached by here.
    let api = Api::new(Target { ca: tls.map(|files| files.cert.clone()), ..Target::of(url) }).ok()?;
    let health = api.get(HEALTH).await.ok()?;
    health.get("contract_version")?;
    health.get("version").and_then(Value::as_str).map(str::to_owned)
}

fn file_limit(connections: u64, limit: Option<u64>) -> Finding {
    let Some(limit) = limit else {
        return Finding::ok("file limit", "unlimited");
    };
    let possible = limit.saturating_sub(OTHER_FILES);
    if possible >= connections {
        return Finding::ok("file limit", format!("{limit} is enough for {connections} connections"));
    }
    Finding::warn(
        "file limit",
        format!("{limit} leaves room for {possible} of {connections} connections (max_connections_per_node)"),
        format!("`ulimit -n {}` before starting, or LimitNOFILE in the unit", connections + OTHER_FILES),
    )
}

/// In production a page of anybody's that a user opens must not get in.
fn origins(origins: &Origins, profile: Profile) -> Finding {
    let text = match origins {
        Origins::Listed(_) => return Finding::ok("origins", origins.to_string()),
        Origins::Unchecked => "are not checked: any web page that a user opens can connect",
        Origins::Any => "`*` lets any web page that a user opens connect",
    };
    let fix = "list yours in WS_ALLOWED_ORIGINS, such as https://ops.example.com";
    match profile {
        Profile::Dev => Finding::warn("origins", text, fix),
        Profile::Production => Finding::fail("origins", text, fix),
    }
}

fn exposure(listen: SocketAddr, required: bool, profile: Profile) -> Finding {
    let fix = "set WS_AUTH_REQUIRED=true and WS_AUTH_TOKEN or WS_AUTH_MODE=jwt, or listen on 127.0.0.1";
    match (required, listen.ip().is_loopback(), profile) {
        (true, _, _) => Finding::ok("credential", "is required"),
        (false, true, Profile::Dev) => {
            Finding::ok("credential", "is not required; only this machine can connect")
        }
        (false, true, Profile::Production) => {
            let fix = "leave WS_AUTH_REQUIRED out, or set it to true";
            Finding::fail("credential", "is not required in production", fix)
        }
        (false, false, Profile::Dev) => Finding::warn(
            "credential",
            format!("is not required, and {listen} can be reached from outside"),
            fix,
        ),
        (false, false, Profile::Production) => Finding::fail(
            "credential",
            format!("is not required in production, and {listen} can be reached from outside"),
            fix,
        ),
    }
}

fn data(config: &Config) -> Finding {
    if config.bus.is_shared() {
        return Finding::ok("data", "is on the bus");
    }
    data_dir(config.data_dir.as_deref())
}

fn data_dir(dir: Option<&Path>) -> Finding {
    let Some(dir) = dir else {
        return Finding::ok("data", "in memory: it ends with the node (HIVEOPS_DATA_DIR keeps it)");
    };
    let shown = dir.display();
    // The node makes what is missing, so the nearest directory that exists must be writable.
    let existing =
        dir.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(existing) = existing.into_iter().find(|path| path.exists()) else {
        return Finding::fail("data", format!("{shown} cannot be made"), "choose another HIVEOPS_DATA_DIR");
    };
    if !existing.is_dir() {
        let text = format!("{} is not a directory", existing.display());
        return Finding::fail("data", text, "choose another HIVEOPS_DATA_DIR");
    }
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok("data", format!("{shown} is writable")),
        Err(error) => Finding::fail(
            "data",
            format!("{} is not writable: {error}", existing.display()),
            "give it to the user that runs the node, or choose another HIVEOPS_DATA_DIR",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_file_limit_that_is_too_low_says_what_it_would_have_to_be() {
        assert_eq!(file_limit(100, Some(356)).level, Level::Ok);
        assert_eq!(file_limit(100, None).level, Level::Ok);
        let low = file_limit(100, Some(355));
        assert!(low.text.contains("room for 99 of 100") && low.fix.unwrap().contains("ulimit -n 356"));
    }

    #[test]
    fn an_open_node_is_worse_the_more_can_reach_it() {
        let level =
            |listen: &str, required, profile| exposure(listen.parse().unwrap(), required, profile).level;
        assert_eq!(level("127.0.0.1:1", false, Profile::Dev), Level::Ok);
        assert_eq!(level("0.0.0.0:1", false, Profile::Dev), Level::Warn);
        assert_eq!(level("127.0.0.1:1", false, Profile::Production), Level::Fail);
        assert_eq!(level("0.0.0.0:1", false, Profile::Production), Level::Fail);
        assert_eq!(level("0.0.0.0:1", true, Profile::Production), Level::Ok);
    }

    #[test]
    fn in_production_origins_are_listed() {
        let level = |text: &str, profile| origins(&text.parse().unwrap(), profile).level;
        for open in ["", "*"] {
            assert_eq!(level(open, Profile::Dev), Level::Warn, "{open:?}");
            assert_eq!(level(open, Profile::Production), Level::Fail, "{open:?}");
        }
        assert_eq!(level("https://ops.example", Profile::Production), Level::Ok);
    }

    #[tokio::test]
    async fn a_port_that_another_program_holds_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Closing every connection is an answer that no node gives.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        assert_eq!(port(address, "HIVEOPS_LISTEN", None).await.level, Level::Fail);
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_a_failure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(data_dir(Some(file.path())).level, Level::Fail);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(Some(&dir.path().join("a/b"))).level, Level::Ok);
    }
}
