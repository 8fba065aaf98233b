//! `hiveops limits`: the limits in force on a running node, and who set each; `hiveops limits set` changes them
//! through the control plane.

use std::collections::BTreeMap;
use std::process::ExitCode;

use hiveops_proto::Limits;
use hiveops_proto::path::{CONTROL_LIMITS, WS_LIMITS};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Api, Target};
use crate::control_api::{ControlApi, ControlTarget};
use crate::output::{self, Usage};
use crate::serve::small_runtime;

/// Which node, and how to print.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Change limits on every node, without a restart
    Set(Set),
}

#[derive(clap::Args)]
struct Set {
    /// The limits and their new values
    #[arg(value_name = "NAME=VALUE", required = true)]
    limits: Vec<String>,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: ControlTarget,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(Command::Set(set)) = args.command {
        return change(set);
    }
    let api = Api::new(args.target)?;
    let limits = small_runtime()?.block_on(api.get(WS_LIMITS))?;
    if args.json {
        output::json(&limits)?;
        return Ok(ExitCode::SUCCESS);
    }
    for text in table(&limits) {
        output::line(text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn change(set: Set) -> anyhow::Result<ExitCode> {
    let limits = patch(&set.limits)?;
    let api = ControlApi::new(set.target)?;
    let body = json!({"limits": limits, "dry_run": set.dry_run});
    let reply = small_runtime()?.block_on(api.call(Method::POST, CONTROL_LIMITS, Some(body)))?;
    let changes = reply.get("changes").and_then(Value::as_array).into_iter().flatten();
    let rows: Vec<String> = changes.filter_map(changed).collect();
    for row in &rows {
        output::line(row)?;
    }
    let count = rows.len();
    output::line(match (set.dry_run, count) {
        (_, 0) => "nothing to change".to_owned(),
        (true, _) => format!("{count} would change"),
        (false, _) => format!("{count} changed"),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Only the shape is judged here; names and values are the control plane's business.
fn patch(given: &[String]) -> Result<BTreeMap<&str, u64>, Usage> {
    let mut patch = BTreeMap::new();
    for text in given {
        let parsed = text.split_once('=').and_then(|(name, value)| Some((name, value.parse::<u64>().ok()?)));
        let Some((name, value)) = parsed else {
            return Err(Usage(format!("`{text}` is not a limit with a whole number; write it like name=5")));
        };
        if patch.insert(name, value).is_some_and(|other| other != value) {
            return Err(Usage(format!("{name} stands there twice")));
        }
    }
    Ok(patch)
}

fn changed(change: &Value) -> Option<String> {
    let name = change.get("name")?.as_str()?;
    let (from, to) = (change.get("from")?, change.get("to")?);
    let source = change.get("source")?.as_str()?;
    let unit = Limits::spec(name).map_or("", |spec| spec.unit);
    Some(format!("{name}  {from} ({source}) -> {to} {unit}"))
}

fn table(limits: &Value) -> Vec<String> {
    let width = Limits::TABLE.iter().map(|spec| spec.name.len()).max().unwrap_or(0);
    let row = |spec: &hiveops_proto::limits::LimitSpec| {
        let value = limits.get(spec.name)?;
        let source = limits.get("sources").and_then(|sources| sources.get(spec.name)).and_then(Value::as_str);
        let source = source.unwrap_or("unknown");
        Some(format!("{:width$}  {value:>9} {:<14} {source}", spec.name, spec.unit))
    };
    Limits::TABLE.iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_value_the_unit_and_who_set_it() {
        let limits = serde_json::json!({"idle_disconnect_seconds": 600, "sources": {"idle_disconnect_seconds": "env"}});
        let rows = table(&limits);
        let words: Vec<&str> = rows[0].split_whitespace().collect();
        assert_eq!((rows.len(), words), (1, vec!["idle_disconnect_seconds", "600", "s", "env"]));
    }
}
