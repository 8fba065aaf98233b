//! One address for all nodes: each connection goes to the next node that is ready, and stays there.
//!
//! For trying things out on one machine. It knows no HTTP beyond asking each node whether it is ready.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hiveops_proto::path::READYZ;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// More than anybody opens by hand, and enough for a small load test.
const CONNECTIONS_MAX: u64 = 10_000;
/// Files that the process needs for itself; a connection needs two.
const OTHER_FILES: u64 = 256;
/// Between two looks at a node: a client that comes back a second after a kill should find only living ones.
const CHECK_EVERY: Duration = Duration::from_millis(200);
/// For a node to answer. One that hangs is as good as dead.
const ANSWER: Duration = Duration::from_millis(500);
/// For a node to take a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// The pause after the machine refused a socket: mostly it has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which nodes there are; shared by the connections and by whoever waits for the nodes.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// Whose turn it is.
    next: AtomicUsize,
    changed: Notify,
}

struct Node {
    address: SocketAddr,
    ready: AtomicBool,
}

impl Nodes {
    /// None is ready yet.
    pub(super) fn new(addresses: impl Iterator<Item = SocketAddr>) -> Arc<Self> {
        let nodes = addresses.map(|address| Node { address, ready: AtomicBool::new(false) }).collect();
        Arc::new(Self { nodes, next: AtomicUsize::new(0), changed: Notify::new() })
    }

    /// Which of them are ready, in their order.
    pub(super) fn ready(&self) -> impl Iterator<Item = bool> {
        self.nodes.iter().map(|node| node.ready.load(Ordering::Relaxed))
    }

    /// Returns when all are ready.
    pub(super) async fn all_ready(&self) {
        loop {
            let changed = self.changed.notified();
            if self.ready().all(|ready| ready) {
                return;
            }
            changed.await;
        }
    }

    /// Where to try to connect, in this order. When none is ready, those that are there can at least say why.
    fn in_turn(&self) -> Vec<SocketAddr> {
        let count = self.nodes.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turned = (0..count).map(|offset| &self.nodes[first.wrapping_add(offset) % count]);
        let (ready, others): (Vec<&Node>, Vec<&Node>) =
            turned.partition(|node| node.ready.load(Ordering::Relaxed));
        let order = if ready.is_empty() { others } else { ready };
        order.into_iter().map(|node| node.address).collect()
    }

    fn set_ready(&self, index: usize, ready: bool) {
        if self.nodes[index].ready.swap(ready, Ordering::Relaxed) != ready {
            self.changed.notify_waiters();
        }
    }
}

/// Runs until it is dropped.
pub(super) async fn run(listener: TcpListener, nodes: Arc<Nodes>) -> reqwest::Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(ANSWER).build()?;
    // All end when this is dropped.
    let mut tasks = JoinSet::new();
    for index in 0..nodes.nodes.len() {
        tasks.spawn(look_after(Arc::clone(&nodes), index, http.clone()));
    }
    let slots = Arc::new(Semaphore::new(connections_max()));
    loop {
        // A semaphore that nobody closes always gives a permit in the end.
        let Ok(permit) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
        // Cancel-safe: a connection is not lost when another arm comes first.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((client, _)) => {
                let nodes = Arc::clone(&nodes);
                tasks.spawn(async move {
                    serve(client, &nodes).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn look_after(nodes: Arc<Nodes>, index: usize, http: reqwest::Client) {
    let url = format!("http://{}{READYZ}", nodes.nodes[index].address);
    loop {
        let answer = http.get(&url).send().await;
        nodes.set_ready(index, answer.is_ok_and(|answer| answer.status().is_success()));
        sleep(CHECK_EVERY).await;
    }
}

/// A client is told nothing when no node takes it: the connection ends, as it would if the node had.
async fn serve(mut client: TcpStream, nodes: &Nodes) {
    for address in nodes.in_turn() {
        let Ok(Ok(mut node)) = timeout(CONNECT, TcpStream::connect(address)).await else { continue };
        // Frames are small, and are not to wait for each other.
        let _: (io::Result<()>, io::Result<()>) = (client.set_nodelay(true), node.set_nodelay(true));
        // How it ended is the business of the two who spoke.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut node).await;
        return;
    }
    tracing::warn!("no node takes a connection");
}

/// As many as fit, after the limit has been raised as far as it may be.
fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = if raised.is_ok() { limit.maximum } else { limit.current };
    let fitting = files.map_or(CONNECTIONS_MAX, |files| files.saturating_sub(OTHER_FILES) / 2);
    usize::try_from(fitting.clamp(1, CONNECTIONS_MAX)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_round_the_nodes_that_are_ready() {
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let nodes = Nodes::new([1, 2, 3].map(address).into_iter());
        let firsts = |nodes: &Nodes| -> Vec<u16> { (0..6).map(|_| nodes.in_turn()[0].port()).collect() };
        assert_eq!(firsts(&nodes), [1, 2, 3, 1, 2, 3], "none is ready: any may be asked why");
        nodes.set_ready(0, true);
        nodes.set_ready(2, true);
        assert_eq!(nodes.in_turn().len(), 2);
        assert!(firsts(&nodes).iter().all(|port| [1, 3].contains(port)));
        nodes.set_ready(0, false);
        assert_eq!(firsts(&nodes), [3; 6]);
    }
}
