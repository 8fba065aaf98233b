//! `hiveops slo check`: reads nodes again and again over a window, and judges what happened in it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use hiveops_node::config::CLIENT_ENV;
use hiveops_proto::path::{METRICS, WS_STATS};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::exposition::parse;
use super::objectives::Objectives;
use super::report::{Asked, NodeRead, Report};
use super::tally::{Begin, Tally};
use super::verdict::{is_wanted, judge};
use crate::api::{self, Api, Target};
use crate::output::{self, Usage};
use crate::serve::small_runtime;

/// Between two scrapes at least: a gauge is looked at as often as it may change.
const SCRAPE_EVERY_MIN: Duration = Duration::from_secs(1);
/// Scrapes of one check at most, so that a long window asks more rarely.
const SCRAPES_MAX: u32 = 60;
/// Nodes of one check at most: as many as a cluster's own view shows.
const NODES_MAX: usize = 1_024;
/// A metrics page of one node has some 100 KiB.
const PAGE_BYTES_MAX: usize = 8 * 1_048_576;

/// Which nodes, for how long, and how much may burn.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Addresses of the nodes themselves, with commas between them; not of a balancer before them
    #[arg(long, env = CLIENT_ENV[0], value_name = "URL,…", value_delimiter = ',', default_value = "http://127.0.0.1:8000")]
    url: Vec<String>,
    /// Certificates to trust besides those of the system, as PEM: of authorities, or the nodes' own
    #[arg(long, env = CLIENT_ENV[2], value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Credential, where the nodes ask for one to show their cluster
    #[arg(long, env = CLIENT_ENV[1], hide_env_values = true)]
    token: Option<String>,
    /// How long to watch, from 1s to 1h
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = window)]
    window: Duration,
    /// Judge everything since the nodes started instead of watching
    #[arg(long, conflicts_with = "window")]
    since_start: bool,
    /// Burn rate above which a budget counts as burning; 1 uses it up exactly within its 30 days
    #[arg(long, value_name = "RATE", default_value_t = 1.0, value_parser = rate)]
    max_burn: f64,
    /// Only these objectives
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    objective: Vec<String>,
    /// Another file with objectives, in the form of deploy/slo/objectives.json
    #[arg(long, value_name = "FILE")]
    objectives: Option<PathBuf>,
    /// An objective that nothing happened for is no reason to fail; one that a node does not count is
    #[arg(long)]
    allow_no_data: bool,
    /// A node of the cluster that is not among the addresses counts as one that could not be read, and so does one
    /// that does not say whom it sees
    #[arg(long)]
    whole_cluster: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  every objective holds
  1  at least one budget is burning
  2  the command line or the file with the objectives is wrong
  3  none is known to burn, but a node could not be read
  4  none is known to burn, but there is no data for an objective, or a node does not export it";

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// A node while it is watched.
struct Watched {
    url: String,
    api: Arc<Api>,
    tally: Tally,
    /// As `stats` has it, or why it did not say.
    node_id: Result<String, String>,
    /// Of the last scrape.
    error: Option<String>,
    /// Of the first one, when the window began without this node.
    missed_beginning: Option<String>,
}

impl Watched {
    /// Why it does not count; none when both ends of the window were read. What was missed in between is in the
    /// counters at its end.
    fn unread(&self) -> Option<String> {
        let missed = || {
            let error = self.missed_beginning.as_ref()?;
            Some(format!(
                "nothing is known of the beginning of the window, when it could not be read: {error}"
            ))
        };
        self.error.clone().or_else(missed)
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let objectives = Objectives::load(args.objectives.as_deref(), &args.objective)?;
    let mut nodes = watched(&args)?;
    let asked = Asked {
        window_seconds: (!args.since_start).then_some(args.window.as_secs()),
        max_burn: args.max_burn,
        allow_no_data: args.allow_no_data,
        whole_cluster: args.whole_cluster,
    };
    let not_named = small_runtime()?.block_on(async {
        let not_named = cluster(&mut nodes).await?;
        watch(&mut nodes, &objectives, asked.window_seconds.map(Duration::from_secs)).await;
        anyhow::Ok(not_named)
    })?;
    let read: Vec<&Tally> =
        nodes.iter().filter(|node| node.unread().is_none()).map(|node| &node.tally).collect();
    let judged = judge(&objectives, &read);
    let nodes = nodes.iter().map(|node| NodeRead {
        url: node.url.clone(),
        node_id: node.node_id.clone(),
        resets: node.tally.resets(),
        error: node.unread(),
    });
    let report = Report { asked, nodes: nodes.collect(), not_named, judged };
    match args.output {
        Output::Json => output::json(&report.json())?,
        Output::Table => report.lines().into_iter().try_for_each(output::line)?,
    }
    Ok(ExitCode::from(report.overall().exit_code()))
}

fn watched(args: &Args) -> anyhow::Result<Vec<Watched>> {
    if args.url.len() > NODES_MAX {
        return Err(Usage(format!("--url names more than {NODES_MAX} nodes")).into());
    }
    let urls: BTreeSet<String> =
        args.url.iter().map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
    let nodes = urls.into_iter().map(|url| {
        let api =
            Arc::new(Api::new(Target { url: url.clone(), ca: args.ca.clone(), token: args.token.clone() })?);
        let node_id = Err("was not asked".to_owned());
        Ok(Watched { url, api, tally: Tally::default(), node_id, error: None, missed_beginning: None })
    });
    nodes.collect()
}

/// Asks each node who it is and whom it sees, and gives the nodes that nobody named. A node that does not
/// say (a credential is missing) is read all the same, and the report knows that it was silent.
async fn cluster(nodes: &mut [Watched]) -> anyhow::Result<Vec<String>> {
    let (mut named, mut there) = (BTreeSet::new(), BTreeSet::new());
    for (at, answer) in ask(nodes, |api| async move { api.get(WS_STATS).await.map_err(in_a_line) }).await {
        let stats = match answer {
            Ok(stats) => stats,
            Err(why) => {
                nodes[at].node_id = Err(why);
                continue;
            }
        };
        let ids = |pointer: &str, member: &str| -> Vec<String> {
            let list = stats.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|one| if member.is_empty() { one.as_str() } else { one[member].as_str() })
                .map(str::to_owned)
                .collect()
        };
        there.extend(ids("/cluster/nodes", "node_id"));
        there.extend(ids("/cluster/missing", ""));
        let Some(id) = stats.get("node_id").and_then(Value::as_str) else {
            nodes[at].node_id = Err("its answer has no node_id".to_owned());
            continue;
        };
        if !named.insert(id.to_owned()) {
            let text = format!(
                "two addresses of --url lead to the node `{id}`; name each node once, and no balancer"
            );
            return Err(Usage(text).into());
        }
        nodes[at].node_id = Ok(id.to_owned());
    }
    Ok(there.difference(&named).cloned().collect())
}

