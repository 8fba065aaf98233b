//! `hiveops trace`: where an update went, from whoever published it to the sockets of every node.

use std::process::ExitCode;

use hiveops_proto::CorrelationId;
use hiveops_proto::path::TRACE;
use serde_json::Value;

use crate::api::{Api, Target};
use crate::output::{self, Usage, plain, shown};
use crate::serve::small_runtime;

/// Which update, and how to print.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The id that the publisher gave, or got in the answer
    correlation_id: CorrelationId,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// The node's answer
    Json,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let id = args.correlation_id.as_str();
    if matches!(id, "." | "..") {
        // Every client takes it out of the address, percent-encoded or not.
        return Err(Usage(format!("`{id}` is a step in an address, and cannot be asked for as an id")).into());
    }
    let api = Api::new(args.target)?;
    let path = TRACE.replace("{correlation_id}", id);
    let report = small_runtime()?.block_on(api.get(&path))?;
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Text => {
            for text in lines(&report) {
                output::line(text)?;
            }
        }
    }
    let is_found = report.get("result").and_then(Value::as_str) == Some("found");
    Ok(if is_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for publication in list(report, "/publications") {
        lines.extend(publication_lines(publication));
    }
    for refused in list(report, "/refused") {
        lines.push(format!(
            "refused       {} by {}: {} to {}, {}{}",
            text(refused, "/at"),
            text(refused, "/node_id"),
            text(refused, "/message_type"),
            text(refused, "/subscription"),
            text(refused, "/reason"),
            origin(refused)
        ));
    }
    lines.extend(verdict(report));
    lines
}

/// What is known when nothing was found, and how much of the cluster that covers.
fn verdict(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let (id, since) = (text(report, "/correlation_id"), text(report, "/reaches_back_to"));
    match report.get("result").and_then(Value::as_str) {
        Some("left") => lines.push(format!(
            "left          {id} was made before {since}, which is how far the rings of the nodes that answered reach \
             back"
        )),
        Some("not_found") => lines.push(format!(
            "not found     no node that answered has seen {id} since {since}; what is older has left the rings"
        )),
        _ => {}
    }
    if let Some(left_out @ 1..) = report.get("left_out").and_then(Value::as_u64) {
        lines.push(format!("left out      {left_out} more entries, for which there was no room"));
    }
    let missing: Vec<String> = list(report, "/cluster/missing").map(|id| shown(Some(id))).collect();
    let complete = text(report, "/cluster/status") == "complete";
    lines.push(match (complete, missing.as_slice()) {
        (true, _) => format!("cluster       complete: {} nodes answered", list(report, "/nodes").count()),
        (false, []) => "cluster       partial: there may be nodes that this one has not heard of".to_owned(),
        (false, missing) => format!("cluster       partial: no answer from {}", missing.join(", ")),
    });
    lines
}

fn publication_lines(publication: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{} to {}, seq {} of epoch {}",
        text(publication, "/message_type"),
        text(publication, "/subscription"),
        text(publication, "/seq"),
        text(publication, "/epoch")
    )];
    for accepted in list(publication, "/accepted") {
        let duplicate = accepted.get("duplicate") == Some(&Value::Bool(true));
        lines.push(format!(
            "  published   {} by {}{}, {} {} ms",
            text(accepted, "/at"),
            text(accepted, "/node_id"),
            origin(accepted),
            if duplicate { "known as a repetition within" } else { "stored within" },
            text(accepted, "/stored_within_ms")
        ));
    }
    if list(publication, "/accepted").next().is_none() {
        let at = text(publication, "/published_at");
        lines.push(format!("  published   {at}; by whom is not in the rings of the nodes that answered"));
    }
    lines.extend(list(publication, "/deliveries").map(|node| format!("  {}", delivery(node))));
    let totals = publication.get("totals").unwrap_or(&Value::Null);
    lines.push(format!(
        "  in all      {} of {} recipients on {} nodes have it{}",
        text(totals, "/delivered"),
        text(totals, "/recipients"),
        text(totals, "/nodes"),
        ends(totals)
    ));
    lines
}

