//! The network between replicas and to clients: requests and answers as over HTTP, each way with its own delay
//! and its own faults. What comes out of a replica is what its router answers.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use super::chance::Seeded;
use super::history::History;
use super::process::{Process, spawn};
use crate::wire::{APPEND, Lost, LostKind, SNAPSHOT, VOTE};

/// A connection that gets no answer is given up after this.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Lines of a stream that are under way at once.
const LINES_MAX: usize = 64;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Net {
    inner: Arc<Mutex<Inner>>,
    chance: Seeded,
    history: History,
}

#[derive(Debug, Default)]
struct Inner {
    /// Who listens.
    nodes: BTreeMap<u64, (Router, Process)>,
    /// Ways on which nothing arrives.
    cut: BTreeSet<(u64, u64)>,
    weather: Weather,
}

/// How bad it is at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// A message takes so long at most.
    pub(crate) delay_ms: u64,
    /// So many of a thousand take much longer.
    pub(crate) late: u64,
    /// So many of a thousand end with their connection.
    pub(crate) reset: u64,
    /// So many of a thousand requests arrive twice, because somebody on the way sends them again.
    pub(crate) twice: u64,
    /// While so many of a thousand snapshots are taken in the power goes: the moment is rare otherwise, and two
    /// files take each other's place in it.
    pub(crate) dark: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self { delay_ms: 4, late: 5, reset: 2, twice: 5, dark: 300 }
    }
}

/// What becomes of one exchange.
struct Fate {
    there: Duration,
    back: Duration,
    reset_there: bool,
    reset_back: bool,
    again: Option<Duration>,
    /// Should it be a snapshot.
    dark: u64,
    /// The server gives up when the client has.
    abandoned: bool,
    /// The connection was open already, so that its client waits for an answer and not for a connection.
    connected: bool,
}

/// The way out of one replica.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(crate) net: Net,
    pub(crate) from: u64,
}

impl Port {
    /// Sends a request to the replica whose address it has.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Lost> {
        let to = request.uri().host().and_then(id_of).unwrap();
        if request.uri().path() == VOTE {
            // Who asks for a vote has given itself its own.
            self.net.history.votes(self.from, vote_of(request.body()).term(), self.from);
        }
        self.net.call(self.from, to, request, patience).await
    }
}

/// The address of a replica.
pub(crate) fn address_of(id: u64) -> String {
    format!("r{id}:7100")
}

fn id_of(host: &str) -> Option<u64> {
    host.strip_prefix('r')?.parse().ok()
}

impl Net {
    pub(crate) fn new(chance: Seeded, history: History) -> Self {
        Self { inner: Arc::default(), chance, history }
    }

    pub(crate) fn listen(&self, id: u64, router: Router, process: Process) {
        self.inner.lock().nodes.insert(id, (router, process));
    }

    pub(crate) fn cut(&self, from: u64, to: u64) {
        self.inner.lock().cut.insert((from, to));
    }

