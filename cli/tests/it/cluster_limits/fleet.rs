//! Control replicas, a bus and nodes, as processes of the binary.

use hiveops_testkit::broker::NatsServer;
use serde_json::Value;

use crate::control::cluster::Cluster;
use crate::harness::{Place, hiveops};
use crate::running::{PATIENCE, Running};
use crate::wire::Http;

pub(super) struct Fleet {
    pub(super) control: Cluster,
    nodes: Vec<(Running, String)>,
    nats: Option<NatsServer>,
    place: Place,
}

impl Fleet {
    /// Nodes that share a bus.
    pub(super) fn with_nats(nodes: usize) -> Self {
        Self::start(nodes, Some(NatsServer::start().unwrap()))
    }

    /// Nodes that have only control in common.
    pub(super) fn alone(nodes: usize) -> Self {
        Self::start(nodes, None)
    }

    fn start(nodes: usize, nats: Option<NatsServer>) -> Self {
        let mut fleet = Self { control: Cluster::started(), nodes: Vec::new(), nats, place: Place::new() };
        for index in 0..nodes {
            let node = fleet.run(index);
            fleet.nodes.push(node);
        }
        fleet
    }

    fn run(&self, index: usize) -> (Running, String) {
        let bus = self.nats.as_ref().map_or("embedded".to_owned(), NatsServer::url);
        let (name, data, urls) = (format!("n{index}"), format!("node-{index}"), self.control.urls());
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
