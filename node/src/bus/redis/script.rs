//! The scripts that run inside Redis. Each does one thing as a whole, or not at all.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;

use super::fault::Fault;
use super::server::{OPEN_TIMEOUT, ask};

/// A script and the name that Redis knows it by.
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    /// With a first line that has no flags, Redis refuses the whole script where it would refuse a write of
    /// it: as a replica, out of memory, without a disk.
    fn new(parts: &[&str]) -> Self {
        let text = format!("#!lua\n{}", parts.concat());
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}

const COMMON: &str = include_str!("scripts/common.lua");

pub(super) static PUBLISH: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[COMMON, include_str!("scripts/publish.lua")]));
pub(super) static SYNC: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[COMMON, include_str!("scripts/sync.lua")]));
pub(super) static SETTLE: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[include_str!("scripts/settle.lua")]));
pub(super) static PROBE: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[include_str!("scripts/probe.lua")]));
pub(super) static RENEW_LEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[include_str!("scripts/renew_lease.lua")]));

/// Makes the scripts known to a server. It may forget them at any time.
pub(super) async fn load(connection: &MultiplexedConnection, scripts: &[&Script]) -> Result<(), Fault> {
    for script in scripts {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(script.text());
        let _: String = ask(connection, "SCRIPT LOAD", &command, OPEN_TIMEOUT).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{CALL_TIMEOUT, DUPLICATE_WINDOW};
    use crate::log::{KEPT_MAX, KEPT_MS};

    #[test]
    fn scripts_keep_as_much_as_the_logs_of_the_nodes() {
        assert!(COMMON.contains(&format!("KEPT_MAX, KEPT_MS = {KEPT_MAX}, {KEPT_MS}")));
        assert!(DUPLICATE_WINDOW > CALL_TIMEOUT * 2, "a call is known for longer than it lasts");
    }
}