    pub(crate) fn mend(&self) {
        self.inner.lock().cut.clear();
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// A request and its answer; who calls and gives up may have been heard all the same.
    pub(crate) async fn call(
        &self,
        from: u64,
        to: u64,
        request: Request<Bytes>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Lost> {
        let fate = self.draw();
        let abandoned = fate.abandoned;
        let carried = spawn(self.clone().carry(from, to, request, fate));
        let _until_here = abandoned.then(|| AbortOnDrop(carried.abort_handle()));
        match timeout(patience, carried).await {
            Ok(answered) => answered.unwrap_or_else(|_| Err(reset())),
            Err(_) => Err(Lost { kind: LostKind::Timeout, text: "no answer in time".to_owned() }),
        }
    }

    async fn carry(
        self,
        from: u64,
        to: u64,
        request: Request<Bytes>,
        fate: Fate,
    ) -> Result<(StatusCode, Bytes), Lost> {
        let (router, process) = self.arrive(from, to, &fate).await?;
        let (path, body) = (request.uri().path().to_owned(), request.body().clone());
        if path == APPEND {
            self.history.leads(from, vote_of(&body).term());
        }
        if path == SNAPSHOT && self.chance.in_thousand(fate.dark) {
            process.disk().light_fuse(self.chance.between(1, 14));
        }
        if let Some(again) = fate.again {
            let (router, request) = (router.clone(), request.clone());
            process.spawn(async move {
                sleep(again).await;
                answer(router, request).await
            });
        }
        let handled = process.spawn(answer(router, request));
        let _with_it = fate.abandoned.then(|| AbortOnDrop(handled.abort_handle()));
        let (status, answer) = match handled.await {
            Ok(answered) => answered,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return self.silence(from, to).await,
        };
        if path == VOTE && Granted::in_answer(&answer) {
            self.history.votes(to, vote_of(&body).term(), from);
        }
        sleep(fate.back).await;
        if self.is_cut(to, from) {
            return std::future::pending().await;
        }
        if fate.reset_back { Err(reset()) } else { Ok((status, answer)) }
    }

    /// The way there: who listens at its end.
    async fn arrive(&self, from: u64, to: u64, fate: &Fate) -> Result<(Router, Process), Lost> {
        sleep(fate.there).await;
        if self.is_cut(from, to) || self.is_cut(to, from) && !fate.connected {
            if fate.connected {
                return std::future::pending().await;
            }
            sleep(CONNECT_TIMEOUT).await;
            return Err(nobody());
        }
        if fate.reset_there {
            return Err(reset());
        }
        let listens = self.inner.lock().nodes.get(&to).cloned();
        listens.filter(|(_, process)| process.is_alive()).ok_or_else(nobody)
    }

    /// What a client hears of a server that died.
    async fn silence<T>(&self, from: u64, to: u64) -> Result<T, Lost> {
        if self.is_cut(to, from) { std::future::pending().await } else { Err(reset()) }
    }

    /// A request whose answer does not end: its lines, until the connection is gone.
    pub(crate) async fn stream(&self, from: u64, to: u64, request: Request<Bytes>) -> Result<Lines, Lost> {
        let fate = self.draw();
        let (router, process) = self.arrive(from, to, &fate).await?;
        let (send, receive) = mpsc::channel(LINES_MAX);
        let net = self.clone();
        let served = process.spawn(async move {
            let response = router.oneshot(request.map(Body::from)).await.unwrap();
            if response.status() != StatusCode::OK {
                return;
            }
            let mut lines = response.into_body().into_data_stream();
            while let Some(Ok(line)) = lines.next().await {
                sleep(net.draw().back).await;
                if net.is_cut(to, from) || send.send(line).await.is_err() {
                    return;
                }
            }
        });
        Ok(Lines { receive, _until_here: AbortOnDrop(served.abort_handle()) })
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.inner.lock().cut.contains(&(from, to))
    }

    fn draw(&self) -> Fate {
        let weather = self.inner.lock().weather;
        let chance = &self.chance;
        let way = || {
            if chance.in_thousand(weather.late) {
                chance.millis(50, 900)
            } else {
                chance.millis(0, weather.delay_ms)
            }
        };
        Fate {
            there: way(),
            back: way(),
            reset_there: chance.in_thousand(weather.reset),
            reset_back: chance.in_thousand(weather.reset),
            again: chance.in_thousand(weather.twice).then(|| chance.millis(0, 1_500)),
            dark: weather.dark,
            abandoned: chance.in_thousand(500),
            connected: chance.in_thousand(700),
        }
    }
}

async fn answer(router: Router, request: Request<Bytes>) -> (StatusCode, Bytes) {
    let (parts, body) = router.oneshot(request.map(Body::from)).await.unwrap().into_parts();
    (parts.status, to_bytes(body, usize::MAX).await.unwrap())
}

/// The lines of a stream; their server is told when nobody wants them any more.
pub(crate) struct Lines {
    receive: mpsc::Receiver<Bytes>,
    _until_here: AbortOnDrop,
}

impl Lines {
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.receive.recv().await
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn reset() -> Lost {
    Lost { kind: LostKind::Other, text: "the connection was reset".to_owned() }
}

fn nobody() -> Lost {
    Lost { kind: LostKind::NoConnection, text: "nobody listens".to_owned() }
}

/// The begin of the library's messages, as they stand on the wire.
#[derive(Deserialize)]
struct Head {
    vote: Vote,
}

#[derive(Deserialize)]
struct Vote {
    leader_id: Leader,
}

#[derive(Deserialize)]
struct Leader {
    term: u64,
}

impl Head {
    fn term(&self) -> u64 {
        self.vote.leader_id.term
    }
}

fn vote_of(body: &[u8]) -> Head {
    serde_json::from_slice(body).unwrap()
}

#[derive(Deserialize)]
struct Granted {
    vote_granted: bool,
}

impl Granted {
    fn in_answer(body: &[u8]) -> bool {
        let answer: Result<Result<Self, serde_json::Value>, _> = serde_json::from_slice(body);
        matches!(answer, Ok(Ok(Self { vote_granted: true })))
    }
}

/// So that a future says what it is for.
pub(crate) async fn within<T>(limit: Duration, of: impl Future<Output = T>) -> Option<T> {
    timeout(limit, of).await.ok()
}
