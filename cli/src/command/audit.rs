//! `hiveops audit`: whether every publication that was due to a session is accounted for, on every node.
//!
//! The nodes close their books between two fan-outs, so a residual is a mistake at any time, and not only when
//! nothing is under way. It is looked at again until the timeout all the same, because a node that is busy or
//! just starting may not answer at once.

use std::process::ExitCode;
use std::time::Duration;

use hiveops_proto::path::AUDIT;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::api::{Api, Target};
use crate::output::{self, shown};
use crate::serve::small_runtime;

/// Time between two looks at books that do not add up, or lack somebody's.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Which node, how long, and how to print.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Look again for so many seconds while something is missing
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    timeout: u64,
    /// How to print the books
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// A line per node and subscription, for people
    Table,
    /// The node's answer
    Json,
}

/// What the books say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Every node answered, and nothing is missing.
    Even,
    /// So many frames are missing, or were counted twice.
    Residual(u64),
    /// Nothing is missing as far as anybody answered, but not all did.
    Partial,
    /// The node speaks another language.
    Unreadable,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let api = Api::new(args.target)?;
    let books = small_runtime()?.block_on(look(&api, Duration::from_secs(args.timeout)))?;
    match args.output {
        Output::Json => output::json(&books)?,
        Output::Table => {
            for text in table(&books) {
                output::line(text)?;
            }
        }
    }
    let problem = match verdict(&books) {
        Verdict::Even => return Ok(ExitCode::SUCCESS),
        Verdict::Residual(frames) => format!("{frames} frames are not accounted for"),
        Verdict::Partial => "not every node, or not every part of one, has answered".to_owned(),
        Verdict::Unreadable => "the answer has no books that this version can read".to_owned(),
    };
    output::note(format_args!("hiveops: {problem}"));
    Ok(ExitCode::FAILURE)
}

/// Asks until the books are even, or time is up; the last answer.
async fn look(api: &Api, timeout: Duration) -> anyhow::Result<Value> {
    let until = Instant::now() + timeout;
    loop {
        let books = api.get(AUDIT).await?;
        let next = Instant::now() + LOOK_EVERY;
        if verdict(&books) == Verdict::Even || next > until {
            return Ok(books);
        }
        sleep_until(next).await;
    }
}

fn verdict(books: &Value) -> Verdict {
    let cluster = books.get("cluster");
    let status = cluster.and_then(|cluster| cluster.get("status")?.as_str());
    match (cluster.and_then(|cluster| cluster.get("residual")?.as_u64()), status) {
        (Some(0), Some("complete")) => Verdict::Even,
        (Some(0), Some(_)) => Verdict::Partial,
        (Some(frames), _) => Verdict::Residual(frames),
        (None, _) => Verdict::Unreadable,
    }
}

const COLUMNS: [&str; 6] = ["recipients", "delivered", "coalesced", "dropped", "pending", "residual"];

fn table(books: &Value) -> Vec<String> {
    let row = |node: &str, subscription: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>12}")).collect();
        format!("{node:<20} {subscription:<16}{cells}")
    };
    let mut lines = vec![row("node", "subscription", &COLUMNS.map(str::to_owned))];
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let cluster = books.get("cluster");
    for node in list(cluster.and_then(|cluster| cluster.get("nodes"))) {
        let id = shown(node.get("node_id"));
        for (name, books) in node.get("subscriptions").and_then(Value::as_object).into_iter().flatten() {
            let cells = COLUMNS.map(|column| match column {
                "dropped" => dropped(books).to_string(),
                _ => shown(books.get(column)),
            });
            lines.push(row(&id, name, &cells));
            lines.extend(reasons(books).map(|reasons| format!("{:<20} dropped: {reasons}", "")));
        }
        if node.get("complete") != Some(&Value::Bool(true)) {
            lines.push(format!("{id}: a part of it did not answer in time, its figures are older"));
        }
    }
    let missing = list(cluster.and_then(|cluster| cluster.get("missing")));
    lines.extend(missing.iter().map(|id| format!("{}: no answer", shown(Some(id)))));
    lines.push(match verdict(books) {
        Verdict::Even => "residual 0: everything that was due is accounted for".to_owned(),
        Verdict::Residual(frames) => format!("residual {frames}"),
        Verdict::Partial => "residual 0 where there was an answer".to_owned(),
        Verdict::Unreadable => "residual unknown".to_owned(),
    });
    lines
}

fn counts(books: &Value) -> impl Iterator<Item = (&String, u64)> {
    let dropped = books.get("dropped").and_then(Value::as_object).into_iter().flatten();
    dropped.filter_map(|(reason, count)| Some((reason, count.as_u64()?)))
}

fn dropped(books: &Value) -> u64 {
    counts(books).fold(0, |sum, (_, count)| sum.saturating_add(count))
}

/// The reasons that there were.
fn reasons(books: &Value) -> Option<String> {
    let some: Vec<String> = counts(books)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    (!some.is_empty()).then(|| some.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_whole_books_without_a_residual_are_even() {
        let books =
            |status: &str, residual: i64| json!({"cluster": {"status": status, "residual": residual}});
        assert_eq!(verdict(&books("complete", 0)), Verdict::Even);
        assert_eq!(verdict(&books("partial", 0)), Verdict::Partial);
        assert_eq!(verdict(&books("partial", 3)), Verdict::Residual(3));
        assert_eq!(verdict(&books("complete", 1)), Verdict::Residual(1));
        assert_eq!(verdict(&json!({"status": "complete", "residual": 0})), Verdict::Unreadable);
        assert_eq!(verdict(&json!({"cluster": {"status": "complete", "residual": -1}})), Verdict::Unreadable);
    }

    #[test]
    fn the_table_has_a_line_per_subscription_and_names_reasons_and_who_is_missing() {
        let books = json!({"cluster": {
            "status": "partial", "residual": 1, "missing": ["n2"],
            "nodes": [{"node_id": "n1", "complete": false, "subscriptions": {"tasks": {
                "recipients": 10, "caught_up": 0, "delivered": 4, "coalesced": 1,
                "dropped": {"left": 2, "refused": 1, "closed": 0}, "pending": 1, "residual": 1,
            }}}],
        }});
        let lines = table(&books);
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(words, ["n1", "tasks", "10", "4", "1", "3", "1", "1"]);
        assert_eq!(lines[2].trim(), "dropped: left 2, refused 1");
        assert!(lines[3].starts_with("n1: a part") && lines[4] == "n2: no answer", "{lines:?}");
        assert_eq!(lines.last().unwrap(), "residual 1");
    }
}
