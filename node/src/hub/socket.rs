//! A socket as its shard uses it: plain, or with TLS that this node ends.
//!
//! Whoever holds one reads and writes what the peer means. For TLS it drives rustls, which does no IO itself, over the
//! same non-blocking socket. What it may hold of what is to leave is one piece of [`PIECE_BYTES`], encrypted and cut
//! off by a full socket; as long as some of that waits, it takes nothing more, as a socket that is full.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd};

use mio::net::TcpStream;
use rustls::ServerConnection;

/// What is encrypted at a time: enough that a snapshot takes few system calls, and little beside an outbox. A frame
/// counts as sent when the last of it is in such a piece, so that a slow peer is noticed at most this much later.
const PIECE_BYTES: usize = 64 * 1_024;

/// Times that TLS reads its socket for one turn of its reader. Records without content would keep the shard otherwise.
const READS_MAX: usize = 32;

/// A plain socket is its descriptor and nothing else.
pub(super) struct Socket {
    tcp: TcpStream,
    /// Boxed, so that a plain one costs a pointer.
    tls: Option<Box<Tls>>,
}

struct Tls {
    connection: ServerConnection,
    end: End,
}

/// Whether our direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The socket's direction is shut once all has left.
    Due,
    Shut,
}

impl Socket {
    pub(super) fn new(socket: std::net::TcpStream, tls: Option<Box<ServerConnection>>) -> Self {
        let tls = tls.map(|mut connection| {
            connection.set_buffer_limit(Some(PIECE_BYTES));
            Box::new(Tls { connection: *connection, end: End::Open })
        });
        Self { tcp: TcpStream::from_std(socket), tls }
    }

    /// What a poll watches.
    pub(super) fn source(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// The descriptor that frames may be written to as they are; none for TLS.
    pub(super) fn plain(&self) -> Option<BorrowedFd<'_>> {
        self.tls.is_none().then(|| self.tcp.as_fd())
    }

    /// Whether less than was asked for means that nothing more is there.
    pub(super) fn gives_all(&self) -> bool {
        self.tls.is_none()
    }

    /// Reads what the peer sent; nothing at its end, whether it took leave or not. `Interrupted` means that there is
    /// more to look at.
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.read(buffer),
            Some(tls) => tls.read(&mut self.tcp, buffer),
        }
    }

    /// Writes what the socket takes now; less than all means that it will say when it takes more.
    #[inline]
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            None => write_plain(&mut self.tcp, slices),
            Some(tls) => tls.write(&mut self.tcp, slices),
        }
    }

    /// Writes what was taken earlier and waits here; the socket has said that it takes more.
    #[inline]
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => tls.flush(&mut self.tcp).map(drop),
        }
    }

    /// Ends our direction behind everything that was written. TLS says so itself before.
    pub(super) fn shut_down_write(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => self.tcp.shutdown(Shutdown::Write),
            Some(tls) => {
                if tls.end == End::Open {
                    tls.connection.send_close_notify();
                    tls.end = End::Due;
                }
                tls.flush(&mut self.tcp).map(drop)
            }
        }
    }
}

fn write_plain(socket: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        let written = if let [slice] = slices { socket.write(slice) } else { socket.write_vectored(slices) };
        match written {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            result => return result,
        }
    }
}

impl Tls {
    fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        for _ in 0..READS_MAX {
            // What was read along with the handshake comes first.
            while filled < buffer.len() {
                match self.connection.reader().read(&mut buffer[filled..]) {
                    Ok(0) => return Ok(filled),
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // Frames have lengths of their own: an end without a word hides nothing.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(filled),
                    Err(error) => return Err(error),
                }
            }
            if filled == buffer.len() {
                return Ok(filled);
            }
            match self.receive(socket) {
                Ok(()) => {}
                // It says the same when it is asked the next time, whether or not more has come.
                Err(_) if filled > 0 => return Ok(filled),
                Err(error) => return Err(error),
            }
        }
        if filled > 0 { Ok(filled) } else { Err(ErrorKind::Interrupted.into()) }
    }

    /// Takes some of what the socket has, and answers what TLS itself asks.
    fn receive(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let read = self.connection.read_tls(socket);
        // Also when nothing came: what was wrong behind good data is said here, and not by the socket.
        let understood = self.connection.process_new_packets();
        // After an error this is the alert, which a peer that is still there gets to see.
        let flushed = self.flush(socket);
        understood.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        match read {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            Ok(_) | Err(_) => flushed.map(drop),
        }
    }

    fn write(&mut self, socket: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(socket)? {
            return Ok(0);
        }
        let mut slices = slices.to_vec();
        let (mut rest, mut taken) = (&mut slices[..], 0);
        while !rest.is_empty() {
            let count = self.connection.writer().write_vectored(rest)?;
            taken += count;
            IoSlice::advance_slices(&mut rest, count);
            if !self.flush(socket)? || count == 0 {
                break;
            }
        }
        Ok(taken)
    }

    /// Whether the socket has taken all that was encrypted.
    fn flush(&mut self, socket: &mut TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if self.end == End::Due {
            self.end = End::Shut;
            socket.shutdown(Shutdown::Write)?;
        }
        Ok(true)
    }
}
