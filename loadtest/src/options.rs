//! Values of the command line that more than one subcommand reads, checked where they enter.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hiveops_proto::SubscriptionName;

use crate::process::Pid;
use crate::target::Target;

/// The most connections one run opens: beyond it the source ports of a machine run out.
pub(crate) const CONNECTIONS_MAX: u32 = 200_000;

/// The longest of all durations on the command line: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// Whose memory and CPU are read.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct ServerProcess {
    /// Process of the server [default: whoever listens on the port, when the server is on this machine]
    #[arg(long, conflicts_with = "pid_file")]
    pid: Option<u32>,
    /// File that holds the process id of the server
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

impl ServerProcess {
    /// The process, or `None` when it was not named and cannot be found: its figures are then left out.
    pub(crate) fn find(&self, target: &Target) -> anyhow::Result<Option<Pid>> {
        let named = match (&self.pid, &self.pid_file) {
            (Some(pid), _) => Some(*pid),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read {} (--pid-file)", file.display()))?;
                let pid = text.trim().parse();
                Some(pid.with_context(|| format!("{} holds no process id (--pid-file)", file.display()))?)
            }
            (None, None) => None,
        };
        match named {
            Some(pid) => Pid::check(pid).map(Some),
            None => Ok(Pid::listening_at(target.resolve()?)),
        }
    }
}

/// The credential, for servers that want one.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Credential {
    /// File that holds the bearer token, for a server with WS_AUTH_REQUIRED
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Credential {
    /// The header line that carries the token, with its line end; empty without a token.
    pub(crate) fn header(&self) -> anyhow::Result<String> {
        let Some(file) = &self.token_file else { return Ok(String::new()) };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {} (--token-file)", file.display()))?;
        let token = text.trim();
        ensure!(
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()),
            "{} must hold one token of visible characters (--token-file)",
            file.display()
        );
        Ok(format!("Authorization: Bearer {token}\r\n"))
    }
}

/// What the connections of `idle` join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subscriptions {
    /// Nothing at all.
    None,
    /// These.
    List(Vec<SubscriptionName>),
}

impl Subscriptions {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let names: Result<_, _> = text.split(',').map(SubscriptionName::new).collect();
        names.map(Self::List).map_err(|error| error.to_string())
    }

    /// The query that asks for them.
    pub(crate) fn query(&self) -> String {
        format!("subscriptions={}", self.names().join(","))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::List(names) => names.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Seconds, decimals allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("must be a number of seconds from 0 to {SECONDS_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_bounded_numbers() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["-1", "nan", "inf", "86401", "", "1s"] {
            assert!(seconds(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn subscriptions_are_none_or_a_list_of_names() {
        assert_eq!(Subscriptions::parse("none").unwrap().query(), "subscriptions=");
        assert_eq!(Subscriptions::parse("tasks,agents").unwrap().query(), "subscriptions=tasks,agents");
        assert!(Subscriptions::parse("tasks,").is_err());
        assert!(Subscriptions::parse("a b").is_err());
    }
}
