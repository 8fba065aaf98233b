//! A real `haproxy` in front of several nodes, which takes out those whose `/readyz` says no.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::port::Port;
use crate::program::HAPROXY;
use crate::server::{CONFIG, Server};
use crate::wait::{PATIENCE, wait_for_some};

/// For one question to the running process.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// In the configuration's directory.
const SOCKET: &str = "control.sock";

/// How a new connection finds its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    LeastConnections,
    RoundRobin,
}

/// A balancer in TCP mode. A node that is not ready gets no new connection and keeps those it has.
#[derive(Debug)]
pub struct Haproxy {
    server: Server,
}

impl Haproxy {
    /// Over these nodes, by the least connections.
    pub fn start(backends: &[SocketAddr]) -> Result<Self> {
        Self::start_with(Balance::LeastConnections, backends)
    }

    pub fn start_with(balance: Balance, backends: &[SocketAddr]) -> Result<Self> {
        let config = |place: &Path, port: &Port| Ok(config(balance, backends, place, port));
        let server = Server::start(HAPROXY, &["-db", "-f", CONFIG], Port::claim()?, config)?;
        let mut balancer = Self { server };
        balancer.wait_ready()?;
        Ok(balancer)
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Places in the list of nodes whose last check was good.
    pub fn ready(&self) -> Result<Vec<usize>> {
        ready(&ask(self.server.place(), "show stat nodes 4 -1")?)
    }

    /// Waits until exactly these nodes, by their places in the list, are ready.
    pub fn wait_ready_are(&self, nodes: &[usize]) -> Result<()> {
        let what = format!("nodes {nodes:?} to be the ready ones");
        wait_for_some(&what, PATIENCE, || Ok((self.ready()? == nodes).then_some(())))
    }

    /// Leads new connections for this place in the list to another address, as when a node comes back
    /// elsewhere.
    pub fn move_backend(&self, node: usize, addr: SocketAddr) -> Result<()> {
        let (ip, port) = (addr.ip(), addr.port());
        let command = format!("set server nodes/node{node} addr {ip} port {port}");
        let answer = ask(self.server.place(), &command)?;
        ensure!(answer.contains("changed") || answer.contains("no need"), "{command}: {answer}");
        Ok(())
    }

    /// As a power cut would; every connection through it ends.
    pub fn kill(&mut self) -> Result<()> {
        self.server.process().kill()
    }

    /// On the same port, with the nodes it was started with.
    pub fn restart(&mut self) -> Result<()> {
        self.server.restart()?;
        self.wait_ready()
    }

    /// Connections stay open, and nothing passes.
    pub fn freeze(&mut self) -> Result<()> {
        self.server.process().freeze()
    }

    pub fn thaw(&mut self) -> Result<()> {
        self.server.process().thaw()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let place = self.server.place().to_owned();
        // It answers only when its ports are open, and what it answers then is its own.
        self.server.wait_ready(|_| ask(&place, "show info"))?;
        Ok(())
    }
}

fn config(balance: Balance, backends: &[SocketAddr], place: &Path, port: &Port) -> String {
    let balance = match balance {
        Balance::LeastConnections => "leastconn",
        Balance::RoundRobin => "roundrobin",
    };
    let mut text = format!(
        "global
    # Fewer where files are fewer.
    maxconn 4000
    no strict-limits
    stats socket {socket} mode 600 level admin
defaults
    mode tcp
    timeout connect 2s
    # Sessions live for days.
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
    timeout check 1s
    retries 3
    # A node that died since its last check costs a client nothing.
    option redispatch 1
frontend clients
    bind {addr}
    default_backend nodes
backend nodes
    balance {balance}
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 200ms fastinter 200ms downinter 200ms fall 1 rise 1
",
        socket = place.join(SOCKET).display(),
        addr = port.addr(),
    );
    for (number, addr) in backends.iter().enumerate() {
        let _ = writeln!(text, "    server node{number} {addr}");
    }
    text
}

/// One command and its whole answer.
fn ask(place: &Path, command: &str) -> Result<String> {
    let mut stream = UnixStream::connect(place.join(SOCKET)).context("haproxy's socket")?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    writeln!(stream, "{command}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("haproxy's answer")?;
    Ok(answer)
}

/// From the statistics as CSV, whose first line names the columns.
fn ready(csv: &str) -> Result<Vec<usize>> {
    let mut lines = csv.trim_start_matches("# ").lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().context("no statistics")?;
    let column = |name| names.iter().position(|found| *found == name).context("a column is missing");
    let (node, status, check) = (column("svname")?, column("status")?, column("check_status")?);
    let nodes = lines.filter_map(|line| {
        let number = line.get(node)?.strip_prefix("node")?.parse().ok()?;
        // A star stands before the result of the last check while the next one runs. Before its first check
        // a node is taken for up.
        let checked = line.get(check)?.trim_start_matches("* ") == "L7OK";
        (checked && line.get(status)?.starts_with("UP")).then_some(number)
    });
    Ok(nodes.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_whose_last_check_was_good_are_ready() {
        let csv = "# pxname,svname,status,check_status,\n\
                   nodes,node0,UP,L7OK,\n\
                   nodes,node1,UP,INI,\n\
                   nodes,node2,UP 1/2,* L7OK,\n\
                   nodes,node3,DOWN,* L4CON,\n\
                   nodes,BACKEND,UP,,\n\n";
        assert_eq!(ready(csv).unwrap(), [0, 2]);
        ready("Unknown command").unwrap_err();
    }
}
