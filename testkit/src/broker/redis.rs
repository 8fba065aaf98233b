//! One `redis-server` that keeps what it has acknowledged in its append-only file.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};

use super::resp::{Connection, Reply};
use crate::port::Port;
use crate::program::REDIS_SERVER;
use crate::server::{CONFIG, Server};

/// What a server is started with. The default asks for no password.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    pub password: Option<String>,
    /// Further lines of the configuration file.
    pub config: String,
}

/// A server on one port and one directory, as often as it is killed and started again.
#[derive(Debug)]
pub struct RedisServer {
    server: Server,
    password: Option<String>,
}

impl RedisServer {
    pub fn start() -> Result<Self> {
        Self::start_with(RedisOptions::default())
    }

    pub fn start_with(options: RedisOptions) -> Result<Self> {
        let config = |place: &Path, port: &Port| config(&options, place, port);
        Self::launch(&[CONFIG], options.password.clone(), config)
    }

    /// Any server that speaks the protocol, with a configuration of its own.
    pub(super) fn launch(
        args: &[&str],
        password: Option<String>,
        config: impl FnOnce(&Path, &Port) -> String,
    ) -> Result<Self> {
        let config = |place: &Path, port: &Port| Ok(config(place, port));
        let server = Server::start(REDIS_SERVER, args, Port::claim()?, config)?;
        let mut server = Self { server, password };
        server.wait_ready()?;
        Ok(server)
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// With the password in it, if there is one.
    pub fn url(&self) -> String {
        let password = self.password.as_ref().map(|password| format!(":{password}@"));
        format!("redis://{}{}", password.unwrap_or_default(), self.addr())
    }

    /// One command over a connection of its own. Lists have a line for each value, nothing is an empty text.
    pub fn command(&self, command: &[&str]) -> Result<String> {
        Ok(connect(self.addr(), self.password.as_deref())?.call(command)?.to_string())
    }

    /// As a power cut would, as far as a process can tell.
    pub fn kill(&mut self) -> Result<()> {
        self.server.process().kill()
    }

    /// On the same port, with what it had stored; returns when it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.server.restart()?;
        self.wait_ready()
    }

    /// Connections stay open, and nobody serves them.
    pub fn freeze(&mut self) -> Result<()> {
        self.server.process().freeze()
    }

    pub fn thaw(&mut self) -> Result<()> {
        self.server.process().thaw()
    }

    /// Its directory: `server.conf`, `output`, the append-only file.
    pub fn place(&self) -> &Path {
        self.server.place()
    }

    /// What it has logged so far.
    pub fn output(&self) -> String {
        self.server.output()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let password = self.password.clone();
        // While it reads its file it answers with an error.
        self.server.wait_ready(|addr| {
            let reply = connect(addr, password.as_deref())?.call(&["PING"])?;
            ensure!(reply == Reply::Text("PONG".to_owned()), "{reply}");
            Ok(())
        })
    }
}

fn connect(addr: SocketAddr, password: Option<&str>) -> Result<Connection> {
    let mut connection = Connection::open(addr)?;
    if let Some(password) = password {
        connection.call(&["AUTH", password])?;
    }
    Ok(connection)
}

fn config(options: &RedisOptions, place: &Path, port: &Port) -> String {
    let mut lines = vec![
        "bind 127.0.0.1".to_owned(),
        format!("port {}", port.number()),
        format!("dir {}", place.display()),
        "daemonize no".to_owned(),
        "appendonly yes".to_owned(),
        // With the default, `everysec`, a write waits in memory while an earlier one is synced, and a kill
        // at that moment loses what was acknowledged.
        "appendfsync always".to_owned(),
        // The append-only file alone says what was stored.
        "save \"\"".to_owned(),
        // A replica is sent its copy at once, not after waiting for others that may want one.
        "repl-diskless-sync-delay 0".to_owned(),
    ];
    if let Some(password) = &options.password {
        lines.push(format!("requirepass {password:?}"));
        lines.push(format!("masterauth {password:?}"));
    }
    lines.push(options.config.clone());
    lines.join("\n")
}
