//! What a scrape shows: both formats as those who read them check them, every name that the page lists and no
//! other, and no more series however many names outsiders make up.

mod attack;
mod exemplars;

use std::collections::BTreeSet;

use hiveops_testkit::prometheus::check_metrics;
use serde_json::json;

use crate::harness::{Node, Socket};
use crate::http::Answer;

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";

/// A node that has something in most of its metrics.
async fn busy() -> Node {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    node.publish("tasks", "task_update", json!({"id": "t1"})).await;
    socket.wait_for("task_update").await;
    socket.send(json!({"type": "nonsense"})).await;
    socket.wait_for("error").await;
    drop(socket);
    node.metric_reaches("hiveops_ws_connections_active", |active| active == 0.0).await;
    node
}

async fn scrape(node: &Node, accept: &str) -> Answer {
    node.call("GET", "/metrics").header("Accept", accept).send().await
}

/// The families of a text, by their names there.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|rest| rest.split(' ').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn promtool_finds_nothing_to_complain_about() {
    let node = busy().await;
    let text = scrape(&node, "text/plain").await.text;
    check_metrics(&text).unwrap();
}

#[tokio::test]
async fn the_page_lists_what_is_exported_and_nothing_else() {
    let node = busy().await;
    let page = include_str!("../../../docs/metrics.md");
    let (before, rest) = page.split_once("## Control replicas").unwrap();
    let after = &rest[rest.find("\n## ").unwrap()..];
    let rows = before.lines().chain(after.lines()).filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<String> = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .filter(|name| name.starts_with("hiveops_"))
        .collect();
    assert!(listed.len() > 50, "the tables were not found");
    assert_eq!(families(&scrape(&node, "text/plain").await.text), listed);
}

#[tokio::test]
async fn a_bucket_ends_exactly_where_the_delivery_objective_does() {
    let node = busy().await;
    let text = scrape(&node, "text/plain").await.text;
    for name in ["delivery", "publish_to_socket", "bus", "outbox_wait"] {
        assert!(text.contains(&format!("hiveops_ws_{name}_seconds_bucket{{le=\"0.25\"}}")), "{name}");
    }
}

#[tokio::test]
async fn openmetrics_has_the_same_families_by_its_own_rules() {
    let node = busy().await;
    let (plain, open) = (scrape(&node, "text/plain").await, scrape(&node, OPENMETRICS).await);
    assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!((open.header("vary"), plain.header("vary")), ("accept", "accept"));
    assert!(open.text.ends_with("\n# EOF\n") && open.text.matches("# EOF").count() == 1);
    let stripped: BTreeSet<String> = families(&plain.text)
        .iter()
        .map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned())
        .collect();
    assert_eq!(families(&open.text), stripped, "no two names become one");
    for line in open.text.lines().filter(|line| line.starts_with("# TYPE ") && line.ends_with(" counter")) {
        let name = line.split(' ').nth(2).unwrap();
        let samples = open.text.lines().filter(|line| line.starts_with(&format!("{name}_total"))).count();
        assert!(samples > 0, "{name} has no samples");
    }
    for unit in ["hiveops_ws_delivery_seconds seconds", "hiveops_ws_message_bytes bytes"] {
        assert!(open.text.contains(&format!("# UNIT {unit}\n")), "{unit}");
    }
}