/// One node on a line.
fn delivery(node: &Value) -> String {
    let mut line = format!(
        "{:<11} received {} ms later; {} recipients, {} delivered",
        text(node, "/node_id"),
        text(node, "/bus_ms"),
        text(node, "/recipients"),
        text(node, "/delivered")
    );
    if let Some(times) = node.get("delivery_ms").filter(|times| times.is_object()) {
        let [p50, p99, max] = ["/p50", "/p99", "/max"].map(|time| text(times, time));
        line.push_str(&format!(" (p50 {p50} ms, p99 {p99} ms, max {max} ms)"));
    }
    line.push_str(&ends(node));
    let dropped = node.get("dropped").and_then(Value::as_object).into_iter().flatten();
    let dropped = dropped.map(|(why, count)| format!("{} dropped ({})", shown(Some(count)), plain(why)));
    let dropped: Vec<String> = dropped.collect();
    dropped.iter().for_each(|why| line.push_str(&format!(", {why}")));
    if let Some(enqueued @ 1..) = node.get("enqueued").and_then(Value::as_u64) {
        line.push_str(&format!("; {enqueued} had to wait"));
    }
    line
}

/// What is not delivered, and why; as far as there is any.
fn ends(counts: &Value) -> String {
    let names = [
        ("coalesced", "got a later value instead"),
        ("pending", "still wait"),
        ("replayed", "more got it when they came back"),
    ];
    let mut text = String::new();
    for (member, words) in names {
        if let Some(count @ 1..) = counts.get(member).and_then(Value::as_u64) {
            text.push_str(&format!(", {count} {words}"));
        }
    }
    if let Some(dropped @ 1..) = counts.get("dropped").and_then(Value::as_u64) {
        text.push_str(&format!(", {dropped} dropped"));
    }
    text
}

/// The way in, and who.
fn origin(entry: &Value) -> String {
    let by = match text(entry, "/by/kind").as_str() {
        "user" => format!(", user {}", text(entry, "/by/id")),
        "static_token" => ", with the static token".to_owned(),
        _ => String::new(),
    };
    format!(" over {}{by}", text(entry, "/source"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, pointer: &str) -> String {
    shown(value.pointer(pointer))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_publication_is_told_from_its_publisher_to_the_sockets_of_each_node() {
        let report = json!({
            "correlation_id": "c-1", "result": "found", "reaches_back_to": "T0", "left_out": 2,
            "cluster": {"status": "partial", "missing": ["n3"]},
            "publications": [{
                "subscription": "alerts", "message_type": "critical_alert", "epoch": "e", "seq": 7,
                "published_at": "T1",
                "accepted": [{"node_id": "n1", "at": "T1", "source": "http", "by": {"kind": "user", "id": "u-1"},
                              "duplicate": false, "stored_within_ms": 1.5}],
                "deliveries": [{"node_id": "n2", "bus_ms": 2, "recipients": 9, "enqueued": 3, "delivered": 5,
                                "coalesced": 1, "replayed": 0, "pending": 1, "dropped": {"closed": 2},
                                "delivery_ms": {"p50": 0.5, "p99": 3.25, "max": 4.0}}],
                "totals": {"nodes": 1, "recipients": 9, "delivered": 5, "coalesced": 1, "dropped": 2,
                           "pending": 1, "replayed": 0},
            }],
            "refused": [{"node_id": "n1", "at": "T2", "source": "nats_in", "by": {"kind": "anyone"},
                         "subscription": "nope", "message_type": "x", "reason": "unknown_subscription"}],
            "nodes": [{"node_id": "n1"}, {"node_id": "n2"}],
        });
        let expected = [
            "critical_alert to alerts, seq 7 of epoch e",
            "  published   T1 by n1 over http, user u-1, stored within 1.5 ms",
            "  n2          received 2 ms later; 9 recipients, 5 delivered (p50 0.5 ms, p99 3.25 ms, max 4.0 ms), \
             1 got a later value instead, 1 still wait, 2 dropped (closed); 3 had to wait",
            "  in all      5 of 9 recipients on 1 nodes have it, 1 got a later value instead, 1 still wait, 2 dropped",
            "refused       T2 by n1: x to nope, unknown_subscription over nats_in",
            "left out      2 more entries, for which there was no room",
            "cluster       partial: no answer from n3",
        ];
        assert_eq!(lines(&report), expected);
    }

    #[test]
    fn what_was_not_found_is_said_with_how_far_back_that_is_known() {
        let report = |result: &str| {
            json!({
                "correlation_id": "c-1", "result": result, "reaches_back_to": "T0", "publications": [],
                "refused": [], "left_out": 0, "cluster": {"status": "complete", "missing": []},
                "nodes": [{"node_id": "n1"}],
            })
        };
        let lines_of = |result| lines(&report(result));
        assert_eq!(lines_of("not_found").len(), 2);
        assert!(
            lines_of("not_found")[0].contains("no node that answered has seen c-1 since T0"),
            "{:?}",
            lines_of("not_found")
        );
        assert!(lines_of("left")[0].starts_with("left          c-1 was made before T0"));
        assert_eq!(lines_of("left")[1], "cluster       complete: 1 nodes answered");
    }
}
