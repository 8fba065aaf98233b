//! The floor: a server that accepts any WebSocket handshake and writes each publication to every socket in
//! a plain loop, encoded once. It does nothing that a real server must do, so its CPU per delivery is the
//! cost of `send` itself on this machine. `fanout --floor` runs it as a child process; it is no server for
//! anybody else (it does not answer the handshake's key).

mod answer;
mod child;

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::Context as _;
use hiveops_proto::SubscriptionName;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::Outcome;
use crate::clock::Deadline;
use crate::http::HEAD_MAX;
use crate::options::seconds;
use crate::process::raise_file_limit;
use crate::wire::{Opcode, next_frame, server_frame};
pub(crate) use answer::LISTENING;
use answer::Request;
pub(crate) use answer::Responder;
pub(crate) use child::FloorProcess;

/// The most connections the floor prepares for, within the hard file limit.
const CONNECTIONS: u64 = 16_384;
/// Bytes that wait for one socket before it is dropped: the reader is gone or hopeless.
const OUTGOING_MAX: usize = 16 * 1024 * 1024;
/// The longest request with its body.
const REQUEST_MAX: usize = HEAD_MAX + 2 * 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 1024;

const LISTENER: Token = Token(usize::MAX - 1);
const STDIN: Token = Token(usize::MAX - 2);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Address to listen on; port 0 takes a free one and prints it
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// When to end at the latest
    #[arg(long, default_value = "3600", value_parser = seconds)]
    seconds: Duration,
    /// End when the standard input, a pipe, is closed
    #[arg(long)]
    until_stdin_closes: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    // Whoever starts the floor by hand may have fewer files and fewer connections in mind.
    if let Err(error) = raise_file_limit(CONNECTIONS) {
        eprintln!("note: {error:#}");
    }
    let mut floor = Floor::bind(arguments.listen)?;
    if arguments.until_stdin_closes {
        let stdin = io::stdin().as_raw_fd();
        let registry = floor.poll.registry();
        registry
            .register(&mut SourceFd(&stdin), STDIN, Interest::READABLE)
            .context("the standard input is not a pipe (--until-stdin-closes)")?;
    }
    println!("{LISTENING}{}", floor.address);
    floor.serve(Deadline::after(arguments.seconds))?;
    Ok(Outcome::Clean)
}

/// The server: one thread, one loop.
struct Floor {
    poll: Poll,
    listener: TcpListener,
    address: SocketAddr,
    peers: Slab<Peer>,
    /// The peers of each subscription.
    subscribers: BTreeMap<SubscriptionName, Vec<usize>>,
    responder: Responder,
    scratch: Vec<u8>,
}

/// One connection.
struct Peer {
    socket: TcpStream,
    /// Whether its handshake was answered.
    upgraded: bool,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Floor {
    fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let poll = Poll::new().context("cannot create an epoll instance")?;
        let mut listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address} (--listen)"))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let address = listener.local_addr()?;
        let scratch = vec![0; READ_BYTES];
        Ok(Self {
            poll,
            listener,
            address,
            peers: Slab::new(),
            subscribers: BTreeMap::new(),
            responder: Responder::new(),
            scratch,
        })
    }

    fn serve(&mut self, deadline: Deadline) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while let Some(left) = deadline.left() {
            match self.poll.poll(&mut events, Some(left)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot wait for sockets"),
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    // What the pipe says is not even read; only its end means something.
                    STDIN if event.is_read_closed() => return Ok(()),
                    STDIN => {}
                    Token(number) => self.ready(number, event),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("cannot accept connections"),
            };
            if socket.set_nodelay(true).is_err() {
                // It ended before it was taken.
                continue;
            }
            let place = self.peers.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(place.key()), interest)?;
            place.insert(Peer { socket, upgraded: false, incoming: Vec::new(), outgoing: Vec::new() });
        }
    }

    fn ready(&mut self, number: usize, event: &mio::event::Event) {
        let Some(peer) = self.peers.get_mut(number) else { return };
        let mut alive = !event.is_writable() || peer.flush();
        if alive && event.is_readable() {
            alive = peer.read(&mut self.scratch) && self.take(number);
        }
        if !alive {
            self.remove(number);
        }
    }

    /// Serves what `number` has sent; false when the connection is over.
    fn take(&mut self, number: usize) -> bool {
        loop {
            let Some(peer) = self.peers.get_mut(number) else { return false };
            if peer.upgraded {
                return peer.take_frames();
            }
            let Some((request, used)) = Request::parse(&peer.incoming) else {
                return peer.incoming.len() <= REQUEST_MAX;
            };
            peer.incoming.drain(..used);
            match request {
                Request::Upgrade { path } => {
                    peer.upgraded = true;
                    let (answer, subscriptions) = self.responder.upgraded(&path);
                    for name in subscriptions.iter() {
                        self.subscribers.entry(name.clone()).or_default().push(number);
                    }
                    if !peer.send(&answer) {
                        return false;
                    }
                }
                Request::Publish { subscription, message_type, data } => {
                    let publication = self.responder.publication(subscription.clone(), message_type, data);
                    let frame = server_frame(Opcode::Text, publication.frame.as_bytes());
                    let reached = self.fan_out(&subscription, &frame);
                    let answer = self.responder.published(&publication, reached);
                    let Some(peer) = self.peers.get_mut(number) else { return false };
                    if !peer.send(&answer) {
                        return false;
                    }
                }
                Request::Other => return peer.send(Responder::NOT_FOUND) && peer.outgoing.is_empty(),
            }
        }
    }

    /// The loop that is measured.
    fn fan_out(&mut self, subscription: &SubscriptionName, frame: &[u8]) -> u64 {
        let mut reached = 0;
        for number in self.subscribers.get(subscription).into_iter().flatten() {
            let Some(peer) = self.peers.get_mut(*number) else { continue };
            // One that fails is removed when its own event says so.
            reached += u64::from(peer.send(frame));
        }
        reached
    }

    fn remove(&mut self, number: usize) {
        if self.peers.try_remove(number).is_some() {
            // The number will be another's, and that is not measured.
            for subscribers in self.subscribers.values_mut() {
                subscribers.retain(|subscriber| *subscriber != number);
            }
        }
    }
}

impl Peer {
    /// Reads all there is; false when the peer is gone.
    fn read(&mut self, scratch: &mut [u8]) -> bool {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return false,
                Ok(count) => self.incoming.extend_from_slice(&scratch[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.incoming.len() > REQUEST_MAX {
                return false;
            }
        }
    }

    /// A client that closes is answered and dropped; whatever else it says is of no interest.
    fn take_frames(&mut self) -> bool {
        let mut used = 0;
        loop {
            match next_frame(&self.incoming[used..], READ_BYTES) {
                Ok(Some((frame, _))) if frame.opcode == Opcode::Close => {
                    self.send(&server_frame(Opcode::Close, &[]));
                    return false;
                }
                Ok(Some((_, length))) => used += length,
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        self.incoming.drain(..used);
        true
    }

    /// Writes at once what the socket takes, and keeps the rest.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut written = 0;
        while self.outgoing.is_empty() && written < bytes.len() {
            match self.socket.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        self.outgoing.extend_from_slice(&bytes[written..]);
        self.outgoing.len() <= OUTGOING_MAX
    }

    fn flush(&mut self) -> bool {
        if self.outgoing.is_empty() {
            return true;
        }
        let waiting = std::mem::take(&mut self.outgoing);
        self.send(&waiting)
    }
}
