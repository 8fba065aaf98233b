//! A Redis master, its replica, and three sentinels that make the replica master when the master is gone.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use super::redis::{RedisOptions, RedisServer};
use crate::server::CONFIG;
use crate::wait::{PATIENCE, wait_for_some};

const SENTINELS: usize = 3;
/// A majority of them.
const QUORUM: usize = 2;
/// A server that is silent for so long is taken for gone. Long enough for a machine that is busy.
const DOWN_AFTER_MS: u32 = 1_000;

/// Two servers and those who watch them. Any of them may be killed, frozen and started again.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The first is the master at the start.
    pub servers: Vec<RedisServer>,
    /// They answer the same commands as a server does, but for those about data.
    pub sentinels: Vec<RedisServer>,
}

impl RedisSentinels {
    /// What the master is called.
    pub const NAME: &str = "hiveops";

    pub fn start() -> Result<Self> {
        Self::start_with(&RedisOptions::default())
    }

    /// The options are those of each server. Returns when the replica is in step, and all sentinels know it
    /// and each other.
    pub fn start_with(options: &RedisOptions) -> Result<Self> {
        let master = RedisServer::start_with(options.clone())?;
        let config = format!("{}\nreplicaof 127.0.0.1 {}\n", options.config, master.addr().port());
        let replica = RedisServer::start_with(RedisOptions { config, ..options.clone() })?;
        let sentinels = (0..SENTINELS).map(|_| sentinel(master.addr(), options)).collect::<Result<_>>()?;
        let set = Self { servers: vec![master, replica], sentinels };
        set.wait_in_step()?;
        Ok(set)
    }

    /// The master, as the first sentinel that answers has it.
    pub fn master(&self) -> Result<SocketAddr> {
        let mut last = None;
        for sentinel in &self.sentinels {
            match sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::NAME]) {
                Ok(answer) => return Ok(answer.replace('\n', ":").parse()?),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("there are no sentinels")?).context("no sentinel answers")
    }

    /// The server that listens there.
    pub fn server(&mut self, addr: SocketAddr) -> Result<&mut RedisServer> {
        let found = self.servers.iter_mut().find(|server| server.addr() == addr);
        found.with_context(|| format!("no server of the set is {addr}"))
    }

    /// Waits until another server than this is the master and knows it.
    pub fn wait_failover(&self, from: SocketAddr) -> Result<SocketAddr> {
        wait_for_some(&format!("a master after {from}"), PATIENCE, || {
            let master = self.master()?;
            let server = self.servers.iter().find(|server| server.addr() == master && master != from);
            let Some(server) = server else { return Ok(None) };
            let is_master = server.command(&["ROLE"]).is_ok_and(|role| role.starts_with("master"));
            Ok(is_master.then_some(master))
        })
    }

    /// Waits until the server that is not the master has all that the master has, and every sentinel sees
    /// both and the other sentinels. All must be running.
    pub fn wait_in_step(&self) -> Result<()> {
        wait_for_some("the replica and the sentinels to be in step", PATIENCE, || {
            let master = self.master()?;
            let mut replicas = self.servers.iter().filter(|server| server.addr() != master);
            let linked = replicas.all(|replica| {
                let state = replica.command(&["INFO", "replication"]).unwrap_or_default();
                state.contains("role:slave") && state.contains("master_link_status:up")
            });
            let known = self.sentinels.iter().all(|sentinel| sees_all(sentinel, master));
            Ok((linked && known).then_some(()))
        })
    }
}

fn sees_all(sentinel: &RedisServer, master: SocketAddr) -> bool {
    let answer = sentinel.command(&["SENTINEL", "MASTER", RedisSentinels::NAME]).unwrap_or_default();
    // Names and values take turns.
    let lines: Vec<&str> = answer.lines().collect();
    let has = |name: &str, value: &str| lines.chunks_exact(2).any(|pair| pair == [name, value]);
    has("port", &master.port().to_string())
        && has("flags", "master")
        && has("num-slaves", "1")
        && has("num-other-sentinels", &(SENTINELS - 1).to_string())
}

/// Its configuration is also its memory: it writes into the file what it has learned.
fn sentinel(master: SocketAddr, options: &RedisOptions) -> Result<RedisServer> {
    let name = RedisSentinels::NAME;
    let (ip, port) = (master.ip(), master.port());
    let auth = options.password.as_ref().map(|password| format!("sentinel auth-pass {name} {password:?}\n"));
    RedisServer::launch(&[CONFIG, "--sentinel"], None, |place, own| {
        format!(
            "bind 127.0.0.1
port {}
dir {}
sentinel monitor {name} {ip} {port} {QUORUM}
sentinel down-after-milliseconds {name} {DOWN_AFTER_MS}
sentinel failover-timeout {name} 10000
{}",
            own.number(),
            place.display(),
            auth.unwrap_or_default(),
        )
    })
}
