//! The checks: each looks at one thing and says what it found. None of them changes anything.

use std::path::Path;

use hiveops_node::Config;
use hiveops_node::config::{Loaded, Origins, Profile};
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use super::{Check, Finding, Surroundings, bus, clock, control, credential, network, tls, traces};

/// Files that a node needs beside its sockets: logs, listeners, pollers, the store.
const OTHER_FILES: u64 = 256;

/// Every check, each once.
pub(super) async fn all(loaded: &Loaded, around: &Surroundings) -> Vec<Finding> {
    let config = &loaded.config;
    let tls = config.tls.as_ref();
    // A node raises its own limit as far as it may.
    let limit = getrlimit(Resource::Nofile).maximum;
    let valid = format!("valid, profile {}, node {}", config.profile, config.node_id);
    let mut findings = vec![
        Finding::ok(Check::ConfigValid, valid),
        data(config),
        tls::check(tls),
        origins(&config.origins, config.profile),
        file_limit(config.limits.max_connections_per_node, limit),
        network::port(Check::NetworkListen, config.listen, "HIVEOPS_LISTEN", tls).await,
        network::admin_port(config.admin_listen, tls).await,
        network::proxy(around.proxy_idle_seconds, &config.limits),
        clock::nodes(&around.nodes).await,
        clock::control(config).await,
        traces::check(config.traces.as_ref()).await,
    ];
    findings.extend(credential::check(loaded));
    findings.extend(bus::check(&config.bus).await);
    findings.extend(control::check(config).await);
    findings
}

fn file_limit(connections: u64, limit: Option<u64>) -> Finding {
    let Some(limit) = limit else {
        return Finding::ok(Check::SystemFiles, "files are not limited");
    };
    let possible = limit.saturating_sub(OTHER_FILES);
    if possible >= connections {
        return Finding::ok(
            Check::SystemFiles,
            format!("{limit} files are enough for {connections} connections"),
        );
    }
    Finding::warn(
        Check::SystemFiles,
        format!(
            "{limit} files leave room for {possible} of {connections} connections (max_connections_per_node)"
        ),
        format!("`ulimit -n {}` before starting, or LimitNOFILE in the unit", connections + OTHER_FILES),
    )
}

/// In production a page of anybody's that a user opens must not get in.
fn origins(origins: &Origins, profile: Profile) -> Finding {
    let text = match origins {
        Origins::Listed(_) => return Finding::ok(Check::OriginsListed, origins.to_string()),
        Origins::Unchecked => "origins are not checked: any web page that a user opens can connect",
        Origins::Any => "`*` lets any web page that a user opens connect",
    };
    let fix = "list yours in WS_ALLOWED_ORIGINS, such as https://ops.example.com";
    match profile {
        Profile::Dev => Finding::warn(Check::OriginsListed, text, fix),
        Profile::Production => Finding::fail(Check::OriginsListed, text, fix),
    }
}

fn data(config: &Config) -> Finding {
    if config.bus.is_shared() {
        return Finding::ok(Check::ConfigData, "what is published is kept on the bus");
    }
    data_dir(config.data_dir.as_deref())
}

fn data_dir(dir: Option<&Path>) -> Finding {
    let Some(dir) = dir else {
        return Finding::ok(
            Check::ConfigData,
            "logs are in memory: they end with the node (HIVEOPS_DATA_DIR keeps them)",
        );
    };
    let shown = dir.display();
    // The node makes what is missing, so the nearest directory that exists must be writable.
    let existing =
        dir.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(existing) = existing.into_iter().find(|path| path.exists()) else {
        return Finding::fail(
            Check::ConfigData,
            format!("{shown} cannot be made"),
            "choose another HIVEOPS_DATA_DIR",
        );
    };
    if !existing.is_dir() {
        let text = format!("{} is not a directory", existing.display());
        return Finding::fail(Check::ConfigData, text, "choose another HIVEOPS_DATA_DIR");
    }
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(Check::ConfigData, format!("{shown} is writable")),
        Err(error) => Finding::fail(
            Check::ConfigData,
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
    fn in_production_origins_are_listed() {
        let level = |text: &str, profile| origins(&text.parse().unwrap(), profile).level;
        for open in ["", "*"] {
            assert_eq!(level(open, Profile::Dev), Level::Warn, "{open:?}");
            assert_eq!(level(open, Profile::Production), Level::Fail, "{open:?}");
        }
        assert_eq!(level("https://ops.example", Profile::Production), Level::Ok);
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_a_failure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(data_dir(Some(file.path())).level, Level::Fail);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(Some(&dir.path().join("a/b"))).level, Level::Ok);
    }
}
