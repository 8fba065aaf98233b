//! As much of NATS's protocol as it takes to hand in a message that no node would write: one connection, one
//! message after the other, each confirmed by the server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};

/// For the connection and each line.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut connection = Self { stream: BufReader::new(stream) };
        let info = connection.line()?;
        ensure!(info.starts_with("INFO "), "no INFO but {info:?}");
        connection.write(b"CONNECT {\"verbose\":true,\"pedantic\":false,\"headers\":true}\r\n")?;
        connection.confirmed()?;
        Ok(connection)
    }

    pub(super) fn publish(&mut self, subject: &str, headers: &[(&str, &str)], payload: &[u8]) -> Result<()> {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!("NATS/1.0\r\n{lines}\r\n");
        let (length, all) = (head.len(), head.len() + payload.len());
        self.write(format!("HPUB {subject} {length} {all}\r\n{head}").as_bytes())?;
        self.write(payload)?;
        self.write(b"\r\n")?;
        self.confirmed()
    }

    fn confirmed(&mut self) -> Result<()> {
        loop {
            match self.line()?.as_str() {
                "+OK" => return Ok(()),
                "PING" => self.write(b"PONG\r\n")?,
                other => ensure!(other.starts_with("INFO "), "the server says {other:?}"),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the server hung up");
        Ok(line.trim_end().to_owned())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }
}
