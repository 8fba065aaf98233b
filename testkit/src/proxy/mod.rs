//! A TCP proxy on loopback that does to a connection what networks do: it delays, slows down, holds, cuts,
//! resets and refuses, when it is told to. Tests and the chaos run put it between two programs.
//!
//! It counts what it really did, so that a run in which a planned fault did not happen can fail. It knows
//! nothing about what is said over the connections.

mod connection;
mod counters;
mod fault;
mod listener;
mod pump;
mod schedule;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::sync::watch;

use self::counters::Counters;
pub use self::counters::Counts;
pub use self::fault::{Direction, Fault};
use crate::port::Port;
use crate::wait::{PATIENCE, wait_for_some};

/// A proxy in front of one address. It ends, and all its connections with it, when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    port: Port,
    controls: Arc<Controls>,
    thread: Option<JoinHandle<()>>,
}

/// What the proxy's thread is told.
#[derive(Debug)]
struct Controls {
    to_server: watch::Sender<Fault>,
    to_client: watch::Sender<Fault>,
    upstream: watch::Sender<SocketAddr>,
    stopping: watch::Sender<bool>,
    counters: Counters,
    seed: u64,
}

impl FaultProxy {
    /// Without a fault. The seed decides jitter and slices, by the order in which connections come.
    pub fn start(upstream: SocketAddr, seed: u64) -> Result<Self> {
        let port = Port::claim()?;
        let listener = TcpListener::bind(port.addr()).context("the proxy's port")?;
        listener.set_nonblocking(true)?;
        let controls = Arc::new(Controls {
            to_server: watch::Sender::new(Fault::Pass),
            to_client: watch::Sender::new(Fault::Pass),
            upstream: watch::Sender::new(upstream),
            stopping: watch::Sender::new(false),
            counters: Counters { listening: true.into(), ..Counters::default() },
            seed,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (addr, shared) = (port.addr(), Arc::clone(&controls));
        let thread = std::thread::Builder::new().name("faultproxy".to_owned());
        let thread = thread.spawn(move || runtime.block_on(listener::run(listener, addr, shared)))?;
        Ok(Self { port, controls, thread: Some(thread) })
    }

    /// Where it listens, for as long as it lives.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// From now on, for connections that are open and those to come, until something else is set. What was
    /// due later under the fault before is due at once.
    pub fn set(&self, direction: Direction, fault: Fault) {
        if direction != Direction::ToClient {
            self.controls.to_server.send_replace(fault);
        }
        if direction != Direction::ToServer {
            self.controls.to_client.send_replace(fault);
        }
    }

    /// No fault in either direction.
    pub fn heal(&self) {
        self.set(Direction::Both, Fault::Pass);
    }

    /// Where connections to come are led.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.controls.upstream.send_replace(upstream);
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.controls.counters.read()
    }

    /// Waits until what has happened satisfies the condition.
    pub fn wait_for(&self, what: &str, holds: impl Fn(&Counts) -> bool) -> Result<()> {
        let waited = wait_for_some(what, PATIENCE, || Ok(holds(&self.counts()).then_some(())));
        waited.with_context(|| format!("the proxy has {:?}", self.counts()))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.controls.stopping.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic in it has been printed already.
            let _ = thread.join();
        }
    }
}
