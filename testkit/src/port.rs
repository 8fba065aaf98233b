//! A loopback port that stays ours while its server is killed and started again.
//!
//! A port that the kernel hands out is no good for that: while the server is dead, any outgoing connection
//! on the machine may be given it, even the client's own attempt to reconnect, which then talks to itself.
//! These come from below the range of outgoing connections, and a lock keeps other tests away from them.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

/// Below the outgoing ports of Linux, which begin at 32,768, and above the well-known ones.
const RANGE: Range<u16> = 10_000..32_000;

/// A claim on a port of 127.0.0.1, until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Held for its lock, which the kernel takes back when this process ends in any way.
    _lock: File,
}

impl Port {
    pub fn claim() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let directory = std::env::temp_dir().join("hiveops-testkit-ports");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let width = u32::from(RANGE.end - RANGE.start);
        // Test binaries that run at the same time begin at different places.
        let start = std::process::id().wrapping_mul(7_919);
        for _ in 0..width {
            let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % width;
            let number = RANGE.start + u16::try_from(offset)?;
            let path = directory.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            match lock.try_lock() {
                Ok(()) if is_free(number) => return Ok(Self { number, _lock: lock }),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).context("cannot lock a port"),
            }
        }
        bail!("no port of {RANGE:?} is free")
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// Nobody listens there, in whatever way they came by it.
fn is_free(number: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_claimed_once_at_a_time() {
        let ports: Vec<Port> = (0..50).map(|_| Port::claim().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(numbers.iter().all(|number| RANGE.contains(number)));
    }
}
