//! `hiveops status`: how a running node and its cluster are, or the control plane, in a few lines.

use std::process::ExitCode;

use hiveops_proto::path::{WS_CONTRACT, WS_HEALTH, WS_STATS};
use serde_json::{Value, json};

use super::control;
use crate::api::{Api, Target};
use crate::control_api::{ControlApi, ControlTarget, SecretArgs};
use crate::output;
use crate::serve::small_runtime;

/// Which node, and how to print.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the node's answers as one JSON object
    #[arg(long)]
    json: bool,
    /// Ask the control plane instead: the address of any replica
    #[arg(long, value_name = "URL,…", conflicts_with_all = ["url", "token"])]
    control: Option<String>,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(control) = args.control {
        let api = ControlApi::new(ControlTarget { control, secret: args.secret })?;
        return small_runtime()?.block_on(control::members::status(&api, args.json));
    }
    let api = Api::new(args.target)?;
    let (health, stats, contract) = small_runtime()?
        .block_on(async { tokio::try_join!(api.get(WS_HEALTH), api.get(WS_STATS), api.get(WS_CONTRACT)) })?;
    if args.json {
        output::json(&json!({"health": health, "stats": stats, "contract": contract}))?;
    } else {
        for text in summary(&health, &stats, &contract) {
            output::line(text)?;
        }
    }
    let unhealthy = health.pointer("/overall_health/status").and_then(Value::as_str) == Some("unhealthy");
    Ok(if unhealthy { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn summary(health: &Value, stats: &Value, contract: &Value) -> Vec<String> {
    let mut lines = vec![
        format!("node          {}", text(health, "/node_id")),
        format!(
            "health        {} ({} of 100)",
            text(health, "/overall_health/status"),
            text(health, "/overall_health/score")
        ),
        format!(
            "connections   {} now, {} in all",
            text(stats, "/websocket_stats/active_connections"),
            text(stats, "/websocket_stats/total_connections")
        ),
        format!("contract      {}, revision {}", text(contract, "/current_version"), revision(contract)),
        format!("bus           {}", members(health.get("bus"))),
        format!("control       {}", members(health.get("control"))),
        format!("subscriptions {}", members(stats.pointer("/websocket_stats/subscription_counts"))),
    ];
    lines.extend(stats.get("cluster").into_iter().flat_map(cluster));
    let tasks = health.get("background_tasks").and_then(Value::as_object);
    let stopped = tasks.into_iter().flatten().filter(|(_, runs)| **runs != Value::Bool(true));
    let stopped: Vec<&str> = stopped.map(|(name, _)| name.as_str()).collect();
    if !stopped.is_empty() {
        lines.push(format!("not running   {}", stopped.join(", ")));
    }
    lines
}

/// Whether every node answered, and one line for each that did.
fn cluster(cluster: &Value) -> Vec<String> {
    let missing = cluster.get("missing").and_then(Value::as_array).into_iter().flatten();
    let missing: Vec<&str> = missing.filter_map(Value::as_str).collect();
    let complete = cluster.get("status").and_then(Value::as_str) == Some("complete");
    let whole = match (complete, missing.as_slice()) {
        (true, _) => "complete".to_owned(),
        (false, []) => "partial: there may be nodes that this one has not heard of".to_owned(),
        (false, missing) => format!("partial: no answer from {}", missing.join(", ")),
    };
    let nodes = cluster.get("nodes").and_then(Value::as_array).into_iter().flatten().map(node);
    std::iter::once(format!("cluster       {whole}")).chain(nodes).collect()
}

fn node(node: &Value) -> String {
    let says = |member: &str| node.get(member) == Some(&Value::Bool(true));
    let mut line = format!(
        "              {}: {} connections, {}, bus {}",
        text(node, "/node_id"),
        text(node, "/stats/active_connections"),
        text(node, "/status"),
        if says("bus_live") { "live" } else { "not live" }
    );
    if says("draining") {
        line.push_str(", draining");
    }
    if says("duplicate_node_id") {
        line.push_str(", ANOTHER NODE HAS THE SAME ID");
    }
    line
}

fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "unknown".to_owned(),
    }
}

fn revision(contract: &Value) -> String {
    format!("{}.{}", text(contract, "/revision/term"), text(contract, "/revision/index"))
}

/// The plain members of an object on one line.
fn members(value: Option<&Value>) -> String {
    let Some(Value::Object(members)) = value else {
        return value.map_or_else(|| "unknown".to_owned(), |value| text(value, ""));
    };
    let plain = members.iter().filter(|(_, value)| !value.is_object() && !value.is_array());
    plain.map(|(name, _)| format!("{name} {}", text(&members[name], ""))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_does_not_run() {
        let health = json!({
            "node_id": "n1", "overall_health": {"score": 80, "status": "degraded"},
            "background_tasks": {"accept": true, "probe": false},
            "bus": {"kind": "embedded", "live": true, "heads": {}}, "control": "standalone",
        });
        let stats = json!({"websocket_stats": {"active_connections": 2, "total_connections": 9}});
        let lines = summary(&health, &stats, &json!({"current_version": "1.0.0"}));
        assert!(lines.contains(&"health        degraded (80 of 100)".to_owned()), "{lines:?}");
        assert!(lines.contains(&"bus           kind embedded, live true".to_owned()), "{lines:?}");
        assert!(lines.contains(&"control       standalone".to_owned()), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "not running   probe");
    }

    #[test]
    fn the_cluster_has_a_line_per_node_and_names_who_did_not_answer() {
        let node = |id: &str, draining: bool| {
            json!({
                "node_id": id, "stats": {"active_connections": 3}, "status": "healthy", "bus_live": true,
                "draining": draining, "duplicate_node_id": false,
            })
        };
        let whole =
            json!({"status": "complete", "nodes": [node("n1", false), node("n3", true)], "missing": []});
        let lines = [
            "cluster       complete",
            "              n1: 3 connections, healthy, bus live",
            "              n3: 3 connections, healthy, bus live, draining",
        ];
        assert_eq!(cluster(&whole), lines);
        let first = |status: &str, missing: &[&str]| {
            cluster(&json!({"status": status, "nodes": [], "missing": missing})).remove(0)
        };
        assert_eq!(first("partial", &["n2", "n4"]), "cluster       partial: no answer from n2, n4");
        assert!(first("partial", &[]).starts_with("cluster       partial: "));
    }
}
