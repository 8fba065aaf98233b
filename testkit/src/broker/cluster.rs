//! A Redis cluster of three masters without replicas: what a client must find its way in, and what is left
//! of it when a part is gone.

use anyhow::{Context as _, Result};

use super::redis::{RedisOptions, RedisServer};
use crate::port::Port;
use crate::wait::{PATIENCE, wait_for_some};

const SERVERS: usize = 3;
const SLOTS: usize = 16_384;
/// A server that is silent for so long is taken for gone. Long enough for a machine that is busy.
const NODE_TIMEOUT_MS: u32 = 2_000;

/// Three servers, each with a third of the keys.
#[derive(Debug)]
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
    /// Where they talk to each other; claimed, since it must be the same after a restart.
    _bus_ports: Vec<Port>,
}

impl RedisCluster {
    pub fn start() -> Result<Self> {
        Self::start_with(&RedisOptions::default())
    }

    /// The options are those of each server. Returns when all of them serve.
    pub fn start_with(options: &RedisOptions) -> Result<Self> {
        let bus_ports = (0..SERVERS).map(|_| Port::claim()).collect::<Result<Vec<_>>>()?;
        let servers = bus_ports.iter().map(|port| start(options, port)).collect::<Result<Vec<_>>>()?;
        for (number, server) in servers.iter().enumerate() {
            // Unlike ones, so that they need not find out who changes his.
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
            let (first, last) = (first_slot(number), first_slot(number + 1) - 1);
            server.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
        }
        for (server, bus) in servers.iter().zip(&bus_ports).skip(1) {
            let (port, bus) = (server.addr().port().to_string(), bus.number().to_string());
            servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        let cluster = Self { servers, _bus_ports: bus_ports };
        cluster.wait_whole()?;
        Ok(cluster)
    }

    /// The place of the server that has this key.
    pub fn owner(&self, key: &str) -> Result<usize> {
        let slot = self.servers.iter().find_map(|server| server.command(&["CLUSTER", "KEYSLOT", key]).ok());
        let slot: usize = slot.context("no server of the cluster answers")?.parse()?;
        (0..SERVERS).rfind(|number| first_slot(*number) <= slot).context("slots begin at zero")
    }

    /// Waits until every server sees all of them, and every slot served.
    pub fn wait_whole(&self) -> Result<()> {
        wait_for_some("the cluster to be whole", PATIENCE, || {
            let whole = self.servers.iter().all(|server| {
                let state = server.command(&["CLUSTER", "INFO"]).unwrap_or_default();
                let has = |line: &str| state.lines().any(|found| found == line);
                has("cluster_state:ok") && has("cluster_known_nodes:3") && has("cluster_slots_ok:16384")
            });
            Ok(whole.then_some(()))
        })
    }
}

fn start(options: &RedisOptions, bus: &Port) -> Result<RedisServer> {
    let config = format!(
        "{}
cluster-enabled yes
cluster-config-file nodes.conf
cluster-port {}
cluster-announce-ip 127.0.0.1
cluster-node-timeout {NODE_TIMEOUT_MS}
",
        options.config,
        bus.number(),
    );
    RedisServer::start_with(RedisOptions { config, ..options.clone() })
}

/// Of the server at this place; that after the last one is the number of slots.
fn first_slot(number: usize) -> usize {
    SLOTS * number / SERVERS
}
