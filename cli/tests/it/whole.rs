//! A whole cluster as real processes: control replicas, nodes that follow them, and NATS where they share it.

use std::time::{Duration, Instant};

use hiveops_testkit::broker::NatsServer;
use hiveops_testkit::proxy::{Direction, Fault, FaultProxy};
use hiveops_testkit::wait::wait_for;
use serde_json::Value;

use crate::control::cluster::Cluster;
use crate::harness::hiveops;
use crate::running::Running;
use crate::wire::{LIMITS, show};

/// The parts; each is killed when it is dropped.
pub(crate) struct Whole {
    nodes: Vec<Option<Node>>,
    pub(crate) control: Cluster,
    nats: Option<NatsServer>,
    /// What is between the first node and each replica, when something is.
    proxies: Vec<FaultProxy>,
    /// What every node is told besides.
    settings: &'static [(&'static str, &'static str)],
}

struct Node {
    process: Running,
    url: String,
}

impl Whole {
    /// Three replicas with a leader, and so many nodes that have their view and share a bus.
    pub(crate) fn start(nodes: usize) -> Self {
        Self::run(nodes, Cluster::started(), Some(NatsServer::start().unwrap()), Vec::new(), &[])
    }

    /// The same with nodes that have only control in common.
    pub(crate) fn without_bus(nodes: usize) -> Self {
        Self::run(nodes, Cluster::started(), None, Vec::new(), &[])
    }

    /// Nodes that ask for access tokens, on a control plane with a key to sign them with.
    pub(crate) fn with_logins(nodes: usize) -> Self {
        let control = Cluster::started();
        control.first_key();
        Self::following(nodes, control, &[("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_MODE", "jwt")])
    }

    /// Nodes with these settings that follow this control plane, and share nothing else.
    pub(crate) fn following(
        nodes: usize,
        control: Cluster,
        settings: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::run(nodes, control, None, Vec::new(), settings)
    }

    /// The same with proxies that can fail between the first node and control.
    pub(crate) fn with_a_weak_link(nodes: usize) -> Self {
        let control = Cluster::started();
        let proxies = (1..=3).map(|id| FaultProxy::start(control.addr(id), id as u64).unwrap()).collect();
        Self::run(nodes, control, Some(NatsServer::start().unwrap()), proxies, &[])
    }

    fn run(
        nodes: usize,
        control: Cluster,
        nats: Option<NatsServer>,
        proxies: Vec<FaultProxy>,
        settings: &'static [(&'static str, &'static str)],
    ) -> Self {
        let none = (0..nodes).map(|_| None).collect();
        let mut whole = Self { nodes: none, control, nats, proxies, settings };
        (0..nodes).for_each(|index| whole.start_node(index));
        whole.all("a fresh view", |limits| limits["stale"] == false);
        whole
    }

    /// Breaks the link of the first node, or heals it.
    pub(crate) fn fail(&self, direction: Direction, fault: Fault) {
        self.proxies.iter().for_each(|proxy| proxy.set(direction, fault));
    }

    /// Starts a node, with what an earlier life has left.
    pub(crate) fn start_node(&mut self, index: usize) {
        let (process, url) = self.with_env(index, |env| Running::node(&self.control.place, &[], env));
        self.nodes[index] = Some(Node { process, url });
    }

    /// Starts a node that does not run: its exit code, and what it said.
    pub(crate) fn node_that_stops(&self, index: usize) -> (Option<i32>, Vec<String>) {
        let args = ["node", "--listen", "127.0.0.1:0"];
        let mut process = self.with_env(index, |env| Running::start(&self.control.place, &args, env));
        (process.ended().code(), process.err.all())
    }

    fn with_env<T>(&self, index: usize, start: impl FnOnce(&[(&str, &str)]) -> T) -> T {
        let weak: Vec<String> = self.proxies.iter().map(|proxy| format!("http://{}", proxy.addr())).collect();
        let control = if index == 0 && !weak.is_empty() { weak.join(",") } else { self.control.urls() };
        let bus = self.nats.as_ref().map_or("embedded".to_owned(), NatsServer::url);
        let name = format!("n{index}");
        let own: [(&str, &str); 5] = [
            ("HIVEOPS_CONTROL", &control),
            ("HIVEOPS_BUS", &bus),
            ("HIVEOPS_NODE_ID", &name),
            ("HIVEOPS_DATA_DIR", &name),
            ("HIVEOPS_DRAIN_SECONDS", "1"),
        ];
        start(&[&own, self.settings].concat())
    }

    pub(crate) fn kill_node(&mut self, index: usize) {
        self.nodes[index].take().unwrap().process.kill();
    }

    pub(crate) fn node(&mut self, index: usize) -> &mut Running {
        &mut self.nodes[index].as_mut().unwrap().process
    }

    pub(crate) fn url(&self, index: usize) -> &str {
        &self.nodes[index].as_ref().unwrap().url
    }

    /// Of the nodes that were not killed.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().flatten().map(|node| node.url.clone()).collect()
    }

    pub(crate) fn get(&self, index: usize, path: &str) -> Value {
        show(self.url(index), path)
    }

    /// What every node says of its limits and its view.
    pub(crate) fn limits(&self) -> Vec<Value> {
        self.nodes.iter().flatten().map(|node| show(&node.url, LIMITS)).collect()
    }

    /// Waits until it holds of every node, and says how long that took.
    pub(crate) fn all(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Duration {
        let begun = Instant::now();
        wait_for(what, || self.limits().iter().all(&holds)).unwrap();
        begun.elapsed()
    }

    /// Sets a limit, and waits until every node has heard of it.
    pub(crate) fn set(&self, name: &str, value: u64) {
        let set = hiveops(&["limits", "set", &format!("{name}={value}"), "--control", &self.control.urls()]);
        assert_eq!(set.code, Some(0), "{}", set.err);
        self.all("the limit", |limits| limits[name] == value);
    }
}
