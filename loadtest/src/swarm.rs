//! All connections of a run, on one thread: opens them a few at a time, keeps them alive, hands their
//! messages to a receiver, closes them. `idle` and `fanout` drive it; it knows nothing of what they count.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::clock::{Clock, Deadline};
use crate::connection::{Connection, Discard, FRAME_MAX, Handshake, Reading, Receiver, Stage};
use crate::failure::{Failure, Failures};
use crate::inflate::Inflater;

/// Connections on their way at once: fewer than any listen backlog, so that none is turned away for haste.
pub(crate) const OPENING_MAX: usize = 256;
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
    /// Of the connections in turn.
    handshakes: Vec<Handshake>,
    /// Connections that may be on their way at once.
    opening_max: usize,
    connections: Vec<Connection>,
    /// Why a connection ended that should not have.
    ends: BTreeMap<usize, Failure>,
    reading: Reading,
    counts: Counts,
    /// When something last arrived.
    last_arrival: u64,
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy)]
struct Ready {
    writable: bool,
    readable: bool,
    ending: bool,
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
    fn moved(&mut self, before: Stage, after: Stage, failure: Option<&Failure>) {
        let opening = |stage| matches!(stage, Stage::Connecting | Stage::Upgrading | Stage::Opening);
        self.opening = self.opening + usize::from(opening(after)) - usize::from(opening(before));
        self.open = self.open + usize::from(after == Stage::Open) - usize::from(before == Stage::Open);
        // A close that breaks off is a close.
        if let Some(failure) = failure.filter(|_| before != Stage::Closing) {
            self.failures.add(failure.clone());
        }
    }
}

impl Swarm {
    /// `handshakes` are those of the connections, in turn.
    pub(crate) fn new(address: SocketAddr, handshakes: Vec<Handshake>, clock: Clock) -> anyhow::Result<Self> {
        ensure!(!handshakes.is_empty(), "connections need a handshake");
        Ok(Self {
            poll: Poll::new().context("cannot create an epoll instance")?,
            events: Events::with_capacity(EVENTS_MAX),
            clock,
            address,
            handshakes,
            opening_max: OPENING_MAX,
            connections: Vec::new(),
            ends: BTreeMap::new(),
            reading: Reading { scratch: vec![0; 2 * FRAME_MAX], inflater: Inflater::new(), clock, bytes: 0 },
            counts: Counts::default(),
            last_arrival: clock.nanos(),
        })
    }

    /// Connections that are open.
    pub(crate) fn open_count(&self) -> usize {
        self.counts.open
    }

    /// All connections, whether they are open or not.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// What the kernel holds for a connection that was not read; without end for one that is over.
    pub(crate) fn unread_bytes(&self, number: usize) -> anyhow::Result<usize> {
        let connection = self.connections.get(number).context("there is no such connection")?;
        connection.unread_bytes().context("cannot ask how much has arrived")
    }

    /// Whether each connection is open, by number.
    pub(crate) fn open_flags(&self) -> Vec<bool> {
        self.connections.iter().map(|connection| connection.stage() == Stage::Open).collect()
    }

    /// Why a connection ended that should not have.
    pub(crate) fn end_of(&self, number: usize) -> Option<&Failure> {
        self.ends.get(&number)
    }

