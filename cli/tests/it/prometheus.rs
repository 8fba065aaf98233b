//! Every query of the dashboards and every rule, in a real Prometheus that scrapes a cluster under load.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hiveops_testkit::program::NATS_SERVER;
use hiveops_testkit::prometheus::Prometheus;
use hiveops_testkit::wait::wait_for_some;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::harness::Place;
use crate::running::Running;
use crate::wire::{Http, Socket};

/// Every panel must have data by then. A rate needs two scrapes, and what records one more.
const DATA_WITHIN: Duration = Duration::from_secs(60);
/// What a description says of a panel that may show nothing.
const MAY_BE_EMPTY: &str = "Empty as long as ";
/// What Grafana puts in. With a scrape every second, ten seconds are enough for a rate.
const VARIABLES: [(&str, &str); 6] = [
    ("$__rate_interval", "10s"),
    ("$__range", "1m"),
    ("$__interval", "1s"),
    ("$objective", "delivery"),
    ("$instance", ".*"),
    ("$job", ".*"),
];

/// A query of a panel.
struct Query {
    /// Dashboard and panel.
    place: String,
    expr: String,
    may_be_empty: bool,
}

/// Asks a Prometheus.
struct Questions {
    http: reqwest::Client,
    url: String,
    runtime: Runtime,
}

impl Questions {
    fn get(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = self.http.get(format!("{}{path}", self.url)).query(query);
        self.runtime.block_on(async { request.send().await.unwrap().json().await.unwrap() })
    }

    /// Whether it has a value that is a number; the error when it is no query.
    fn has_data(&self, expr: &str) -> Result<bool, String> {
        let answer = self.get("/api/v1/query", &[("query", expr)]);
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let series = answer["data"]["result"].as_array().into_iter().flatten();
        Ok(series.into_iter().any(|one| one["value"][1].as_str().is_some_and(|value| value != "NaN")))
    }
}

/// Sessions on both nodes that read, and somebody who publishes.
struct Load {
    sessions: Vec<JoinHandle<()>>,
    publisher: JoinHandle<()>,
    sessions_over: Arc<AtomicBool>,
    /// Later: whoever reads needs something to read to see that it is over.
    publisher_over: Arc<AtomicBool>,
}

impl Load {
    fn start(nodes: &[String]) -> Self {
        let (sessions_over, publisher_over) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let sessions = nodes.iter().map(|node| {
            let (node, over) = (node.clone(), Arc::clone(&sessions_over));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // They come back again and again, so that handshakes go on.
                    let mut socket = Socket::connect(&node, "dashboard?subscriptions=tasks,system", None);
                    socket.wait_for("dashboard_initialized");
                    for _ in 0..20 {
                        socket.wait_for("task_update");
                    }
                }
            })
        });
        let sessions = sessions.collect();
        let (node, over) = (nodes[0].clone(), Arc::clone(&publisher_over));
        let publisher = std::thread::spawn(move || {
            let mut http = Http::connect(&node);
            let mut count = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let data = json!({"id": format!("t{}", count % 50), "round": count});
                assert_eq!(http.publish("tasks", "task_update", &[], &data).unwrap().0, 200);
                count += 1;
            }
        });
        Self { sessions, publisher, sessions_over, publisher_over }
    }

    /// Ends it; a thread that failed fails the test.
    fn end(self) {
        self.sessions_over.store(true, Ordering::Relaxed);
        self.sessions.into_iter().for_each(|session| session.join().unwrap());
        self.publisher_over.store(true, Ordering::Relaxed);
        self.publisher.join().unwrap();
    }
}

