//! HTTP/1.1, as little of it as publishing needs: one keep-alive connection, requests one by one or
//! several at once, answers with a length. A library would bring a runtime whose own CPU and latency would be measured too.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::target::Target;

/// The longest head of a request or answer that is read.
pub(crate) const HEAD_MAX: usize = 16 * 1024;
/// The longest body of an answer that is read; those to a publication have a few hundred bytes.
const BODY_MAX: usize = 1024 * 1024;
/// How long connecting, writing and each read may take.
const IO_TIMEOUT: Duration = Duration::from_secs(10);

/// The part before the body, without the empty line, and where the body begins.
pub(crate) fn split_head(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    // A head that is not text is a head without any header we know.
    Some((std::str::from_utf8(&bytes[..end]).unwrap_or_default(), end + 4))
}

/// The value of the header called `name`.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The status of an answer's head.
pub(crate) fn status(head: &str) -> Option<u16> {
    let rest = head.strip_prefix("HTTP/1.")?;
    rest.get(2..5)?.parse().ok()
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A client of one server; connects when it must.
pub(crate) struct Client {
    address: SocketAddr,
    authority: String,
    /// Header lines of every request, each with its line end.
    headers: String,
    stream: Option<TcpStream>,
}

impl Client {
    pub(crate) fn new(target: &Target, headers: &str) -> anyhow::Result<Self> {
        Ok(Self {
            address: target.resolve()?,
            authority: target.authority.clone(),
            headers: headers.to_owned(),
            stream: None,
        })
    }

    /// Opens the connection if there is none, so that no publication waits for it.
    pub(crate) fn connect(&mut self) -> anyhow::Result<&mut TcpStream> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, IO_TIMEOUT)
                .with_context(|| format!("cannot connect to {}", self.address))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(IO_TIMEOUT))?;
            stream.set_write_timeout(Some(IO_TIMEOUT))?;
            self.stream = Some(stream);
        }
        self.stream.as_mut().context("the connection was just made")
    }

    /// Sends one request and waits for its answer. After an error the next request connects anew; nothing
    /// is sent twice, because a publication that may have been stored must not be counted as one that was not.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> anyhow::Result<Answer> {
        let mut answers = self.post_all(&[(path, body)]);
        answers.pop().context("one request has one answer")?
    }

    /// Sends all requests in one write, then reads the answers: HTTP pipelining. After an error the rest are
    /// errors too.
    pub(crate) fn post_all(&mut self, requests: &[(&str, &str)]) -> Vec<anyhow::Result<Answer>> {
        let mut text = String::new();
        for (path, body) in requests {
            text.push_str(&format!(
                "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{body}",
                self.authority,
                self.headers,
                body.len(),
            ));
        }
        self.exchange(&text, requests.len())
    }

    /// What is at `path`.
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{}\r\n", self.authority, self.headers);
        self.exchange(&text, 1).pop().context("one request has one answer")?
    }

    fn exchange(&mut self, requests: &str, count: usize) -> Vec<anyhow::Result<Answer>> {
        let mut answers = Vec::with_capacity(count);
        let mut bytes = Vec::with_capacity(1024);
        let sent = self
            .connect()
            .and_then(|stream| stream.write_all(requests.as_bytes()).context("cannot write the request"));
        if let Err(error) = sent {
            answers.push(Err(error));
        }
        while answers.len() < count && !matches!(answers.last(), Some(Err(_))) {
            let answer = match &mut self.stream {
                Some(stream) => read_answer(stream, &mut bytes),
                None => Err(anyhow::anyhow!("the server closed the connection before it answered")),
            };
            answers.push(answer.map(|(answer, reusable)| {
                if !reusable {
                    self.stream = None;
                }
                answer
            }));
        }
        if matches!(answers.last(), Some(Err(_))) {
            self.stream = None;
            while answers.len() < count {
                answers.push(Err(anyhow::anyhow!("a request before it failed")));
            }
        }
        answers
    }
}

/// The next answer, and whether the connection can be used again. `bytes` has what was read too far.
fn read_answer(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> anyhow::Result<(Answer, bool)> {
    loop {
        if let Some((head, body_at)) = split_head(bytes) {
            let status = status(head).context("the answer has no status line")?;
            let length: usize = header(head, "content-length")
                .context("the answer has no content-length")?
                .parse()
                .context("the answer's content-length is not a number")?;
            ensure!(length <= BODY_MAX, "the answer's body has {length} bytes");
            let reusable =
                header(head, "connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
            while bytes.len() < body_at + length {
                read_more(stream, bytes)?;
            }
            let body = bytes[body_at..body_at + length].to_vec();
            bytes.drain(..body_at + length);
            return Ok((Answer { status, body }, reusable));
        }
        ensure!(bytes.len() < HEAD_MAX, "the answer's head does not end");
        read_more(stream, bytes)?;
    }
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk) {
        Ok(0) => bail!("the connection ended before the answer did"),
        Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error).context("cannot read the answer"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_the_empty_line() {
        let bytes = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nRetry-After:1\r\n\r\nok";
        let (head, body_at) = split_head(bytes).unwrap();
        assert_eq!(&bytes[body_at..], b"ok");
        assert_eq!(status(head), Some(503));
        assert_eq!(header(head, "content-length"), Some("2"));
        assert_eq!(header(head, "retry-after"), Some("1"));
        assert_eq!(header(head, "absent"), None);
        assert!(split_head(&bytes[..body_at - 1]).is_none());
    }

    #[test]
    fn a_status_is_three_digits_of_an_http_answer() {
        for bad in ["", "HTTP/1.1", "HTTP/1.1 x", "SSH-2.0-x 101", "HTTP/1.1 20"] {
            assert_eq!(status(bad), None, "{bad}");
        }
    }
}