    /// Bytes read so far, from all connections.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.reading.bytes
    }

    /// Compressed messages that differed from those before them.
    pub(crate) fn inflated(&self) -> u64 {
        self.reading.inflater.inflated()
    }

    /// How many connections may be on their way at once.
    pub(crate) fn set_opening_max(&mut self, count: usize) {
        self.opening_max = count;
    }

    /// What later connections say; as many as before.
    pub(crate) fn set_handshakes(&mut self, handshakes: Vec<Handshake>) {
        self.handshakes = handshakes;
    }

    pub(crate) fn failures(&self) -> &Failures {
        &self.counts.failures
    }

    /// Opens `count` connections; returns when each is open or has failed.
    pub(crate) fn open(
        &mut self,
        count: usize,
        deadline: Deadline,
        receiver: &mut impl Receiver,
    ) -> anyhow::Result<()> {
        self.connections.reserve_exact(count);
        let total = self.connections.len() + count;
        while self.connections.len() < total || self.counts.opening > 0 {
            let Some(left) = deadline.left() else {
                self.give_up(total - self.connections.len());
                return Ok(());
            };
            while self.connections.len() < total && self.counts.opening < self.opening_max {
                self.connect();
            }
            self.turn(left, receiver)?;
        }
        Ok(())
    }

    /// Ends every connection at once, as a cut network does, without a word to the server.
    pub(crate) fn cut(&mut self) {
        self.connections.clear();
        (self.counts.open, self.counts.opening) = (0, 0);
    }

    /// From now on connection `number` reads at most so many bytes, and reads them now; without a number it
    /// reads all there is, as before.
    pub(crate) fn allow(
        &mut self,
        number: usize,
        bytes: Option<usize>,
        receiver: &mut impl Receiver,
    ) -> anyhow::Result<()> {
        let connection = self.connections.get_mut(number).context("there is no such connection")?;
        connection.allow(bytes);
        if bytes != Some(0) {
            // The end may be behind what is there, and its notice has come and gone.
            self.serve(number, Ready { writable: false, readable: true, ending: true }, receiver);
        }
        Ok(())
    }

    /// Keeps the connections alive until nothing has arrived for `quiet`; false when the deadline came first.
    pub(crate) fn settle(
        &mut self,
        quiet: Duration,
        deadline: Deadline,
        receiver: &mut impl Receiver,
    ) -> anyhow::Result<bool> {
        let quiet = u64::try_from(quiet.as_nanos()).unwrap_or(u64::MAX);
        // Silence before the wait does not count: the server may be about to speak.
        self.last_arrival = self.clock.nanos();
        loop {
            let silent = self.clock.nanos().saturating_sub(self.last_arrival);
            if silent >= quiet {
                return Ok(true);
            }
            let Some(left) = deadline.left() else { return Ok(false) };
            self.turn(left.min(Duration::from_nanos(quiet - silent)), receiver)?;
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
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Token(number) = event.token();
            let ready = Ready {
                writable: event.is_writable(),
                readable: event.is_readable(),
                ending: event.is_read_closed(),
            };
            self.serve(number, ready, receiver);
        }
        self.events = events;
        Ok(())
    }

    fn serve(&mut self, number: usize, ready: Ready, receiver: &mut impl Receiver) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        let handshake = &self.handshakes[number % self.handshakes.len()];
        let before = connection.stage();
        let mut outcome = Ok(());
        if ready.writable {
            outcome = connection.writable(handshake);
        }
        if outcome.is_ok() && ready.readable && connection.stage() != Stage::Connecting {
            self.last_arrival = self.clock.nanos();
            outcome = connection.readable(&mut self.reading, ready.ending, handshake, |message, at| {
                receiver.message(number, message, at);
            });
        }
        let opened = before != Stage::Open && connection.stage() == Stage::Open;
        let recovered = connection.recovered();
        let failure = outcome.err();
        if failure.is_some() {
            connection.end();
        }
        self.counts.moved(before, connection.stage(), failure.as_ref());
        if let Some(failure) = failure {
            self.ends.insert(number, failure);
        }
        if opened {
            receiver.opened(number, recovered, self.clock.nanos());
        }
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
            self.connections.push(Connection::ended());
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
    use crate::connection::Discard;
    use crate::names::Channels;
    use crate::peer::Dialect;

    #[test]
    fn whoever_found_no_time_to_connect_has_a_number_all_the_same() {
        let channels = Channels::one("tasks".parse().unwrap(), "task_event".parse().unwrap());
        let socket = "ws://127.0.0.1:1/socket".parse().unwrap();
        let handshakes = channels.handshakes(&socket, Dialect::Contract, "", "");
        let address = "127.0.0.1:1".parse().unwrap();
        let mut swarm = Swarm::new(address, handshakes, Clock::start()).unwrap();
        swarm.open(3, Deadline::after(Duration::ZERO), &mut Discard).unwrap();
        assert_eq!((swarm.open_flags(), swarm.failures().total()), (vec![false; 3], 3));
    }

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
