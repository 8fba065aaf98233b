//! All connections of a run, on one thread: opens them a few at a time, keeps them alive, hands their
//! messages to a receiver, closes them. `idle` and `fanout` drive it; it knows nothing of what they count.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::clock::{Clock, Deadline};
use crate::connection::{Connection, Discard, FRAME_MAX, Handshake, Receiver, Stage};
use crate::failure::{Failure, Failures};

/// Connections on their way at once: fewer than any listen backlog, so that none is turned away for haste.
const OPENING_MAX: usize = 256;
/// Sockets that one poll reports.
const EVENTS_MAX: usize = 1024;
/// Connections per loopback source address. A range has about 28,000 ports, and those of an earlier run
/// may still be waiting for stray segments.
const PORTS_PER_SOURCE: usize = 10_000;
/// The longest single wait, so that conditions other than sockets are looked at.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// Owns the sockets.
pub(crate) struct Swarm {
    poll: Poll,
    events: Events,
    clock: Clock,
    address: SocketAddr,
    handshake: Handshake,
    connections: Vec<Connection>,
    /// Where every connection reads.
    scratch: Vec<u8>,
    counts: Counts,
    /// When something last arrived.
    last_arrival: u64,
}

/// How many connections are where; kept in step with their stages.
#[derive(Default)]
struct Counts {
    /// Between `Connecting` and `Opening`.
    opening: usize,
    open: usize,
    failures: Failures,
}

impl Counts {
    /// One connection went from one stage to another.
    fn moved(&mut self, before: Stage, after: Stage, failure: Option<Failure>) {
        let opening = |stage| matches!(stage, Stage::Connecting | Stage::Upgrading | Stage::Opening);
        self.opening = self.opening + usize::from(opening(after)) - usize::from(opening(before));
        self.open = self.open + usize::from(after == Stage::Open) - usize::from(before == Stage::Open);
        // A close that breaks off is a close.
        if let Some(failure) = failure.filter(|_| before != Stage::Closing) {
            self.failures.add(failure);
        }
    }
}

