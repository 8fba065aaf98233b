//! Replicas of the binary on ports that stay theirs, and the calls that tests make.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hiveops_testkit::port::Port;
use hiveops_testkit::wait::{PATIENCE, wait_for_some};
use serde_json::{Value, json};

use crate::harness::Place;
use crate::running::Running;

/// Longer than a replica takes to refuse.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Cluster {
    pub(crate) place: Place,
    pub(crate) ports: Vec<Port>,
    replicas: Vec<Option<Running>>,
    /// What each is told of the others.
    peers: Vec<String>,
}

impl Cluster {
    /// So many replicas that know each other, none of them started.
    pub(crate) fn new(count: usize) -> Self {
        let ports: Vec<Port> = (0..count).map(|_| Port::claim().unwrap()).collect();
        let addresses: Vec<SocketAddr> = ports.iter().map(Port::addr).collect();
        let peers = vec![list(&addresses); count];
        Self { place: Place::new(), ports, replicas: (0..count).map(|_| None).collect(), peers }
    }

    /// Three replicas that have a leader.
    pub(crate) fn started() -> Self {
        let mut cluster = Self::new(3);
        (1..=3).for_each(|id| cluster.start(id));
        cluster.leader();
        cluster
    }

    /// Gives a replica another list than the others.
    pub(crate) fn set_peers(&mut self, id: usize, peers: String) {
        self.peers[id - 1] = peers;
    }

    pub(crate) fn start(&mut self, id: usize) {
        self.start_with(id, &[]);
    }

    pub(crate) fn start_with(&mut self, id: usize, env: &[(&str, &str)]) {
        let args = self.args(id);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let replica = Running::start(&self.place, &args, env);
        replica.err.wait(|line| line.contains("\"message\":\"listening\"") || line.starts_with("hiveops: "));
        self.replicas[id - 1] = Some(replica);
    }

    pub(crate) fn args(&self, id: usize) -> Vec<String> {
        let (number, address) = (id.to_string(), self.ports[id - 1].addr().to_string());
        let directory = format!("d{id}");
        let args = [
            "control",
            "--id",
            &number,
            "--listen",
            &address,
            "--peers",
            &self.peers[id - 1],
            "--data-dir",
            &directory,
        ];
        args.map(str::to_owned).to_vec()
    }

    pub(crate) fn kill(&mut self, id: usize) {
        self.replicas[id - 1].take().unwrap().kill();
    }

    pub(crate) fn replica(&mut self, id: usize) -> &mut Running {
        self.replicas[id - 1].as_mut().unwrap()
    }

    pub(crate) fn addr(&self, id: usize) -> SocketAddr {
        self.ports[id - 1].addr()
    }

    pub(crate) fn url(&self, id: usize) -> String {
        format!("http://{}", self.addr(id))
    }

    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> = (1..=self.ports.len()).map(|id| self.url(id)).collect();
        urls.join(",")
    }

    pub(crate) fn status(&self, id: usize) -> io::Result<Value> {
        call(self.addr(id), "GET", "/api/control/status", &[], "").map(|(_, status)| status)
    }

    /// Waits until a replica leads that has a quorum and its first state.
    pub(crate) fn leader(&self) -> usize {
        self.await_leader(PATIENCE, |_| true)
    }

    pub(crate) fn await_leader(&self, patience: Duration, fits: impl Fn(usize) -> bool) -> usize {
        wait_for_some("a leader", patience, || {
            Ok((1..=self.ports.len()).find(|id| {
                let status = self.replicas[id - 1].as_ref().and_then(|_| self.status(*id).ok());
                status.is_some_and(|status| {
                    status["role"] == "leader" && status["quorum"] == true && !status["revision"].is_null()
                }) && fits(*id)
            }))
        })
        .unwrap()
    }

    /// Waits until a replica has everything that the leader has.
    pub(crate) fn caught_up(&self, id: usize) {
        wait_for_some("it to catch up", PATIENCE, || {
            let status = self.status(id).unwrap_or_default();
            let leader = status["leader"].as_u64().and_then(|leader| self.status(leader as usize).ok());
            let done = leader.is_some_and(|leader| {
                status["quorum"] == true
                    && !leader["last_applied_index"].is_null()
                    && status["last_applied_index"].as_u64() >= leader["last_applied_index"].as_u64()
            });
            Ok(done.then_some(()))
        })
        .unwrap();
    }

    /// Waits for the key that a new cluster gives itself, so that the view stays as it is.
    pub(crate) fn first_key(&self) {
        wait_for_some("the first key on every replica", PATIENCE, || {
            let keys = (1..=self.ports.len()).map(|id| {
                let (_, view) = call(self.addr(id), "GET", "/api/control/view", &[], "")?;
                Ok::<_, io::Error>(view["access"]["keys"].as_array().map_or(0, Vec::len))
            });
            let keys = keys.collect::<io::Result<Vec<usize>>>()?;
            Ok(keys.iter().all(|keys| *keys == 1).then_some(()))
        })
        .unwrap();
    }

    /// Asks a replica for another value of a limit.
    pub(crate) fn set_limit(
        &self,
        id: usize,
        name: &str,
        value: u64,
        request: &str,
    ) -> io::Result<(u16, Value)> {
        let body = json!({"limits": {name: value}}).to_string();
        call(self.addr(id), "POST", "/api/control/limits", &[("Idempotency-Key", request)], &body)
    }

    /// The limit as a replica shows it without asking the others.
    pub(crate) fn limit(&self, id: usize, name: &str) -> Option<u64> {
        let (_, view) = call(self.addr(id), "GET", "/api/control/view", &[], "").ok()?;
        view["limits"][name].as_u64()
    }
}

/// A list of peers, from replica 1 on.
pub(crate) fn list(addresses: &[SocketAddr]) -> String {
    let peers = addresses.iter().enumerate().map(|(at, address)| format!("{}={address}", at + 1));
    peers.collect::<Vec<_>>().join(",")
}

/// One call on a connection of its own.
pub(crate) fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<(u16, Value)> {
    let mut stream = BufReader::new(send(address, method, path, headers, body)?);
    let (status, length) = head(&mut stream)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Sends a request and leaves the answer to be read.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: control\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())?;
    Ok(stream)
}

/// Reads an answer's head: its status and length.
pub(crate) fn head(stream: &mut impl BufRead) -> io::Result<(u16, usize)> {
    let mut line = || {
        let mut line = String::new();
        match stream.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_ascii_lowercase()),
        }
    };
    let status = line()?.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let mut length = 0;
    loop {
        let line = line()?;
        match line.split_once(": ") {
            None => return Ok((status, length)),
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            Some(_) => {}
        }
    }
}

/// How long something took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
