//! What a check found, and the list of checks: their names never change, and each has a place in the documents.
//! How it is found out is the business of the other files.

use std::fmt;

use serde::Serialize;

/// Declares the checks in the order of the report.
macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident $id:literal $docs:literal;)*) => {
        /// One thing that is looked at.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Check { $($(#[$doc])* $name),* }

        impl Check {
            /// All of them.
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name: the group, a dot, and what it is in the group. Programs rely on it.
            pub(super) fn id(self) -> &'static str {
                match self { $(Self::$name => $id),* }
            }

            /// Where to read more.
            pub(super) fn docs(self) -> &'static str {
                match self { $(Self::$name => $docs),* }
            }
        }
    };
}

checks! {
    /// Every setting has a value that can be, and none contradicts another.
    ConfigValid "config.valid" "docs/configuration.md#settings";
    /// The data directory can be written to.
    ConfigData "config.data" "docs/operations.md#the-data-directory";
    /// Who comes from outside needs a credential.
    SecretsRequired "secrets.required" "docs/security.md#turning-it-on";
    /// Somebody issues the access tokens that are asked for.
    SecretsIssuer "secrets.issuer" "docs/security.md#tokens";
    /// The static token cannot be guessed.
    SecretsToken "secrets.token" "docs/security.md#rotating";
    /// Access tokens stay out of addresses.
    SecretsQuery "secrets.query" "docs/security.md#ways-to-bring-a-credential";
    /// Files with secrets are not for everybody.
    SecretsFiles "secrets.files" "docs/security.md#turning-it-on";
    /// The certificate is good for long enough.
    TlsCertificate "tls.certificate" "docs/configuration.md#tls";
    /// Only listed pages connect.
    OriginsListed "origins.listed" "docs/security.md#turning-it-on";
    /// The process may have as many files as sessions are let in.
    SystemFiles "system.files" "docs/operations.md#the-file-limit";
    /// The address of the listener is free.
    NetworkListen "network.listen" "docs/operations.md#running-a-node";
    /// The address of the second listener is free.
    NetworkAdmin "network.admin" "docs/configuration.md#a-listener-for-those-who-run-the-node";
    /// A balancer does not take quiet sessions for dead ones.
    NetworkProxy "network.proxy" "docs/configuration.md#behind-a-proxy";
    /// The clocks of nodes agree.
    ClockNodes "clock.nodes" "docs/operations.md#hiveops-doctor";
    /// The clocks of control replicas agree.
    ClockControl "clock.control" "docs/operations.md#hiveops-doctor";
    /// The servers of the bus answer, and are new enough.
    BusServers "bus.servers" "docs/operations.md#the-bus";
    /// They answer soon.
    BusRoundTrip "bus.round_trip" "docs/operations.md#the-bus";
    /// The control replicas answer, and can decide.
    ControlQuorum "control.quorum" "docs/control.md#members";
    /// They have the same state.
    ControlRevision "control.revision" "docs/control.md#what-holds";
    /// The node's last view of control is sound.
    ControlView "control.view" "docs/operations.md#the-data-directory";
    /// The receiver of traces is there.
    TracesEndpoint "traces.endpoint" "docs/tracing.md#spans";
}

impl Check {
    /// The part of the name before the dot.
    fn group(self) -> &'static str {
        self.id().split_once('.').map_or(self.id(), |(group, _)| group)
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warn,
    Fail,
    /// There was nothing to look at.
    Skip,
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: Check,
    pub(super) level: Level,
    pub(super) text: String,
    /// What to do about it; of what was skipped, what would make it a check. None when all is well.
    pub(super) fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: Check, text: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, text: text.into(), fix: None }
    }

    pub(super) fn warn(check: Check, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, text: text.into(), fix: Some(fix.into()) }
    }

    pub(super) fn fail(check: Check, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, text: text.into(), fix: Some(fix.into()) }
    }

    pub(super) fn skip(check: Check, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Skip, text: text.into(), fix: Some(fix.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "fail",
            Level::Skip => "skip",
        };
        write!(f, "{level}  {:16} {}", self.check.id(), self.text)?;
        match &self.fix {
            Some(fix) => write!(f, "\n      {:16} -> {fix} ({})", "", self.check.docs()),
            None => Ok(()),
        }
    }
}

/// The report as a program reads it; its shape is in docs/operations.md.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// Goes up when a member changes its meaning or goes away; new ones may come without.
    format: u8,
    status: Level,
    checks: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'static str,
    group: &'static str,
    status: Level,
    message: &'a str,
    fix: Option<&'a str>,
    docs: &'static str,
}

const FORMAT: u8 = 1;

impl<'a> Report<'a> {
    pub(super) fn of(findings: &'a [Finding]) -> Self {
        let entry = |finding: &'a Finding| Entry {
            id: finding.check.id(),
            group: finding.check.group(),
            status: finding.level,
            message: &finding.text,
            fix: finding.fix.as_deref(),
            docs: finding.check.docs(),
        };
        Self { format: FORMAT, status: worst(findings), checks: findings.iter().map(entry).collect() }
    }
}

/// What the report says as a whole: what was skipped is neither good nor bad.
pub(super) fn worst(findings: &[Finding]) -> Level {
    let any = |level| findings.iter().any(|finding| finding.level == level);
    match (any(Level::Fail), any(Level::Warn)) {
        (true, _) => Level::Fail,
        (false, true) => Level::Warn,
        (false, false) => Level::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_once_and_says_its_group() {
        let names: std::collections::BTreeSet<_> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(names.len(), Check::ALL.len());
        for check in Check::ALL {
            assert_eq!(check.id().matches('.').count(), 1, "{}", check.id());
        }
        assert_eq!(Check::BusRoundTrip.group(), "bus");
    }

    #[test]
    fn the_worst_finding_is_the_status_and_a_skipped_one_is_none() {
        let skip = || Finding::skip(Check::ClockNodes, "a", "b");
        let warn = || Finding::warn(Check::ClockNodes, "a", "b");
        assert_eq!(worst(&[skip()]), Level::Ok);
        assert_eq!(worst(&[skip(), warn()]), Level::Warn);
        assert_eq!(worst(&[warn(), Finding::fail(Check::ClockNodes, "a", "b"), skip()]), Level::Fail);
    }
}
