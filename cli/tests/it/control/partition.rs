//! The leader cut off from the others by proxies, while clients reach everybody. What was acknowledged is
//! checked from a recorded history.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hiveops_testkit::proxy::{Direction, Fault, FaultProxy};
use hiveops_testkit::wait::{PATIENCE, wait_for};
use serde_json::Value;

use super::cluster::{Cluster, call};

const ROUNDS: usize = 5;
/// Promised is a second, of which the decision may take 800 ms; a busy machine may need more for the rest.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// A limit for each client, so that values are nobody else's.
const LIMITS: [&str; 3] =
    ["idle_disconnect_seconds", "auth_outage_grace_seconds", "rate_limit_notify_cooldown_seconds"];

/// Something that a replica acknowledged.
#[derive(Debug)]
struct Event {
    began: Instant,
    ended: Instant,
    /// Term and index: of a write its place, of a read what it saw.
    revision: (u64, u64),
    /// Of a write: the leader that acknowledged it, and its term.
    by: Option<(u64, u64)>,
}

/// Proxies from each replica to each other one.
struct Network(BTreeMap<(usize, usize), FaultProxy>);

impl Network {
    fn new(cluster: &Cluster) -> Self {
        let pairs =
            (1..=3).flat_map(|from| (1..=3).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let proxy = |(from, to): (usize, usize)| {
            ((from, to), FaultProxy::start(cluster.addr(to), (from * 10 + to) as u64).unwrap())
        };
        Self(pairs.map(proxy).collect())
    }

    fn routes(&self, from: usize) -> String {
        let routes = self.0.iter().filter(|((source, _), _)| *source == from);
        let routes: Vec<String> = routes.map(|((_, to), proxy)| format!("{to}={}", proxy.addr())).collect();
        routes.join(",")
    }

    fn cut_off(&self, id: usize) {
        for ((from, to), proxy) in &self.0 {
            if *from == id || *to == id {
                proxy.set(Direction::Both, Fault::Blackhole);
            }
        }
    }

    fn heal(&self) {
        self.0.values().for_each(FaultProxy::heal);
    }
}

/// Writes and reads at one replica, one after the other.
fn client(address: SocketAddr, number: usize, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Event>> {
    std::thread::spawn(move || {
        let mut history = Vec::new();
        for n in 1_u64.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let body = format!("{{\"limits\":{{\"{}\":{}}}}}", LIMITS[number], n % 3_000 + 1);
            let request = format!("c{number}-{n}");
            let headers = [("Idempotency-Key", request.as_str())];
            let mut record = |method, path, headers: &[(&str, &str)], body: &str| {
                let began = Instant::now();
                let Ok((status, reply)) = call(address, method, path, headers, body) else { return };
                let ended = Instant::now();
                let write = method == "POST";
                match status {
                    200 => {
                        let decided = if write { &reply["decided"] } else { &reply };
                        let revision = place(&decided["revision"]);
                        let by = write.then(|| {
                            (decided["term"].as_u64().unwrap(), decided["leader"].as_u64().unwrap())
                        });
                        history.push(Event { began, ended, revision, by });
                    }
                    503 => {
                        let took = ended - began;
                        assert!(took < REFUSED_WITHIN, "refused after {took:?}");
                    }
                    _ => panic!("{method} {path}: {status} {reply}"),
                }
            };
            record("POST", "/api/control/limits", &headers, &body);
            record("GET", "/api/control/view?linearizable=true", &[], "");
        }
        history
    })
}

fn place(revision: &Value) -> (u64, u64) {
    (revision["term"].as_u64().unwrap(), revision["index"].as_u64().unwrap())
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_stale() {
    let mut cluster = Cluster::new(3);
    let network = Network::new(&cluster);
    for id in 1..=3 {
        let routes = network.routes(id);
        cluster.start_with(id, &[("HIVEOPS_CONTROL_ROUTES", &routes)]);
    }
    cluster.leader();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3).map(|n| client(cluster.addr(n + 1), n, Arc::clone(&stop))).collect();
    let mut cuts = Vec::new();
    for _ in 0..ROUNDS {
        let old = cluster.leader();
        let cut = Instant::now();
        network.cut_off(old);
        let new = cluster.await_leader(PATIENCE, |id| id != old);
        let elected = cut.elapsed();
        // The old one does not know, and still is not believed.
        let (status, _) = cluster.set_limit(old, LIMITS[0], 7, &format!("old{elected:?}")).unwrap();
        assert_eq!(status, 503, "the leader that was cut off acknowledged a write");
        assert_eq!(cluster.set_limit(new, LIMITS[0], 8, &format!("new{elected:?}")).unwrap().0, 200);
        network.heal();
        cluster.caught_up(old);
        cuts.push(elected);
    }
    stop.store(true, Ordering::SeqCst);
    let mut history: Vec<Event> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    history.sort_by_key(|event| event.began);
    check(&history);
    let writes = history.iter().filter(|event| event.by.is_some()).count();
    println!(
        "{ROUNDS} leaders cut off, another led after {cuts:?}; {writes} writes and {} reads acknowledged",
        history.len() - writes
    );
    assert!(writes > 50 && history.len() > 100, "too little happened for the history to mean anything");
    wait_for("the same everywhere", || {
        let limit = |id| cluster.limit(id, LIMITS[0]);
        limit(1) == limit(2) && limit(2) == limit(3)
    })
    .unwrap();
}

/// One leader per term, and whatever began after something was acknowledged comes after it.
fn check(history: &[Event]) {
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    for event in history {
        if let Some((term, leader)) = event.by {
            let first = *leaders.entry(term).or_insert(leader);
            assert_eq!(first, leader, "two leaders acknowledged in term {term}");
        }
    }
    assert!(leaders.len() >= ROUNDS, "{leaders:?}");
    let mut ended: Vec<&Event> = history.iter().filter(|event| event.by.is_some()).collect();
    ended.sort_by_key(|event| event.ended);
    let (mut seen, mut latest) = (ended.into_iter().peekable(), (0, 0));
    for event in history {
        while let Some(before) = seen.next_if(|write| write.ended < event.began) {
            latest = latest.max(before.revision);
        }
        if event.by.is_some() {
            assert!(event.revision > latest, "{event:?} was acknowledged after {latest:?}");
        } else {
            assert!(event.revision >= latest, "{event:?} does not show {latest:?}");
        }
    }
}
