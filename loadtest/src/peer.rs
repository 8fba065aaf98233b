//! Servers that are not of this contract, so that they can be measured by the same client: how each is
//! subscribed to, how its messages are told apart, and how one publishes to it. What they carry is the frame
//! that a server of the contract would send, so that the bytes on the wire are as many.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hiveops_proto::http::BroadcastReply;
use hiveops_proto::{Payload, path};

use crate::floor::Responder;
use crate::http::Client;
use crate::names::Channels;
use crate::target::Target;

/// How long one answer of a NATS server may take.
const IO_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest line of the NATS protocol that is read: `INFO` has about half a kilobyte.
const LINE_MAX: usize = 64 * 1024;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The contract of HiveOps.
    Contract,
    /// The NATS protocol in WebSocket frames; publishing goes to the server's plain port.
    Nats,
    /// A subscriber location of nginx's nchan; publishing is a POST to its publisher location.
    Nchan,
}

/// What a NATS client says when it has read `INFO`: the answer `PONG` shows that it is subscribed.
pub(crate) fn nats_greeting(subjects: &[String]) -> String {
    let mut text = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n".to_owned();
    for (number, subject) in subjects.iter().enumerate() {
        text.push_str(&format!("SUB {subject} {}\r\n", number + 1));
    }
    text.push_str("PING\r\n");
    text
}

/// Hands over the payload of each `MSG` in one WebSocket frame; false when one is not there whole.
pub(crate) fn nats_messages(mut bytes: &[u8], mut deliver: impl FnMut(&[u8])) -> bool {
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return false };
        let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
        bytes = rest;
        if !line.starts_with(b"MSG ") {
            continue;
        }
        let length = line.rsplit(|byte| *byte == b' ').next();
        let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let Some((payload, rest)) = length.and_then(|length| bytes.split_at_checked(length)) else {
            return false;
        };
        deliver(payload);
        bytes = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    true
}

/// Where publications go.
pub(crate) enum Outlet {
    Contract { client: Client, paths: Vec<String> },
    Nats { stream: BufReader<TcpStream>, wrapper: Wrapper },
    Nchan { client: Client, path: String, wrapper: Wrapper },
}

/// Makes whole frames of data.
pub(crate) struct Wrapper {
    channels: Channels,
    responder: Responder,
}

impl Wrapper {
    fn frame(&mut self, channel: usize, data: &str) -> anyhow::Result<String> {
        let data = Payload::parse(data).context("the publication's data is not JSON")?;
        let (name, kind) = (self.channels.names[channel].clone(), self.channels.types[channel].clone());
        Ok(self.responder.publication(name, kind, data).frame)
    }
}

impl Outlet {
    /// Connects, so that no publication waits for it.
    pub(crate) fn open(target: &Target, headers: &str, channels: &Channels) -> anyhow::Result<Self> {
        let wrapper = || Wrapper { channels: channels.clone(), responder: Responder::new() };
        let mut client = Client::new(target, headers)?;
        Ok(match target.dialect {
            Dialect::Contract => {
                client.connect()?;
                let of =
                    |(name, kind)| format!("{}?subscription={name}&message_type={kind}", path::WS_BROADCAST);
                let paths = channels.names.iter().zip(&channels.types).map(of).collect();
                Self::Contract { client, paths }
            }
            Dialect::Nats => Self::Nats { stream: nats_connect(target)?, wrapper: wrapper() },
            Dialect::Nchan => {
                client.connect()?;
                Self::Nchan { client, path: target.path_with(None), wrapper: wrapper() }
            }
        })
    }

    /// Publishes each item, all of them in one write and without waiting in between (HTTP pipelining), and
    /// says what became of each.
    pub(crate) fn publish(&mut self, items: &[(usize, String)]) -> Vec<anyhow::Result<()>> {
        match self {
            Self::Contract { client, paths } => {
                let requests: Vec<(&str, &str)> =
                    items.iter().map(|(channel, data)| (paths[*channel].as_str(), data.as_str())).collect();
                let answers = client.post_all(&requests).into_iter();
                answers.map(|answer| accepted(answer?).map(drop)).collect()
            }
            Self::Nats { stream, wrapper } => {
                let outcome = nats_publish(stream, wrapper, items);
                same_for_all(outcome, items.len())
            }
            Self::Nchan { client, path, wrapper } => {
                let frames: Vec<anyhow::Result<String>> =
                    items.iter().map(|(channel, data)| wrapper.frame(*channel, data)).collect();
                let frames: anyhow::Result<Vec<String>> = frames.into_iter().collect();
                let frames = match frames {
                    Ok(frames) => frames,
                    Err(error) => return same_for_all(Err(error), items.len()),
                };
                let requests: Vec<(&str, &str)> =
                    frames.iter().map(|frame| (path.as_str(), frame.as_str())).collect();
                let answers = client.post_all(&requests).into_iter();
                answers
                    .map(|answer| {
                        let status = answer?.status;
                        ensure!(matches!(status, 200..=202), "HTTP {status}");
                        Ok(())
                    })
                    .collect()
            }
        }
    }
}

