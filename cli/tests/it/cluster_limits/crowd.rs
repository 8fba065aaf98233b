//! Many clients that want in and keep trying, and the count of those who are in, as they see it themselves.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hiveops_testkit::wait::wait_for_some;
use tokio_tungstenite::tungstenite::{self, Error, Message, WebSocket};

/// Between two tries of a client that was turned away; new places are found by others meanwhile.
const PAUSE: Duration = Duration::from_millis(1_000);

/// Between two looks at whether to stop.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// The kernel's stack of a thread that only reads frames.
const STACK_BYTES: usize = 256 * 1_024;

pub(super) struct Crowd {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    urls: Vec<String>,
    /// Nodes that nobody tries any more.
    dead: Vec<AtomicBool>,
    counts: Mutex<Counts>,
    attempts: AtomicU64,
    stop: (Mutex<bool>, Condvar),
}

#[derive(Default)]
struct Counts {
    live: u64,
    most: u64,
    /// Clients that are out, and were told why.
    denied: u64,
    reasons: BTreeMap<String, u64>,
}

impl Crowd {
    /// So many clients, spread over the nodes.
    pub(super) fn new(urls: &[String], clients: usize) -> Self {
        let shared = Arc::new(Shared {
            urls: urls.to_vec(),
            dead: urls.iter().map(|_| AtomicBool::new(false)).collect(),
            counts: Mutex::default(),
            attempts: AtomicU64::new(0),
            stop: Default::default(),
        });
        let client = |index: usize| {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn(move || shared.client(index)).unwrap()
        };
        let threads = Mutex::new((0..clients).map(client).collect());
        Self { shared, threads }
    }

    pub(super) fn live(&self) -> u64 {
        self.shared.counts.lock().unwrap().live
    }

    /// The most that were in at once.
    pub(super) fn most(&self) -> u64 {
        self.shared.counts.lock().unwrap().most
    }

    pub(super) fn attempts(&self) -> u64 {
        self.shared.attempts.load(Ordering::SeqCst)
    }

    pub(super) fn reasons(&self) -> BTreeMap<String, u64> {
        self.shared.counts.lock().unwrap().reasons.clone()
    }

    /// Nobody tries this node any more.
    pub(super) fn lost_node(&self, index: usize) {
        self.shared.dead[index].store(true, Ordering::SeqCst);
    }

    pub(super) fn await_live(&self, live: u64, patience: Duration) {
        let what = format!("{live} clients that are in");
        let reached = wait_for_some(&what, patience, || Ok((self.live() == live).then_some(())));
        reached.unwrap_or_else(|error| panic!("{error}: {} are, {:?}", self.live(), self.reasons()));
    }

    pub(super) fn await_denied(&self, denied: u64, patience: Duration) {
        let told = || self.shared.counts.lock().unwrap().denied;
        wait_for_some("everybody else to be told", patience, || Ok((told() == denied).then_some(())))
            .unwrap();
    }

    /// Everybody leaves.
    pub(super) fn stop(&self) {
        *self.shared.stop.0.lock().unwrap() = true;
        self.shared.stop.1.notify_all();
        self.threads.lock().unwrap().drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        *self.shared.stop.0.lock().unwrap() = true;
        self.shared.stop.1.notify_all();
    }
}

impl Shared {
    fn client(&self, index: usize) {
        let mut was_denied = false;
        for attempt in 0.. {
            if *self.stop.0.lock().unwrap() {
                return;
            }
            let node = (index + attempt) % self.urls.len();
            if self.dead[node].load(Ordering::SeqCst) {
                continue;
            }
            self.attempts.fetch_add(1, Ordering::SeqCst);
            let Some(mut socket) = connect(&self.urls[node]) else {
                self.pause();
                continue;
            };
            let was_in = self.stay(&mut socket, &mut was_denied);
            if !was_in {
                self.pause();
            }
        }
    }

    /// Reads until the session ends; false when there was none.
    fn stay(&self, socket: &mut WebSocket<TcpStream>, was_denied: &mut bool) -> bool {
        let mut is_in = false;
        let reason = loop {
            match socket.read() {
                Ok(Message::Text(text)) => {
                    if !is_in && text.contains("\"connection_established\"") {
                        is_in = true;
                        self.counts.lock().unwrap().enter(std::mem::take(was_denied));
                    }
                }
                Ok(Message::Close(frame)) => {
                    break frame.map_or("none".to_owned(), |frame| {
                        format!("{} {}", u16::from(frame.code), frame.reason)
                    });
                }
                Ok(_) => {}
                Err(Error::Io(error)) if is_timeout(&error) => {
                    if *self.stop.0.lock().unwrap() {
                        break "stopped".to_owned();
                    }
                }
                Err(_) => break "broken".to_owned(),
            }
        };
        let mut counts = self.counts.lock().unwrap();
        if reason != "stopped" {
            *counts.reasons.entry(reason).or_default() += 1;
        }
        if is_in {
            counts.live -= 1;
        } else if !std::mem::replace(was_denied, true) {
            counts.denied += 1;
        }
        drop(counts);
        // The answer to a close frame; the node waits for it.
        let _ = socket.flush();
        is_in
    }

    fn pause(&self) {
        let stopped = self.stop.0.lock().unwrap();
        let _unless = self.stop.1.wait_timeout_while(stopped, PAUSE, |stopped| !*stopped).unwrap();
    }
}

impl Counts {
    fn enter(&mut self, was_denied: bool) {
        self.live += 1;
        self.most = self.most.max(self.live);
        self.denied -= u64::from(was_denied);
    }
}

fn connect(url: &str) -> Option<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(url.strip_prefix("http://")?).ok()?;
    stream.set_nodelay(true).ok()?;
    // The handshake waits for a place; a read that is cut short there would be the end of it.
    stream.set_read_timeout(Some(hiveops_testkit::wait::PATIENCE)).ok()?;
    let request =
        format!("{}/api/dashboard/ws/dashboard?subscriptions=tasks", url.replace("http://", "ws://"));
    let (socket, _) = tungstenite::client(request, stream).ok()?;
    socket.get_ref().set_read_timeout(Some(READ_TIMEOUT)).ok()?;
    Some(socket)
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
