//! A whole cluster as real processes: NATS, control replicas, and nodes that use both.

use std::time::{Duration, Instant};

use hiveops_testkit::broker::NatsServer;
use hiveops_testkit::wait::wait_for;
use serde_json::Value;

use crate::control::cluster::Cluster;
use crate::running::Running;
use crate::wire::Http;

/// The parts; each is killed when it is dropped.
pub(crate) struct Whole {
    nodes: Vec<Option<Node>>,
    pub(crate) control: Cluster,
    pub(crate) bus: NatsServer,
}

struct Node {
    process: Running,
    url: String,
}

impl Whole {
    /// Three replicas with a leader, and so many nodes that have their view.
    pub(crate) fn start(nodes: usize) -> Self {
        let bus = NatsServer::start().unwrap();
        let control = Cluster::started();
        let mut whole = Self { nodes: (0..nodes).map(|_| None).collect(), control, bus };
        (0..nodes).for_each(|index| whole.start_node(index));
        whole.all("a fresh view", |limits| limits["stale"] == false);
        whole
    }

    /// Starts a node, with what an earlier life has left.
    pub(crate) fn start_node(&mut self, index: usize) {
        let (control, bus, directory) = (self.control.urls(), self.bus.url(), format!("n{index}"));
        let env = [("HIVEOPS_CONTROL", control.as_str()), ("HIVEOPS_BUS", bus.as_str())];
        let (process, url) = Running::node(&self.control.place, &["--data-dir", &directory], &env);
        self.nodes[index] = Some(Node { process, url });
    }

    /// Starts a node that does not run: its exit code, and what it said.
    pub(crate) fn node_that_stops(&self, index: usize) -> (Option<i32>, Vec<String>) {
        let (control, bus, directory) = (self.control.urls(), self.bus.url(), format!("n{index}"));
        let env = [("HIVEOPS_CONTROL", control.as_str()), ("HIVEOPS_BUS", bus.as_str())];
        let args = ["node", "--listen", "127.0.0.1:0", "--data-dir", &directory];
        let mut process = Running::start(&self.control.place, &args, &env);
        (process.ended().code(), process.err.all())
    }

    pub(crate) fn kill_node(&mut self, index: usize) {
        self.nodes[index].take().unwrap().process.kill();
    }

    pub(crate) fn url(&self, index: usize) -> &str {
        &self.nodes[index].as_ref().unwrap().url
    }

    pub(crate) fn get(&self, index: usize, path: &str) -> Value {
        let (status, value) = Http::connect(self.url(index)).call(&format!("GET {path}"), &[], "").unwrap();
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    /// What every node says of its limits and its view.
    pub(crate) fn limits(&self) -> Vec<Value> {
        let alive = (0..self.nodes.len()).filter(|index| self.nodes[*index].is_some());
        alive.map(|index| self.get(index, "/api/dashboard/websocket/limits")).collect()
    }

    /// Waits until it holds of every node, and says how long that took.
    pub(crate) fn all(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Duration {
        let begun = Instant::now();
        wait_for(what, || self.limits().iter().all(&holds)).unwrap();
        begun.elapsed()
    }
}
