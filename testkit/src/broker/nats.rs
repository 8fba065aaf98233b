//! `nats-server` with JetStream.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::port::Port;
use crate::program::NATS_SERVER;
use crate::server::{CONFIG, Server};

/// Of the first line that a server sends.
const INFO_BYTES_MAX: u64 = 65_536;
/// For one attempt to read it; a server that is starting is asked again.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

/// What a server is started with beside JetStream. The default asks for no credentials.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    pub user: Option<String>,
    /// Of the user.
    pub password: String,
    pub token: Option<String>,
    pub max_payload_bytes: Option<u64>,
    /// Further lines of the configuration file.
    pub config: String,
}

/// A server on one port and one store, as often as it is killed and started again.
#[derive(Debug)]
pub struct NatsServer {
    server: Server,
    options: NatsOptions,
}

impl NatsServer {
    pub fn start() -> Result<Self> {
        Self::start_with(NatsOptions::default())
    }

    pub fn start_with(options: NatsOptions) -> Result<Self> {
        let config = |place: &Path, port: &Port| Ok(config(&options, place, port));
        let mut server = Server::start(NATS_SERVER, &["-c", CONFIG], Port::claim()?, config)?;
        server.wait_ready(read_info)?;
        Ok(Self { server, options })
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// With the credentials in it, if there are any.
    pub fn url(&self) -> String {
        let credentials = match (&self.options.user, &self.options.token) {
            (Some(user), _) => format!("{user}:{}@", self.options.password),
            (None, Some(token)) => format!("{token}@"),
            (None, None) => String::new(),
        };
        format!("nats://{credentials}{}", self.addr())
    }

    /// As a power cut would, as far as a process can tell.
    pub fn kill(&mut self) -> Result<()> {
        self.server.process().kill()
    }

    /// On the same port, with what it had stored; returns when it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.server.restart()?;
        self.server.wait_ready(read_info)?;
        Ok(())
    }

    /// Connections stay open, and nobody serves them.
    pub fn freeze(&mut self) -> Result<()> {
        self.server.process().freeze()
    }

    pub fn thaw(&mut self) -> Result<()> {
        self.server.process().thaw()
    }

    /// The first line it sends to a client, as JSON.
    pub fn info(&self) -> Result<String> {
        read_info(self.addr())
    }

    /// Its directory: `server.conf`, `output`, `store`.
    pub fn place(&self) -> &Path {
        self.server.place()
    }

    /// What it has logged so far.
    pub fn output(&self) -> String {
        self.server.output()
    }
}

fn config(options: &NatsOptions, place: &Path, port: &Port) -> String {
    let mut text =
        format!("listen: \"{}\"\njetstream {{ store_dir: {:?} }}\n", port.addr(), place.join("store"));
    if let Some(bytes) = options.max_payload_bytes {
        let _ = writeln!(text, "max_payload: {bytes}");
    }
    if let Some(user) = &options.user {
        let _ = writeln!(text, "authorization {{ user: {user:?}, password: {:?} }}", options.password);
    } else if let Some(token) = &options.token {
        let _ = writeln!(text, "authorization {{ token: {token:?} }}");
    }
    text + &options.config
}

/// It listens once JetStream has recovered what it had, so that this line means ready.
fn read_info(addr: SocketAddr) -> Result<String> {
    let stream = TcpStream::connect_timeout(&addr, INFO_TIMEOUT)?;
    stream.set_read_timeout(Some(INFO_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(stream.take(INFO_BYTES_MAX)).read_line(&mut line)?;
    let info = line.strip_prefix("INFO ").unwrap_or_default().trim();
    ensure!(info.ends_with('}'), "no INFO line but {line:?}");
    ensure!(info.contains("\"jetstream\":true"), "JetStream is not on: {info}");
    Ok(info.to_owned())
}
