//! What can be done to connections.

use std::time::Duration;

/// Which bytes a fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
    Both,
}

/// What happens to the bytes of one direction, or to the connections they are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// None.
    Pass,
    /// Every byte arrives this much later. More bytes may be on the way meanwhile.
    Delay(Duration),
    /// Every read is delayed by something between nothing and this; order is kept.
    Jitter { max: Duration },
    /// At most so many bytes arrive in a second.
    Rate { bytes_per_second: u64 },
    /// Nothing is read any more: what is sent piles up in the sender's kernel, as when packets are lost. It
    /// flows on later. New connections are accepted and held; towards the server they are not even begun.
    Blackhole,
    /// The receiver is told that nothing more will come; what the sender sends is thrown away. The other
    /// direction goes on. A connection does not recover from it.
    HalfClose,
    /// Both ends of every connection are reset, in whichever direction it is set.
    Reset,
    /// Bytes arrive in pieces of a random length, this one at most.
    Slice { max_bytes: usize },
    /// Nobody listens, in whichever direction it is set. Open connections go on.
    Refuse,
}