#[test]
fn every_panel_and_rule_works_on_a_cluster_under_load() {
    let place = Place::new();
    let nats = NATS_SERVER.find().unwrap();
    let args = ["--nodes", "2", "--controls", "1"];
    let (cluster, _) = Running::dev(&place, &args, &[("NATS_SERVER", nats.to_str().unwrap())]);
    cluster.out.wait(|line| line.starts_with("Stop with"));
    let nodes = addresses(&cluster, "node-");
    let controls = addresses(&cluster, "control-");
    assert_eq!((nodes.len(), controls.len()), (2, 1), "{:#?}", cluster.out.all());
    let prometheus = Prometheus::start(&config(&nodes, &controls)).unwrap();
    let load = Load::start(&nodes.iter().map(|node| format!("http://{node}")).collect::<Vec<_>>());
    let questions = Questions {
        http: reqwest::Client::builder().no_proxy().build().unwrap(),
        url: format!("http://{}", prometheus.addr()),
        runtime: Builder::new_current_thread().enable_all().build().unwrap(),
    };
    // Data is a number: the test below would find a panel without any.
    assert_eq!(questions.has_data("vector(1)"), Ok(true));
    assert_eq!(questions.has_data("nobody_exports_this"), Ok(false));
    assert_eq!(questions.has_data("vector(0) / 0"), Ok(false));
    assert!(questions.has_data("rate(nobody_exports_this)").is_err());
    let queries = queries();
    assert!(queries.len() > 100, "the dashboards were not found");
    let without: Vec<String> = without_data(&questions, &queries);
    let rules = questions.get("/api/v1/rules", &[]);
    load.end();
    assert!(without.is_empty(), "panels without data:\n  {}\n{}", without.join("\n  "), prometheus.output());
    let rules: Vec<&Value> = rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert!(rules.len() > 50, "the rules were not found");
    let broken: Vec<&&Value> = rules.iter().filter(|rule| rule["health"] != "ok").collect();
    assert!(broken.is_empty(), "{broken:#?}");
    // How fast a busy machine is, is no fault of the cluster; everything else is.
    let is_of_speed =
        |rule: &Value| ["latency", "control_view"].map(Value::from).contains(&rule["labels"]["objective"]);
    let firing = rules.iter().filter(|rule| rule["state"] == "firing" && !is_of_speed(rule));
    let firing: Vec<&Value> = firing.map(|rule| &rule["name"]).collect();
    assert!(firing.is_empty(), "on a cluster that works: {firing:?}");
}

/// The panels that got no data in time. A query that is wrong ends the test at once.
fn without_data(questions: &Questions, queries: &[Query]) -> Vec<String> {
    let mut waiting: Vec<&Query> = queries.iter().collect();
    // What did not come in time is still in the list.
    let _ = wait_for_some("data in every panel", DATA_WITHIN, || {
        waiting.retain(|query| match questions.has_data(&query.expr) {
            Ok(has_data) => !has_data && !query.may_be_empty,
            Err(error) => panic!("{}: {error}: {}", query.place, query.expr),
        });
        Ok(waiting.is_empty().then_some(()))
    });
    waiting.iter().map(|query| format!("{}: {}", query.place, query.expr)).collect()
}

/// Of the parts with this beginning, from what the cluster says when it is up.
fn addresses(cluster: &Running, name: &str) -> Vec<String> {
    let lines = cluster.out.all();
    let rows =
        lines.iter().filter(|line| line.contains("  127.0.0.1:") && line.trim_start().starts_with(name));
    let found = rows
        .map(|row| row.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap().to_owned());
    found.collect()
}

/// The configuration of the repository, with these targets, a scrape every second, and the rules where they are.
fn config(nodes: &[String], controls: &[String]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("deploy/prometheus/prometheus.yml")).unwrap();
    let list = |addresses: &[String]| {
        let quoted: Vec<String> = addresses.iter().map(|address| format!("'{address}'")).collect();
        format!("targets: [{}]", quoted.join(", "))
    };
    let rules = root.join("deploy/prometheus/rules/*.yml");
    let replaced = [
        ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
        ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
        ("rules/*.yml", rules.to_str().unwrap().to_owned()),
        ("targets: ['node-1:8000', 'node-2:8000']", list(nodes)),
        ("targets: ['control-1:7100', 'control-2:7100', 'control-3:7100']", list(controls)),
    ];
    replaced.iter().fold(text, |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "deploy/prometheus/prometheus.yml has no `{from}`");
        text.replace(from, to)
    })
}

/// Every query of every panel of every dashboard.
fn queries() -> Vec<Query> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/dashboards");
    let files: BTreeMap<String, Value> = std::fs::read_dir(place)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    let mut queries = Vec::new();
    for (name, dashboard) in &files {
        let panels = dashboard["panels"].as_array().unwrap().iter();
        let inner = panels.clone().flat_map(|row| row["panels"].as_array().into_iter().flatten());
        for panel in panels.chain(inner) {
            let description = panel["description"].as_str().unwrap_or_default();
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expr = VARIABLES
                    .iter()
                    .fold(target["expr"].as_str().unwrap().to_owned(), |expr, (name, value)| {
                        expr.replace(name, value)
                    });
                queries.push(Query {
                    place: format!("{name}, {}", panel["title"]),
                    expr,
                    may_be_empty: description.contains(MAY_BE_EMPTY),
                });
            }
        }
    }
    queries
}
