//! A real `prometheus`, which scrapes and evaluates what its configuration says, and its `promtool`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::port::Port;
use crate::program::PROMETHEUS;
use crate::server::{CONFIG, Server};

/// For one question whether it is ready; it is asked again.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Of the answer to it.
const READY_BYTES_MAX: u64 = 4_096;

/// It keeps examples of what it scrapes only when it is told to.
const EXEMPLARS: &str = "--enable-feature=exemplar-storage";

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
        let args = [file.as_str(), &listen, "--storage.tsdb.path=data", "--log.level=warn", EXEMPLARS];
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

/// Fails with what `promtool` says of a page of metrics, if it says anything.
pub fn check_metrics(page: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is missing; install it with: scripts/install prometheus")?;
    promtool.stdin.take().context("promtool reads nothing")?.write_all(page.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    Ok(())
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
