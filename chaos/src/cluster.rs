//! Three nodes of the real binary on one broker, and a balancer in front of them.
//!
//! Each node reaches the broker through a proxy of its own, so that one can be cut off. A node keeps its
//! port over its deaths, as a machine keeps its name.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, ensure};
use hiveops_testkit::balancer::Haproxy;
use hiveops_testkit::port::Port;
use hiveops_testkit::process::Process;
use hiveops_testkit::proxy::FaultProxy;
use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use tempfile::TempDir;

use crate::ask;
use crate::broker::{Broker, Bus};

/// Nodes of a cluster.
pub const NODES: usize = 3;

/// The signal that no process survives.
const SIGKILL: i32 = 9;

/// What a cluster is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of `hiveops`.
    pub binary: PathBuf,
    pub bus: Bus,
    pub seed: u64,
    /// Over which time a node sends its sessions off.
    pub drain_seconds: u64,
    /// Further settings of every node, as its environment.
    pub env: Vec<(String, String)>,
}

/// Dropped in this order: what uses something ends before it.
#[derive(Debug)]
pub struct Cluster {
    balancer: Haproxy,
    nodes: Vec<Node>,
    broker: Broker,
    place: TempDir,
}

#[derive(Debug)]
struct Node {
    number: usize,
    process: Process,
    port: Port,
    proxy: FaultProxy,
    command: Command,
    log: PathBuf,
}

impl Cluster {
    /// Returns when the balancer knows all nodes as ready.
    pub fn start(options: &Options) -> Result<Self> {
        let broker = Broker::start(options.bus)?;
        let place = tempfile::Builder::new().prefix("hiveops-chaos-").tempdir()?;
        let nodes = (0..NODES).map(|number| Node::start(options, number, &broker, place.path()));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let addrs: Vec<SocketAddr> = nodes.iter().map(|node| node.port.addr()).collect();
        let balancer = Haproxy::start(&addrs)?;
        let mut cluster = Self { balancer, nodes, broker, place };
        for number in 0..NODES {
            cluster.wait_ready(number)?;
        }
        cluster.wait_balanced()?;
        Ok(cluster)
    }

    /// Where clients and publishers go.
    pub fn url(&self) -> String {
        format!("http://{}", self.balancer.addr())
    }

    pub fn addr(&self, node: usize) -> SocketAddr {
        self.nodes[node].port.addr()
    }

    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.port.addr()).collect()
    }

    pub fn proxy(&self, node: usize) -> &FaultProxy {
        &self.nodes[node].proxy
    }

    pub fn broker(&mut self) -> &mut Broker {
        &mut self.broker
    }

    pub fn balancer(&self) -> &Haproxy {
        &self.balancer
    }

    /// Kills a node with signal 9, and makes sure that this is what it died of.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let process = &mut self.nodes[node].process;
        if let Some(status) = process.ended()? {
            anyhow::bail!("node {node} had ended by itself: {status}\n{}", process.last_output());
        }
        let pid = process.pid();
        process.kill()?;
        let status = process.ended()?.context("a killed process has ended")?;
        ensure!(status.signal() == Some(SIGKILL), "node {node} ended with {status} and not by the kill");
        ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
        Ok(())
    }

    /// Asks a node to drain and end.
    pub fn terminate(&mut self, node: usize) -> Result<()> {
        self.nodes[node].process.terminate()
    }

    /// None while it runs.
    pub fn ended(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        self.nodes[node].process.ended()
    }

    /// Starts a node again, on its port; does not wait for it.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        let node = &mut self.nodes[node];
        node.process = Process::start(&format!("node {}", node.number), &node.command, &node.log)?;
        Ok(())
    }

    /// Waits until a node says that it is ready.
    pub fn wait_ready(&mut self, node: usize) -> Result<()> {
        let Node { process, port, .. } = &mut self.nodes[node];
        wait_for_some(&format!("node {node} to be ready"), PATIENCE, || {
            if let Some(status) = process.ended()? {
                anyhow::bail!("node {node} ended: {status}\n{}", process.last_output());
            }
            let ready = ask::get(port.addr(), "/readyz").is_ok_and(|(status, _)| status == 200);
            Ok(ready.then_some(()))
        })
    }

    /// Waits until the balancer leads to all nodes.
    pub fn wait_balanced(&self) -> Result<()> {
        self.balancer.wait_ready_are(&(0..NODES).collect::<Vec<_>>())
    }

    /// No node has ended that should run.
    pub fn check_alive(&mut self) -> Result<()> {
        for Node { number, process, .. } in &mut self.nodes {
            if let Some(status) = process.ended()? {
                anyhow::bail!("node {number} has ended: {status}\n{}", process.last_output());
            }
        }
        Ok(())
    }

    /// The sum of a metric over the nodes that answer.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.addrs().into_iter().filter_map(|addr| ask::metric(addr, name, label).ok()).sum()
    }

    /// Ends everything and keeps what the nodes have logged, for whoever looks into a failure.
    pub fn keep(self) -> PathBuf {
        let output = self.broker.output();
        let Self { balancer, nodes, broker, place } = self;
        drop((balancer, nodes, broker));
        let path = place.keep();
        // Only for people to read.
        let _ = std::fs::write(path.join("broker"), output);
        path
    }
}

impl Node {
    fn start(options: &Options, number: usize, broker: &Broker, place: &Path) -> Result<Self> {
        let port = Port::claim()?;
        let proxy = FaultProxy::start(broker.addr(), options.seed.wrapping_add(number as u64))?;
        let directory = place.join(format!("n{number}"));
        std::fs::create_dir(&directory)?;
        // It runs in a directory of its own.
        let binary = options.binary.canonicalize();
        let binary = binary.with_context(|| format!("no binary at {}", options.binary.display()))?;
        let mut command = Command::new(binary);
        command.args(["node", "--listen", &port.addr().to_string()]);
        command.args(["--bus", &broker.url_at(proxy.addr())]);
        command.env("HIVEOPS_NODE_ID", format!("n{number}"));
        command.env("HIVEOPS_DRAIN_SECONDS", options.drain_seconds.to_string());
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(&directory);
        let log = place.join(format!("n{number}.log"));
        let process = Process::start(&format!("node {number}"), &command, &log)?;
        Ok(Self { number, process, port, proxy, command, log })
    }
}

/// The number of the node with this name.
pub fn number_of(node_id: &str) -> Option<usize> {
    node_id.strip_prefix('n')?.parse().ok()
}
