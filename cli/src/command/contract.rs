//! `hiveops contract`: the contract version in force, and putting another one in force.

mod push;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use hiveops_node::config::CLIENT_ENV;
use hiveops_proto::contract::ContractVersion;
use hiveops_proto::path::{CONTROL_COMMANDS, CONTROL_CONTRACT, WS_CONTRACT};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Api, Target};
use crate::control_api::{ControlApi, ControlTarget};
use crate::output::{self, Usage};
use crate::serve::small_runtime;

/// What to do with the contract.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the version in force, those that are supported, and their digests
    Show(Show),
    /// Put another version in force on every node, without a restart
    Push(push::Push),
    /// Change which versions clients may ask for, and what they are told of old ones
    Support(Support),
}

#[derive(clap::Args)]
struct Show {
    /// Ask a node instead of the control plane
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Certificates to trust besides those of the system, for a node that ends TLS
    #[arg(long, env = CLIENT_ENV[2], value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Print the document in force, as it was pushed
    #[arg(long, conflicts_with_all = ["json", "url"])]
    document: bool,
    #[command(flatten)]
    target: ControlTarget,
}

#[derive(clap::Args)]
struct Support {
    /// All versions that clients may ask for; the one in force must be among them
    #[arg(long, value_name = "VERSION,…", value_delimiter = ',', required_unless_present = "policy")]
    versions: Option<Vec<ContractVersion>>,
    /// What happens to old versions, in one word
    #[arg(long, value_name = "WORD", requires = "notice")]
    policy: Option<String>,
    /// The same in a sentence
    #[arg(long, value_name = "TEXT", requires = "policy")]
    notice: Option<String>,
    #[command(flatten)]
    target: ControlTarget,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Show(show) => self::show(show),
        Command::Push(push) => push::run(push),
        Command::Support(support) => self::support(support),
    }
}

fn show(show: Show) -> anyhow::Result<ExitCode> {
    let answer = match show.url {
        Some(url) => {
            let api = Api::new(Target { ca: show.ca, ..Target::of(url) })?;
            small_runtime()?.block_on(api.get(WS_CONTRACT))?
        }
        None => {
            let api = ControlApi::new(show.target)?;
            small_runtime()?.block_on(api.call(Method::GET, CONTROL_CONTRACT, None))?
        }
    };
    if show.json {
        output::json(&answer)?;
    } else if show.document {
        output::text(answer.get("document").and_then(Value::as_str).unwrap_or_default())?;
    } else {
        for line in summary(&answer) {
            output::line(line)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn support(support: Support) -> anyhow::Result<ExitCode> {
    let versions: Option<BTreeSet<ContractVersion>> = support.versions.map(BTreeSet::from_iter);
    if versions.as_ref().is_some_and(BTreeSet::is_empty) {
        return Err(Usage("--versions names no version".to_owned()).into());
    }
    let policy = support.policy.zip(support.notice);
    let policy = policy.map(|(policy, notice)| json!({"policy": policy, "notice": notice}));
    let action = json!({"support_contract": {"versions": versions, "policy": policy}});
    let api = ControlApi::new(support.target)?;
    let decided = small_runtime()?.block_on(api.call(Method::POST, CONTROL_COMMANDS, Some(action)))?;
    output::line(match decided.get("changed").and_then(Value::as_bool) {
        Some(true) => format!("changed, revision {}", revision(decided.get("revision"))),
        _ => "nothing to change".to_owned(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What both a replica and a node say, and what only one of them does as far as it is there.
fn summary(answer: &Value) -> Vec<String> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let supported = answer.get("supported_versions").and_then(Value::as_array).into_iter().flatten();
    let supported: Vec<&str> = supported.filter_map(Value::as_str).collect();
    let policy = answer.get("deprecation_policy");
    let mut lines = vec![
        format!("version    {}", text(answer.get("current_version"))),
        format!("supported  {}", supported.join(", ")),
        format!("digest     {}", text(answer.get("contract_digest"))),
        format!("frames     {}", text(answer.get("schema_digest"))),
        format!("revision   {}", revision(answer.get("revision"))),
        format!("policy     {}", text(policy.and_then(|policy| policy.get("policy")))),
    ];
    if answer.get("stale").and_then(Value::as_bool) == Some(true) {
        lines.push("the node does not hear of the control plane: there may be a later version".to_owned());
    }
    let versions = answer.get("versions").and_then(Value::as_array).into_iter().flatten();
    lines.extend(versions.map(|version| {
        let level = version.get("level").and_then(Value::as_str).unwrap_or("first");
        let note = version.get("migration_note").and_then(Value::as_str);
        let note = note.map_or(String::new(), |note| format!(": {note}"));
        format!("  {} of {}, {level}{note}", text(version.get("version")), text(version.get("at")))
    }));
    lines
}

/// A place in the log of the control plane.
fn revision(revision: Option<&Value>) -> String {
    let number = |name| revision.and_then(|revision| revision.get(name)).and_then(Value::as_u64);
    match (number("term"), number("index")) {
        (Some(term), Some(index)) => format!("{term}.{index}"),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_a_node_lacks_what_only_a_replica_knows() {
        let answer = json!({
            "current_version": "1.1.0",
            "supported_versions": ["1.0.0", "1.1.0"],
            "contract_digest": "sha256:ab",
            "schema_digest": "sha256:cd",
            "deprecation_policy": {"policy": "semver", "notice": "…"},
            "revision": {"term": 2, "index": 9},
            "stale": true,
        });
        let lines = summary(&answer);
        assert_eq!(lines.len(), 7, "{lines:?}");
        for line in ["version    1.1.0", "supported  1.0.0, 1.1.0", "digest     sha256:ab", "revision   2.9"]
        {
            assert!(lines.iter().any(|found| found == line), "{lines:?}");
        }
    }
}
