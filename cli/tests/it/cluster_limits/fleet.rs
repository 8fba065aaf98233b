//! Control replicas, a bus and nodes, as processes of the binary.

use hiveops_testkit::broker::NatsServer;
use hiveops_testkit::proxy::{Direction, Fault, FaultProxy};
use serde_json::Value;

use crate::control::cluster::Cluster;
use crate::harness::{Place, hiveops};
use crate::running::{PATIENCE, Running};
use crate::wire::Http;

pub(super) struct Fleet {
    pub(super) control: Cluster,
    nodes: Vec<(Running, String)>,
    nats: Option<NatsServer>,
    /// What is between the first node and each replica, when something is.
    proxies: Vec<FaultProxy>,
    place: Place,
}

impl Fleet {
    /// Nodes that share a bus; the first one reaches control by proxies that can fail.
    pub(super) fn with_a_weak_link(nodes: usize) -> Self {
        let control = Cluster::started();
        let proxies = (1..=3).map(|id| FaultProxy::start(control.addr(id), id as u64).unwrap()).collect();
        Self::run_all(nodes, control, Some(NatsServer::start().unwrap()), proxies)
    }

    /// Breaks the link of the first node, or heals it.
    pub(super) fn fail(&self, direction: Direction, fault: Fault) {
        self.proxies.iter().for_each(|proxy| proxy.set(direction, fault));
    }

    /// Nodes that share a bus.
    pub(super) fn with_nats(nodes: usize) -> Self {
        Self::start(nodes, Some(NatsServer::start().unwrap()))
    }

    /// Nodes that have only control in common.
    pub(super) fn alone(nodes: usize) -> Self {
        Self::start(nodes, None)
    }

    fn start(nodes: usize, nats: Option<NatsServer>) -> Self {
        Self::run_all(nodes, Cluster::started(), nats, Vec::new())
    }

    fn run_all(nodes: usize, control: Cluster, nats: Option<NatsServer>, proxies: Vec<FaultProxy>) -> Self {
        let mut fleet = Self { control, nodes: Vec::new(), nats, proxies, place: Place::new() };
        for index in 0..nodes {
            let node = fleet.run(index);
            fleet.nodes.push(node);
        }
        fleet
    }

    fn run(&self, index: usize) -> (Running, String) {
        let bus = self.nats.as_ref().map_or("embedded".to_owned(), NatsServer::url);
        let (name, data) = (format!("n{index}"), format!("node-{index}"));
        let weak: Vec<String> = self.proxies.iter().map(|proxy| format!("http://{}", proxy.addr())).collect();
        let urls = if index == 0 && !weak.is_empty() { weak.join(",") } else { self.control.urls() };
        let env = [
            ("HIVEOPS_CONTROL", urls.as_str()),
            ("HIVEOPS_BUS", &bus),
            ("HIVEOPS_NODE_ID", &name),
            ("HIVEOPS_DATA_DIR", &data),
            ("HIVEOPS_DRAIN_SECONDS", "1"),
        ];
        Running::node(&self.place, &[], &env)
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|(_, url)| url.clone()).collect()
    }

    pub(super) fn url(&self, index: usize) -> String {
        self.nodes[index].1.clone()
    }

    pub(super) fn node(&mut self, index: usize) -> &mut Running {
        &mut self.nodes[index].0
    }

    pub(super) fn kill_node(&mut self, index: usize) {
        self.nodes[index].0.kill();
    }

    /// The next life of a node.
    pub(super) fn start_node(&mut self, index: usize) {
        self.nodes[index] = self.run(index);
    }

    /// Sets a limit, and waits until every node has heard of it.
    pub(super) fn set(&self, name: &str, value: u64) {
        let set = hiveops(&["limits", "set", &format!("{name}={value}"), "--control", &self.control.urls()]);
        assert_eq!(set.code, Some(0), "{}", set.err);
        for (_, url) in &self.nodes {
            let path = "GET /api/dashboard/websocket/limits";
            hiveops_testkit::wait::wait_for_some("the limit", PATIENCE, || {
                let limits: Value = Http::connect(url).call(path, &[], "")?.1;
                Ok((limits[name] == value).then_some(()))
            })
            .unwrap();
        }
    }
}
