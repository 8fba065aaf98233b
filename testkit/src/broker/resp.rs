//! As much of Redis's protocol as tests need: one command, one reply.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// For a connection, a write or a read.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of a text or a list.
const LENGTH_MAX: usize = 16 * 1_048_576;

pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Text(String),
    Error(String),
    Number(i64),
    Nothing,
    List(Vec<Reply>),
}

impl Connection {
    pub(super) fn open(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The reply; an error that the server reports is an error here.
    pub(super) fn call(&mut self, command: &[&str]) -> Result<Reply> {
        let parts = command.iter().map(|part| format!("${}\r\n{part}\r\n", part.len()));
        let request = format!("*{}\r\n{}", command.len(), parts.collect::<String>());
        self.stream.get_mut().write_all(request.as_bytes())?;
        match self.read()? {
            Reply::Error(error) => bail!("{}: {error}", command.first().copied().unwrap_or_default()),
            reply => Ok(reply),
        }
    }

    fn read(&mut self) -> Result<Reply> {
        let mut line = String::new();
        let read = self.stream.by_ref().take(LENGTH_MAX as u64).read_line(&mut line)?;
        ensure!(read > 0, "the connection was closed instead of a reply");
        let line = line.trim_end_matches(['\r', '\n']);
        let (kind, rest) = line.split_at_checked(1).context("an empty line instead of a reply")?;
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(rest.parse()?),
            "$" | "*" if rest == "-1" => Reply::Nothing,
            "$" => Reply::Text(self.read_text(length(rest)?)?),
            "*" => Reply::List((0..length(rest)?).map(|_| self.read()).collect::<Result<_>>()?),
            _ => bail!("no reply: {line:?}"),
        })
    }

    fn read_text(&mut self, length: usize) -> Result<String> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn length(text: &str) -> Result<usize> {
    let length = text.parse()?;
    ensure!(length <= LENGTH_MAX, "a length of {length}");
    Ok(length)
}

/// As `redis-cli` prints it into a pipe: a list has a line for each of its values.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Error(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Nothing => Ok(()),
            Self::List(values) => {
                let lines: Vec<String> = values.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}