/// The reply to a publication that was taken.
pub(crate) fn accepted(answer: crate::http::Answer) -> anyhow::Result<BroadcastReply> {
    if answer.status != 200 {
        bail!("HTTP {}: {}", answer.status, explain(&answer.body));
    }
    let reply: BroadcastReply =
        serde_json::from_slice(&answer.body).context("the answer is not one of the contract")?;
    // Every publication of a run is different, so that the server must not take it for an earlier one.
    ensure!(!reply.duplicate, "the server took the publication for a duplicate");
    Ok(reply)
}

/// What a problem document says, without what differs from request to request.
fn explain(body: &[u8]) -> String {
    let problem: Option<hiveops_proto::http::Problem> = serde_json::from_slice(body).ok();
    match problem {
        Some(problem) => problem.detail.unwrap_or(problem.title),
        None => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

fn same_for_all(outcome: anyhow::Result<()>, count: usize) -> Vec<anyhow::Result<()>> {
    let text = outcome.err().map(|error| format!("{error:#}"));
    (0..count).map(|_| text.as_ref().map_or(Ok(()), |text| Err(anyhow::anyhow!("{text}")))).collect()
}

fn nats_connect(target: &Target) -> anyhow::Result<BufReader<TcpStream>> {
    let address = target.resolve()?;
    let stream = TcpStream::connect_timeout(&address, IO_TIMEOUT)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(nats_greeting(&[]).as_bytes())?;
    nats_pong(&mut stream)?;
    Ok(stream)
}

/// Publishes, and has the server say that it has read it all.
fn nats_publish(
    stream: &mut BufReader<TcpStream>,
    wrapper: &mut Wrapper,
    items: &[(usize, String)],
) -> anyhow::Result<()> {
    let mut text = String::new();
    for (channel, data) in items {
        let frame = wrapper.frame(*channel, data)?;
        text.push_str(&format!("PUB {} {}\r\n{frame}\r\n", wrapper.channels.names[*channel], frame.len()));
    }
    text.push_str("PING\r\n");
    stream.get_mut().write_all(text.as_bytes()).context("cannot write to the NATS server")?;
    nats_pong(stream)
}

fn nats_pong(stream: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    loop {
        let mut line = String::new();
        let count = std::io::Read::take(&mut *stream, LINE_MAX as u64)
            .read_line(&mut line)
            .context("cannot read from the NATS server")?;
        match line.trim_end() {
            _ if count == 0 => bail!("the NATS server ended the connection"),
            "PONG" => return Ok(()),
            "PING" => stream.get_mut().write_all(b"PONG\r\n")?,
            line if line.starts_with("-ERR") => bail!("the NATS server says {line}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_frame_are_told_apart() {
        let mut got = Vec::new();
        let whole = b"PING\r\nMSG tasks 1 3\r\na\r\n\r\nMSG tasks 1 2\r\nbc\r\n";
        assert!(nats_messages(whole, |message| got.push(message.to_vec())));
        assert_eq!(got, [b"a\r\n".to_vec(), b"bc".to_vec()]);
        for cut in [b"MSG tasks 1 3\r\nab".as_slice(), b"MSG tasks 1 x\r\n", b"MSG tasks 1 3"] {
            assert!(!nats_messages(cut, |_| {}), "{cut:?}");
        }
    }

    #[test]
    fn a_nats_client_subscribes_to_each_subject() {
        let greeting = nats_greeting(&["a".to_owned(), "b".to_owned()]);
        assert!(greeting.contains("SUB a 1\r\nSUB b 2\r\n") && greeting.ends_with("PING\r\n"), "{greeting}");
    }
}
