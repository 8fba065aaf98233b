//! `nats-server` with JetStream.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::certificates::Authority;
use crate::port::Port;
use crate::program::NATS_SERVER;
use crate::server::{CONFIG, Server};

/// Of the first line that a server sends.
const INFO_BYTES_MAX: u64 = 65_536;
/// For one attempt to read it; a server that is starting is asked again.
const INFO_TIMEOUT: Duration = Duration::from_secs(2);

/// In the server's directory.
const CA: &str = "ca.pem";
/// Names of certificates.
const SERVER: &str = "server";
const CLIENT: &str = "client";

/// What a server is started with beside JetStream. The default asks for no credentials.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    pub user: Option<String>,
    /// Of the user.
    pub password: String,
    pub token: Option<String>,
    pub max_payload_bytes: Option<u64>,
    pub tls: Tls,
    /// Further lines of the configuration file.
    pub config: String,
}

/// Whether connections are encrypted, and who must show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tls {
    #[default]
    Off,
    /// The server.
    Server,
    /// The server and its clients.
    Mutual,
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
        let config = |place: &Path, port: &Port| config(&options, place, port);
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
        let scheme = if self.options.tls == Tls::Off { "nats" } else { "tls" };
        format!("{scheme}://{credentials}{}", self.addr())
    }

    /// The certificate of who issued the server's, if it speaks TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        (self.options.tls != Tls::Off).then(|| self.place().join(CA))
    }

    /// A certificate that a client can show, and its key, if the server wants one.
    pub fn client_files(&self) -> Option<(PathBuf, PathBuf)> {
        (self.options.tls == Tls::Mutual).then(|| files(self.place(), CLIENT))
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

    /// Of the process that runs now.
    pub fn pid(&mut self) -> u32 {
        self.server.process().pid()
    }

    /// The first line it sends to a client, as JSON.
    pub fn info(&self) -> Result<String> {
        read_info(self.addr())
    }

    /// Its directory: `server.conf`, `output`, `store`, certificates.
    pub fn place(&self) -> &Path {
        self.server.place()
    }

    /// What it has logged so far.
    pub fn output(&self) -> String {
        self.server.output()
    }
}

fn config(options: &NatsOptions, place: &Path, port: &Port) -> Result<String> {
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
    if options.tls != Tls::Off {
        text += &tls(options.tls, place)?;
    }
    Ok(text + &options.config)
}

/// The line that turns it on, and the files that it names.
fn tls(tls: Tls, place: &Path) -> Result<String> {
    let authority = Authority::new()?;
    let ca = place.join(CA);
    std::fs::write(&ca, authority.pem())?;
    authority.issue(&["localhost", "127.0.0.1"])?.write(&files(place, SERVER))?;
    if tls == Tls::Mutual {
        authority.issue(&["client"])?.write(&files(place, CLIENT))?;
    }
    let (certificate, key) = files(place, SERVER);
    let verify = tls == Tls::Mutual;
    Ok(format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: {verify} }}\n"
    ))
}

/// Certificate and key of this name.
fn files(place: &Path, name: &str) -> (PathBuf, PathBuf) {
    (place.join(format!("{name}.pem")), place.join(format!("{name}-key.pem")))
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
