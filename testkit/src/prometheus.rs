//! A real `prometheus`, which scrapes and evaluates what its configuration says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::port::Port;
use crate::program::PROMETHEUS;
use crate::server::{CONFIG, Server};

/// For one question whether it is ready; it is asked again.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Of the answer to it.
const READY_BYTES_MAX: u64 = 4_096;

/// A server with a store of its own, which goes with it.
#[derive(Debug)]
pub struct Prometheus {
    server: Server,
}

impl Prometheus {
    /// With the text of a configuration file. Paths in it must be absolute: the file is in a new directory.
    pub fn start(config: &str) -> Result<Self> {
        let port = Port::claim()?;
        let file = format!("--config.file={CONFIG}");
        let listen = format!("--web.listen-address={}", port.addr());
        let args = [file.as_str(), &listen, "--storage.tsdb.path=data", "--log.level=warn"];
        let mut server = Server::start(PROMETHEUS, &args, port, |_: &Path, _| Ok(config.to_owned()))?;
        server.wait_ready(is_ready)?;
        Ok(Self { server })
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        self.server.output()
    }
}

fn is_ready(addr: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, READY_TIMEOUT)?;
    stream.set_read_timeout(Some(READY_TIMEOUT))?;
    stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(READY_BYTES_MAX).read_to_string(&mut answer)?;
    ensure!(answer.split(' ').nth(1) == Some("200"), "not ready: {answer}");
    Ok(())
}
