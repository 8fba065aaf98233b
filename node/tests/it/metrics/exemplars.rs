//! Examples of latencies, as the node writes them and as a real Prometheus keeps them.

use hiveops_testkit::prometheus::Prometheus;
use serde_json::{Value, json};

use super::{OPENMETRICS, scrape};
use crate::harness::{Node, Socket, soon, until};

const HISTOGRAM: &str = "hiveops_ws_publish_to_socket_seconds";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Publishes one update of a trace, and waits until a client has it.
async fn publish(node: &Node, socket: &mut Socket, correlation_id: &str, flags: &str) {
    let call = node.broadcast("tasks", "task_event").json(&json!({"n": 1}));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
    let call = call.header("X-Correlation-ID", correlation_id).header("traceparent", &parent);
    assert_eq!(call.send().await.status, 200);
    socket.wait_for("task_event").await;
}

/// The examples of the histogram: what stands after the value of each bucket that has one.
async fn examples(node: &Node) -> Vec<String> {
    let text = scrape(node, OPENMETRICS).await.text;
    let buckets = text.lines().filter(|line| line.starts_with(&format!("{HISTOGRAM}_bucket")));
    buckets.filter_map(|line| line.split_once(" # ")).map(|(_, example)| example.to_owned()).collect()
}

#[tokio::test]
async fn an_example_names_the_trace_when_it_is_sampled_and_else_the_correlation_id() {
    for (flags, expected) in [
        ("00", "{correlation_id=\"update-7\"} ".to_owned()),
        ("01", format!("{{trace_id=\"{TRACE}\",correlation_id=\"update-7\"}} ")),
    ] {
        let node = Node::start(&[]).await;
        let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
        publish(&node, &mut socket, "update-7", flags).await;
        until("an example", async || examples(&node).await.iter().any(|it| it.starts_with(&expected))).await;
        let text = scrape(&node, "text/plain").await.text;
        assert!(!text.contains(" # {"), "the text format has no examples");
    }
}

/// A Prometheus that scrapes one node every second.
async fn scraping(node: &Node) -> Prometheus {
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n  - job_name: hiveops\n    static_configs: [{{ targets: ['{}'] }}]\n",
        node.address
    );
    // It waits until it is ready, and the node answers it meanwhile.
    let started = tokio::task::spawn_blocking(move || Prometheus::start(&config));
    started.await.unwrap().expect("a prometheus: scripts/install prometheus")
}

/// The data of an answer; none while it does not answer.
async fn ask(prometheus: &Prometheus, path: &str, query: &[(&str, &str)]) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.get(format!("http://{}{path}", prometheus.addr())).query(query).send();
    let Ok(answer) = soon("an answer", asked).await else { return Value::Null };
    answer.json::<Value>().await.map_or(Value::Null, |answer| answer["data"].clone())
}

#[tokio::test]
async fn a_prometheus_scrapes_openmetrics_and_keeps_the_examples() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    publish(&node, &mut socket, "update-8", "01").await;
    let prometheus = scraping(&node).await;
    let query = format!("{HISTOGRAM}_bucket");
    until("the examples", async || {
        let range = [("query", query.as_str()), ("start", "0"), ("end", "4102444800")];
        let found = ask(&prometheus, "/api/v1/query_exemplars", &range).await.to_string();
        found.contains(&format!(r#""trace_id":"{TRACE}""#)) && found.contains("update-8")
    })
    .await;
    // Each of these is of the last scrape, and one that a busy machine did not answer in time is followed by
    // another.
    until("a target that is up", async || {
        ask(&prometheus, "/api/v1/targets", &[]).await["activeTargets"][0]["health"] == "up"
    })
    .await;
    // A counter has the name that the text format gives it, and the type that OpenMetrics says.
    until("a counter by its name", async || {
        let found = ask(&prometheus, "/api/v1/query", &[("query", "hiveops_ws_connections_total")]).await;
        found["result"][0]["value"][1] == "1"
    })
    .await;
    until("the type and the unit", async || {
        let found = ask(&prometheus, "/api/v1/targets/metadata", &[("metric", HISTOGRAM)]).await;
        (&found[0]["type"], &found[0]["unit"]) == (&json!("histogram"), &json!("seconds"))
    })
    .await;
}
