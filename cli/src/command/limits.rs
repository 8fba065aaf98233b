//! `hiveops limits`: the limits in force on a running node, and who set each.

use std::process::ExitCode;

use hiveops_proto::Limits;
use hiveops_proto::path::WS_LIMITS;
use serde_json::Value;

use crate::api::{Api, Target};
use crate::output;
use crate::serve::small_runtime;

/// Which node, and how to print.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the node's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
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
