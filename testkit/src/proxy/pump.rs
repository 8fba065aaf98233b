//! One direction of one connection: it reads, keeps what is not due, and writes.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::time::Instant;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::counters::{Way, add};
use super::fault::Fault;
use super::schedule::Schedule;

const READ_BYTES: usize = 16_384;

pub(super) struct Pump<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    fault: watch::Receiver<Fault>,
    schedule: Schedule,
    /// The sender will send no more.
    finished: bool,
    buffer: Vec<u8>,
    way: &'a Way,
}

/// Why a fault is no longer what decides.
enum Next {
    Changed,
    Ended,
}

impl<'a> Pump<'a> {
    pub(super) fn new(
        from: &'a TcpStream,
        to: &'a TcpStream,
        fault: watch::Receiver<Fault>,
        way: &'a Way,
        seed: u64,
    ) -> Self {
        let schedule = Schedule::new(seed);
        Self { from, to, fault, schedule, finished: false, buffer: vec![0; READ_BYTES], way }
    }

    /// Until the sender has ended and everything is passed on, or a socket fails. Who runs this drops it for
    /// a reset.
    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            let fault = *self.fault.borrow_and_update();
            let next = match fault {
                Fault::Blackhole => self.hold().await?,
                Fault::HalfClose => self.half_close().await?,
                Fault::Reset => self.changed().await,
                Fault::Pass
                | Fault::Delay(_)
                | Fault::Jitter { .. }
                | Fault::Rate { .. }
                | Fault::Slice { .. }
                | Fault::Refuse => self.forward(fault).await?,
            };
            match next {
                Next::Changed => self.schedule.release(Instant::now()),
                Next::Ended => return Ok(()),
            }
        }
    }

    async fn forward(&mut self, fault: Fault) -> io::Result<Next> {
        loop {
            if self.finished && self.schedule.is_empty() {
                self.shut_down()?;
                return Ok(Next::Ended);
            }
            // Every arm only waits, so that nothing is lost with those that are dropped.
            tokio::select! {
                biased;
                changed = self.fault.changed() => return Ok(next(changed)),
                writable = due(&self.schedule, self.to) => {
                    writable?;
                    self.write()?;
                    // Lets the receiver read one slice before the next comes.
                    tokio::task::yield_now().await;
                }
                readable = self.from.readable(), if !self.finished && self.schedule.has_room() => {
                    readable?;
                    if let Some(length) = self.read()? {
                        self.schedule.push(fault, &self.buffer[..length], Instant::now());
                    }
                }
            }
        }
    }

    /// Reads nothing and writes nothing, and counts once if there is anything to be held: bytes, or the end
    /// of the sender, even a bad one.
    async fn hold(&mut self) -> io::Result<Next> {
        let mut held = Ok(0);
        if self.schedule.is_empty() {
            let mut byte = [0];
            tokio::select! {
                biased;
                changed = self.fault.changed() => return Ok(next(changed)),
                peeked = self.from.peek(&mut byte), if !self.finished => held = peeked,
            }
        }
        add(&self.way.stalls, 1);
        let changed = self.changed().await;
        held.map(|_| changed)
    }

    async fn half_close(&mut self) -> io::Result<Next> {
        add(&self.way.bytes_dropped, self.schedule.clear());
        self.shut_down()?;
        add(&self.way.half_closes, 1);
        while !self.finished {
            self.from.readable().await?;
            if let Some(length) = self.read()? {
                add(&self.way.bytes_dropped, length);
            }
        }
        Ok(Next::Ended)
    }

    async fn changed(&mut self) -> Next {
        next(self.fault.changed().await)
    }

    /// How much is in the buffer now; none when there was nothing, or the sender has ended.
    fn read(&mut self) -> io::Result<Option<usize>> {
        match self.from.try_read(&mut self.buffer) {
            Ok(0) => {
                self.finished = true;
                Ok(None)
            }
            Ok(length) => {
                add(&self.way.bytes_read, length);
                Ok(Some(length))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(piece) = self.schedule.front() else { return Ok(()) };
        match self.to.try_write(&piece.bytes) {
            Ok(length) => {
                if piece.delayed {
                    add(&self.way.bytes_delayed, length);
                }
                if piece.sliced {
                    add(&self.way.slices, 1);
                }
                self.schedule.written(length);
                add(&self.way.bytes_written, length);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn shut_down(&self) -> io::Result<()> {
        match SockRef::from(self.to).shutdown(Shutdown::Write) {
            // The receiver has gone already.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            result => result,
        }
    }
}

/// Until the first piece is due and there is room for it; for ever when there is none.
async fn due(schedule: &Schedule, to: &TcpStream) -> io::Result<()> {
    let Some(piece) = schedule.front() else { return std::future::pending().await };
    if piece.due > Instant::now() {
        tokio::time::sleep_until(piece.due.into()).await;
    }
    to.writable().await
}

/// The controls go away with the proxy.
fn next(changed: Result<(), watch::error::RecvError>) -> Next {
    if changed.is_ok() { Next::Changed } else { Next::Ended }
}