/// With its causes, and without the lines below it that a problem document has.
fn in_a_line(error: api::Error) -> String {
    let text = format!("{:#}", anyhow::Error::from(error));
    text.lines().next().unwrap_or_default().to_owned()
}

/// Scrapes every node until the window is over; once, when there is none.
async fn watch(nodes: &mut [Watched], objectives: &Objectives, window: Option<Duration>) {
    let begin = if window.is_some() { Begin::Window } else { Begin::Start };
    let end = Instant::now() + window.unwrap_or_default();
    let every = (window.unwrap_or_default() / SCRAPES_MAX).max(SCRAPE_EVERY_MIN);
    let mut next = Instant::now() + every;
    scrape(nodes, objectives, begin).await;
    if begin == Begin::Start {
        return;
    }
    for node in &mut *nodes {
        node.missed_beginning.clone_from(&node.error);
    }
    loop {
        sleep_until(next.min(end)).await;
        next = Instant::now() + every;
        let is_last = Instant::now() >= end;
        scrape(nodes, objectives, begin).await;
        if is_last {
            return;
        }
    }
}

async fn scrape(nodes: &mut [Watched], objectives: &Objectives, begin: Begin) {
    let page = |api: Arc<Api>| async move { api.text(METRICS, PAGE_BYTES_MAX).await.map_err(in_a_line) };
    for (at, answer) in ask(nodes, page).await {
        let samples = answer.and_then(|page| {
            parse(&page, |name| is_wanted(objectives, name)).map_err(|error| format!("its metrics: {error}"))
        });
        let node = &mut nodes[at];
        match samples {
            Ok(samples) => {
                node.tally.add(samples, begin);
                node.error = None;
            }
            Err(error) => node.error = Some(error),
        }
    }
}

/// The answers of all nodes to one question, with their places; a slow one does not hold up the others.
async fn ask<T, F>(nodes: &[Watched], question: impl Fn(Arc<Api>) -> F) -> Vec<(usize, Result<T, String>)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let mut asking = JoinSet::new();
    for (at, node) in nodes.iter().enumerate() {
        let answer = question(Arc::clone(&node.api));
        asking.spawn(async move { (at, answer.await) });
    }
    asking.join_all().await
}

fn window(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        other => return Err(format!("`{other}` is no unit; write it like 30s, 5m or 1h")),
    };
    let count: u64 = digits.parse().map_err(|_| "write it like 30s, 5m or 1h".to_owned())?;
    match count.checked_mul(unit) {
        Some(seconds @ 1..=3_600) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err("from 1s to 1h".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("a number that is not negative".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_unit_and_bounds() {
        let seconds = |text: &str| window(text).map(|window| window.as_secs());
        assert_eq!(
            [seconds("30s"), seconds("5m"), seconds("1h"), seconds("7")],
            [Ok(30), Ok(300), Ok(3_600), Ok(7)]
        );
        for text in ["0s", "2h", "3d", "s", "-1s", "1.5s", "99999999999999999999s", "1é"] {
            assert!(window(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_burn_rate_is_a_number_that_is_not_negative() {
        assert_eq!(rate("14.4"), Ok(14.4));
        assert!(rate("-1").is_err() && rate("NaN").is_err() && rate("inf").is_err());
    }
}
