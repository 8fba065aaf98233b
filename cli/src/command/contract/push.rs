//! `hiveops contract push`: what is wrong with the file is said here, what is wrong with the change by the
//! control plane.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::process::ExitCode;

use hiveops_control::state::{CONTRACT_BYTES_MAX, Change, Level};
use hiveops_proto::Contract;
use hiveops_proto::contract::{ContractVersion, InvalidContract};
use hiveops_proto::path::CONTROL_CONTRACT;
use reqwest::Method;
use serde_json::{Value, json};

use super::revision;
use crate::control_api::{ControlApi, ControlTarget};
use crate::output::{self, Usage};
use crate::serve::small_runtime;

/// What to push.
#[derive(clap::Args)]
pub(super) struct Push {
    /// The contract document
    #[arg(value_name = "FILE")]
    file: String,
    /// How far the change goes; required for a major one, and may be more than a comparison can see
    #[arg(long, value_name = "LEVEL")]
    level: Option<Label>,
    /// What whoever used the version before has to do, or where that is written; required for a major change
    #[arg(long, value_name = "TEXT")]
    migration_note: Option<String>,
    /// All versions that clients may ask for from then on; by default this one beside those so far
    #[arg(long, value_name = "VERSION,…", value_delimiter = ',')]
    supported: Option<Vec<ContractVersion>>,
    /// Only show how far the change goes, and what is different
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: ControlTarget,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Label {
    Patch,
    Minor,
    Major,
}

impl From<Label> for Level {
    fn from(label: Label) -> Self {
        match label {
            Label::Patch => Self::Patch,
            Label::Minor => Self::Minor,
            Label::Major => Self::Major,
        }
    }
}

pub(super) fn run(push: Push) -> anyhow::Result<ExitCode> {
    let document = read(&push.file)?;
    let api = ControlApi::new(push.target)?;
    let body = json!({
        "document": document,
        "level": push.level.map(Level::from),
        "migration_note": push.migration_note,
        "supported": push.supported.map(BTreeSet::from_iter),
        "dry_run": push.dry_run,
    });
    let reply = small_runtime()?.block_on(api.call(Method::POST, CONTROL_CONTRACT, Some(body)))?;
    for line in told(&reply)? {
        output::line(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The document, if it is one.
fn read(path: &str) -> Result<String, Usage> {
    let unreadable = |error: std::io::Error| Usage(format!("`{path}` cannot be read: {error}"));
    let mut bytes = Vec::new();
    let limit = u64::try_from(CONTRACT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() > CONTRACT_BYTES_MAX {
        return Err(Usage(format!(
            "`{path}` has more than {CONTRACT_BYTES_MAX} bytes, the most for a contract"
        )));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|error| Usage(format!("`{path}` is not UTF-8: {}", error.utf8_error())))?;
    if let Err(error) = serde_json::from_str::<Value>(&text) {
        return Err(Usage(format!("`{path}` is not JSON: {error}")));
    }
    match Contract::parse(&text) {
        Ok(_) => Ok(text),
        Err(InvalidContract::Syntax(error)) => Err(Usage(format!("`{path}` is not a contract: {error}"))),
        Err(error) => Err(Usage(format!("`{path}` is not a contract: {error}"))),
    }
}

fn told(reply: &Value) -> anyhow::Result<Vec<String>> {
    let part = |name: &str| reply.get(name).cloned().unwrap_or_default();
    let (version, previous) = (part("version"), part("previous"));
    let (version, previous) = (version.as_str().unwrap_or("?"), previous.as_str().unwrap_or("?"));
    let level: Level = serde_json::from_value(part("level"))?;
    let changes: Vec<Change> = serde_json::from_value(part("changes"))?;
    let total = part("changes_total").as_u64().and_then(|total| usize::try_from(total).ok());
    if version == previous {
        return Ok(vec![format!("nothing to change: {version} is in force already")]);
    }
    let mut lines = vec![format!("{previous} -> {version}, a comparison finds: {}", word(level))];
    lines.extend(
        changes.iter().map(|Change { level, path, what }| format!("  {}  {path}: {what}", word(*level))),
    );
    let more = total.unwrap_or(0).saturating_sub(changes.len());
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.push(format!("digest {}", part("digest").as_str().unwrap_or("?")));
    lines.push(match reply.get("decided") {
        Some(decided) => format!("{version} is in force, revision {}", revision(decided.get("revision"))),
        None => format!("{version} would be put in force"),
    });
    Ok(lines)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Same => "nothing",
        Level::Patch => "patch",
        Level::Minor => "minor",
        Level::Major => "major",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_tells_how_far_it_goes_what_is_different_and_where_it_stands() {
        let mut reply = json!({
            "version": "2.0.0",
            "previous": "1.3.0",
            "digest": "sha256:ab",
            "level": "major",
            "changes": [{"level": "major", "path": "tasks", "what": "the subscription is gone"}],
            "changes_total": 3,
            "decided": {"revision": {"term": 4, "index": 17}},
        });
        let lines = told(&reply).unwrap();
        let wanted = [
            "1.3.0 -> 2.0.0, a comparison finds: major",
            "  major  tasks: the subscription is gone",
            "  and 2 more",
            "digest sha256:ab",
            "2.0.0 is in force, revision 4.17",
        ];
        assert_eq!(lines, wanted);
        reply.as_object_mut().unwrap().remove("decided");
        assert_eq!(told(&reply).unwrap().last().unwrap(), "2.0.0 would be put in force");
    }
}
