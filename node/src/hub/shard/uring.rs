//! Sends of a fan-out through io_uring: one system call for up to [`SENDS_MAX`] sockets.
//!
//! The one place of this repository with unsafe code. Nothing is kept for the kernel beyond a call: every
//! send has completed when [`Ring::send`] returns.

#![expect(unsafe_code, reason = "the kernel is given addresses of frames")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// Sends that are given to the kernel at a time. More make none of them cheaper, and keep the thread in the
/// kernel for longer: on a busy machine what is to be published next waits that long for a core.
pub(super) const SENDS_MAX: usize = 32;

/// Times that the kernel is asked again after an error that should pass; then the sockets are written to one
/// by one.
const ATTEMPTS_MAX: usize = 8;

/// What became of one send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The socket took so many bytes; none when it is full.
    Bytes(usize),
    /// The connection is broken.
    Broken,
    /// The kernel was not asked.
    NotTried,
}

/// A ring of the thread that made it.
pub(super) struct Ring {
    ring: IoUring,
}

impl Ring {
    /// An error where the kernel, or what guards it, has no such thing.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_submit_all()
            .build(SENDS_MAX as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring cannot send"));
        }
        Ok(Self { ring })
    }

    /// Sends the same bytes to each socket, at most [`SENDS_MAX`] of them; none of them may be a blocking
    /// one. What became of each is in `sent`, in their order.
    pub(super) fn send(
        &mut self,
        sockets: &[BorrowedFd<'_>],
        bytes: &[u8],
        sent: &mut Vec<Sent>,
    ) -> io::Result<()> {
        sent.clear();
        sent.resize(sockets.len(), Sent::NotTried);
        let mut queue = self.ring.submission();
        for (at, socket) in (0_u64..).zip(sockets) {
            let entry = entry(*socket, bytes).user_data(at);
            // SAFETY: what the entry points to, `bytes`, is borrowed until this
            // function returns. By then the entry has completed, or was taken back with the whole queue.
            let pushed = unsafe { queue.push(&entry) };
            if pushed.is_err() {
                break;
            }
        }
        let pushed = queue.len();
        drop(queue);
        let (mut completed, mut attempts) = (0, 0);
        while completed < pushed {
            let result = self.ring.submit_and_wait(pushed - completed);
            completed += self.reap(sent);
            match result {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    attempts += 1;
                    let waiting = self.ring.submission().len();
                    // All that the kernel has taken is done; the rest it will not take.
                    if attempts >= ATTEMPTS_MAX && pushed - completed == waiting {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the completions that are there, and says how many that were.
    fn reap(&mut self, sent: &mut [Sent]) -> usize {
        let mut count = 0;
        for completion in self.ring.completion() {
            count += 1;
            let place = usize::try_from(completion.user_data()).ok().and_then(|at| sent.get_mut(at));
            if let Some(place) = place {
                *place = outcome(completion.result());
            }
        }
        count
    }
}

fn entry(socket: BorrowedFd<'_>, bytes: &[u8]) -> squeue::Entry {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    // That the socket does not block is not enough: the kernel would wait for it by itself.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let fd = types::Fd(socket.as_raw_fd());
    opcode::Send::new(fd, bytes.as_ptr(), len).flags(flags.bits().cast_signed()).build()
}

fn outcome(result: i32) -> Sent {
    match usize::try_from(result) {
        Ok(bytes) => Sent::Bytes(bytes),
        Err(_) => match Errno::from_raw_os_error(-result) {
            Errno::AGAIN => Sent::Bytes(0),
            Errno::INTR => Sent::NotTried,
            _ => Sent::Broken,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;

    /// A socket of ours that does not block, and its peer.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, peer)
    }

    fn send(ring: &mut Ring, sockets: &[&TcpStream], bytes: &[u8]) -> Vec<Sent> {
        let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
        let mut sent = Vec::new();
        ring.send(&sockets, bytes, &mut sent).unwrap();
        sent
    }

    #[test]
    fn every_socket_gets_all_in_order_and_the_outcomes_are_theirs() {
        let mut ring = Ring::new().expect("a machine that tests this has io_uring");
        let (mut pairs, full) = ((0..SENDS_MAX - 1).map(|_| pair()).collect::<Vec<_>>(), pair());
        let junk = vec![0; 1 << 20];
        while send(&mut ring, &[&full.0], &junk) != [Sent::Bytes(0)] {}
        let mut sockets: Vec<&TcpStream> = pairs.iter().map(|(ours, _)| ours).collect();
        sockets.insert(7, &full.0);
        for bytes in [&b"one"[..], b"twothree"] {
            let sent = send(&mut ring, &sockets, bytes);
            let len = bytes.len();
            for (at, sent) in sent.into_iter().enumerate() {
                assert_eq!(sent, Sent::Bytes(if at == 7 { 0 } else { len }), "{at}");
            }
        }
        for (_, peer) in &mut pairs {
            let mut text = [0; 11];
            peer.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"onetwothree");
        }
        assert_eq!(send(&mut ring, &[], b"x"), []);
    }

    #[test]
    fn a_socket_that_takes_a_part_says_so_and_a_broken_one_too() {
        let mut ring = Ring::new().unwrap();
        let (partial, broken) = (pair(), pair());
        socket2::SockRef::from(&broken.1).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(broken.1);
        let large = vec![7; 64 << 20];
        for _ in 0..2 {
            let sent = send(&mut ring, &[&partial.0, &broken.0], &large);
            assert!(matches!(sent[0], Sent::Bytes(bytes) if bytes < large.len()), "{sent:?}");
            assert_eq!(sent[1], Sent::Broken);
        }
    }
}