impl Swarm {
    pub(crate) fn new(address: SocketAddr, handshake: Handshake, clock: Clock) -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new().context("cannot create an epoll instance")?,
            events: Events::with_capacity(EVENTS_MAX),
            clock,
            address,
            handshake,
            connections: Vec::new(),
            scratch: vec![0; 2 * FRAME_MAX],
            counts: Counts::default(),
            last_arrival: clock.nanos(),
        })
    }

    /// Connections that are open.
    pub(crate) fn open_count(&self) -> usize {
        self.counts.open
    }

    /// Whether each connection is open, by number.
    pub(crate) fn open_flags(&self) -> Vec<bool> {
        self.connections.iter().map(|connection| connection.stage() == Stage::Open).collect()
    }

    pub(crate) fn failures(&self) -> &Failures {
        &self.counts.failures
    }

    /// Opens `count` connections; returns when each is open or has failed.
    pub(crate) fn open(&mut self, count: usize, deadline: Deadline) -> anyhow::Result<()> {
        self.connections.reserve_exact(count);
        let total = self.connections.len() + count;
        while self.connections.len() < total || self.counts.opening > 0 {
            let Some(left) = deadline.left() else {
                self.give_up(total - self.connections.len());
                return Ok(());
            };
            while self.connections.len() < total && self.counts.opening < OPENING_MAX {
                self.connect();
            }
            self.turn(left, &mut Discard)?;
        }
        Ok(())
    }

    /// Keeps the connections alive until nothing has arrived for `quiet`; false when the deadline came first.
    pub(crate) fn settle(&mut self, quiet: Duration, deadline: Deadline) -> anyhow::Result<bool> {
        let quiet = u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX);
        // Silence before the wait does not count: the server may be about to speak.
        self.last_arrival = self.clock.nanos();
        loop {
            let silent = self.clock.nanos().saturating_sub(self.last_arrival);
            if silent >= quiet {
                return Ok(true);
            }
            let Some(left) = deadline.left() else { return Ok(false) };
            self.turn(left.min(Duration::from_nanos(quiet - silent)), &mut Discard)?;
        }
    }

    /// Closes all connections properly; what does not close in time is dropped.
    pub(crate) fn close(&mut self, deadline: Deadline) -> anyhow::Result<()> {
        for connection in &mut self.connections {
            let sent = if connection.stage() == Stage::Open { connection.close() } else { Ok(()) };
            if sent.is_err() || connection.stage() != Stage::Closing {
                connection.end();
            }
        }
        (self.counts.open, self.counts.opening) = (0, 0);
        while self.connections.iter().any(|connection| connection.stage() != Stage::Ended) {
            let Some(left) = deadline.left() else { break };
            self.turn(left, &mut Discard)?;
        }
        self.connections.clear();
        Ok(())
    }

    /// Waits for sockets, at most for `wait`, and serves those that are ready.
    pub(crate) fn turn(&mut self, wait: Duration, receiver: &mut impl Receiver) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait.min(WAIT_MAX))) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error).context("cannot wait for sockets"),
        }
        for event in &self.events {
            let Token(number) = event.token();
            let Some(connection) = self.connections.get_mut(number) else { continue };
            let before = connection.stage();
            let mut outcome = Ok(());
            if event.is_writable() {
                outcome = connection.writable(&self.handshake);
            }
            if outcome.is_ok() && event.is_readable() && connection.stage() != Stage::Connecting {
                self.last_arrival = self.clock.nanos();
                outcome = connection.readable(
                    &mut self.scratch,
                    event.is_read_closed(),
                    self.clock,
                    &self.handshake,
                    |message, at| receiver.message(number, message, at),
                );
            }
            let failure = outcome.err();
            if failure.is_some() {
                connection.end();
            }
            let after = connection.stage();
            self.counts.moved(before, after, failure);
        }
        Ok(())
    }

    fn connect(&mut self) {
        let number = self.connections.len();
        let opened = connect(self.address, source_address(self.address, number)).and_then(|mut socket| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(number), interest)?;
            Ok(Connection::new(socket))
        });
        match opened {
            Ok(connection) => {
                self.counts.opening += 1;
                self.connections.push(connection);
            }
            Err(error) => {
                self.counts.failures.add(Failure::socket("connecting", &error));
                self.connections.push(Connection::ended());
            }
        }
    }

    /// Fails whatever is not open, and the `unstarted` that were not even begun.
    fn give_up(&mut self, unstarted: usize) {
        for connection in &mut self.connections {
            if !matches!(connection.stage(), Stage::Open | Stage::Ended) {
                self.counts.failures.add(connection.overdue());
                connection.end();
            }
        }
        for _ in 0..unstarted {
            self.counts.failures.add(Failure::Deadline { while_doing: "waiting for its turn to connect" });
        }
        self.counts.opening = 0;
    }
}

/// Starts connecting, without waiting.
fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// From which address connection `number` comes. All of 127.0.0.0/8 is this machine, and each address of
/// it has ports of its own.
fn source_address(target: SocketAddr, number: usize) -> Option<IpAddr> {
    let group = number / PORTS_PER_SOURCE;
    match target.ip() {
        IpAddr::V4(ip) if ip.is_loopback() && group > 0 => {
            let last = u8::try_from(group + 1).unwrap_or(u8::MAX);
            Some(Ipv4Addr::new(127, 0, 0, last).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_sources_change_before_their_ports_run_out() {
        let local: SocketAddr = "127.0.0.1:8000".parse().unwrap();
        assert_eq!(source_address(local, 0), None);
        assert_eq!(source_address(local, PORTS_PER_SOURCE - 1), None);
        assert_eq!(source_address(local, PORTS_PER_SOURCE), Some(Ipv4Addr::new(127, 0, 0, 2).into()));
        let most = crate::options::CONNECTIONS_MAX as usize - 1;
        assert_eq!(source_address(local, most), Some(Ipv4Addr::new(127, 0, 0, 20).into()));
        assert_eq!(source_address("192.0.2.1:80".parse().unwrap(), most), None);
    }
}
