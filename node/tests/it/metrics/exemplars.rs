//! Examples of latencies, as the node writes them and as a real Prometheus keeps them.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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

/// A Prometheus that scrapes one node; ended when it is dropped.
struct Prometheus {
    process: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(node: &Node) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 100ms, scrape_timeout: 100ms }}\nscrape_configs:\n  - job_name: hiveops\n    static_configs: [{{ targets: ['{}'] }}]\n",
            node.address
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        // It takes no port 0; one that was just free is still free.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(program())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg("--enable-feature=exemplar-storage")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("prometheus is there: scripts/install prometheus");
        Self { process, url: format!("http://{address}"), _dir: dir }
    }

    /// The data of an answer; none while it does not answer.
    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked = client.get(format!("{}{path}", self.url)).query(query).send();
        let answer: Value = soon("an answer", asked).await.ok()?.json().await.ok()?;
        Some(answer["data"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not in everybody's PATH.
fn program() -> &'static str {
    ["/usr/bin/prometheus", "/usr/local/bin/prometheus"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("prometheus")
}

#[tokio::test]
async fn a_prometheus_scrapes_openmetrics_and_keeps_the_examples() {
    let node = Node::start(&[]).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=tasks").await;
    publish(&node, &mut socket, "update-8", "01").await;
    let prometheus = Prometheus::start(&node);
    let query = format!("{HISTOGRAM}_bucket");
    until("the examples", async || {
        let range = [("query", query.as_str()), ("start", "0"), ("end", "4102444800")];
        let found = prometheus.ask("/api/v1/query_exemplars", &range).await;
        let found = found.map(|data| data.to_string()).unwrap_or_default();
        found.contains(&format!(r#""trace_id":"{TRACE}""#)) && found.contains("update-8")
    })
    .await;
    let targets = prometheus.ask("/api/v1/targets", &[]).await.unwrap();
    assert_eq!(targets["activeTargets"][0]["health"], "up", "{targets:#}");
    // A counter has the name that the text format gives it, and the type that OpenMetrics says.
    let up = prometheus.ask("/api/v1/query", &[("query", "hiveops_ws_connections_total")]).await.unwrap();
    assert_eq!(up["result"][0]["value"][1], "1", "{up:#}");
    let metadata = prometheus.ask("/api/v1/targets/metadata", &[("metric", HISTOGRAM)]).await.unwrap();
    assert_eq!((&metadata[0]["type"], &metadata[0]["unit"]), (&json!("histogram"), &json!("seconds")));
}
