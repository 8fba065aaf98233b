//! `hiveops doctor`: whether a node can run here with this configuration, and what to do where it cannot.

mod bus;
mod check;
mod control;
mod credential;
mod tls;

use std::fmt;
use std::process::ExitCode;

use hiveops_node::config::{Defaults, LogFormat, Mistakes};

use crate::output;
use crate::serve::small_runtime;
use crate::settings::SettingArgs;

/// The configuration to check.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    settings: SettingArgs,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    level: Level,
    what: &'static str,
    text: String,
    fix: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, what, text: text.into(), fix: None }
    }

    fn warn(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Warn, what, text: text.into(), fix: Some(fix.into()) }
    }

    fn fail(what: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Fail, what, text: text.into(), fix: Some(fix.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        write!(f, "{level}  {:13} {}", self.what, self.text)?;
        match &self.fix {
            Some(fix) => write!(f, "\n      {:13} -> {fix}", ""),
            None => Ok(()),
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let findings = match args.settings.load(&Defaults::here("info", LogFormat::Json)) {
        Ok(loaded) => small_runtime()?.block_on(check::all(&loaded)),
        Err(Mistakes(mistakes)) => mistakes
            .into_iter()
            .map(|mistake| {
                let place =
                    if mistake.place.is_empty() { String::new() } else { format!(" ({})", mistake.place) };
                let text = format!("{}{place}: {}", mistake.key, mistake.problem);
                Finding::fail("configuration", text, mistake.fix)
            })
            .collect(),
    };
    for finding in &findings {
        output::line(finding)?;
    }
    let failed = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
