//! kill -9 of the leader, again and again, under a stream of writes that are retried with their names.
//!
//! Each writer raises a limit of its own by one, and sends a request until it is acknowledged. What the
//! acknowledgement says has changed must be exactly one step: an older `from` would mean that something
//! acknowledged is lost, no change that it was applied twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::{Cluster, call};

const KILLS: usize = 100;
/// The gap in which nothing is acknowledged, at the 99th percentile. An election takes about a second, and
/// what it took is printed; this is for a busy machine, on which one may have to be repeated.
const GAP_P99_MAX: Duration = Duration::from_secs(10);
/// Limits that stand alone, so that any value goes.
const LIMITS: [&str; 2] = ["idle_disconnect_seconds", "auth_outage_grace_seconds"];
const FIRST: u64 = 1_000;

struct Acked {
    request: String,
    revision: Value,
}

struct Writer {
    thread: JoinHandle<Vec<Acked>>,
    /// How many are acknowledged, for the test to wait on.
    count: Arc<AtomicU64>,
}

/// What all writers together have seen.
#[derive(Clone)]
struct Shared {
    stop: Arc<AtomicBool>,
    start: Instant,
    /// When something was acknowledged last, in microseconds after the start.
    last_ack: Arc<AtomicU64>,
    /// The longest time without an acknowledgement since it was read last.
    gap: Arc<AtomicU64>,
}

impl Shared {
    fn acknowledged(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap();
        let before = self.last_ack.swap(now, Ordering::SeqCst);
        self.gap.fetch_max(now.saturating_sub(before), Ordering::SeqCst);
    }
}

fn writer(cluster: &Cluster, number: usize, shared: Shared) -> Writer {
    let addresses: Vec<_> = (1..=3).map(|id| cluster.addr(id)).collect();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let limit = LIMITS[number];
    let thread = std::thread::spawn(move || {
        let (mut acked, mut at) = (Vec::new(), number);
        let mut value = FIRST;
        while !shared.stop.load(Ordering::SeqCst) {
            value += 1;
            let request = format!("w{number}-{value}");
            let body = format!("{{\"limits\":{{\"{limit}\":{value}}}}}");
            let reply = loop {
                let headers = [("Idempotency-Key", request.as_str())];
                match call(addresses[at % 3], "POST", "/api/control/limits", &headers, &body) {
                    Ok((200, reply)) => break reply,
                    // Nobody there, or no quorum: another replica, the same request.
                    Ok((503, _)) | Err(_) => at += 1,
                    Ok((status, reply)) => panic!("{request}: {status} {reply}"),
                }
                std::thread::yield_now();
            };
            shared.acknowledged();
            let change = &reply["changes"][0];
            if value > FIRST + 1 {
                assert_eq!(
                    (change["from"].as_u64(), change["to"].as_u64(), reply["changes"][1].is_null()),
                    (Some(value - 1), Some(value), true),
                    "{request} was acknowledged with {reply}"
                );
            }
            acked.push(Acked { request, revision: reply["decided"]["revision"].clone() });
            counted.fetch_add(1, Ordering::SeqCst);
        }
        acked
    });
    Writer { thread, count }
}

/// Until each writer has gone on by so many.
fn wait_acks(writers: &[Writer], more: u64) {
    for writer in writers {
        let target = writer.count.load(Ordering::SeqCst) + more;
        hiveops_testkit::wait::wait_for("acknowledgements", || {
            writer.count.load(Ordering::SeqCst) >= target || writer.thread.is_finished()
        })
        .unwrap();
        assert!(!writer.thread.is_finished(), "a writer has failed");
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_done_twice_when_leaders_are_killed() {
    let mut cluster = Cluster::started();
    let shared =
        Shared { stop: Arc::default(), start: Instant::now(), last_ack: Arc::default(), gap: Arc::default() };
    let writers: Vec<Writer> = (0..LIMITS.len()).map(|n| writer(&cluster, n, shared.clone())).collect();
    wait_acks(&writers, 5);
    let mut gaps = Vec::new();
    for _ in 0..KILLS {
        let leader = cluster.leader();
        shared.gap.store(0, Ordering::SeqCst);
        cluster.kill(leader);
        wait_acks(&writers, 3);
        gaps.push(Duration::from_micros(shared.gap.load(Ordering::SeqCst)));
        cluster.start(leader);
        cluster.caught_up(leader);
    }
    shared.stop.store(true, Ordering::SeqCst);
    let acked: Vec<Vec<Acked>> = writers.into_iter().map(|writer| writer.thread.join().unwrap()).collect();
    let total: usize = acked.iter().map(Vec::len).sum();
    gaps.sort_unstable();
    let (p50, p99, max) = (gaps[KILLS / 2], gaps[KILLS * 99 / 100 - 1], gaps[KILLS - 1]);
    println!(
        "{KILLS} leaders killed, {total} writes acknowledged, 0 lost, 0 applied twice; write gap p50 {p50:?}, \
         p99 {p99:?}, max {max:?}"
    );
    // The last ones of each writer, asked for again, are answered as they were, by every replica.
    for (number, acked) in acked.iter().enumerate() {
        for (back, acked) in acked.iter().rev().take(50).enumerate() {
            let value = FIRST + acked_value(&acked.request) - FIRST;
            let id = back % 3 + 1;
            let (status, reply) = cluster.set_limit(id, LIMITS[number], value, &acked.request).unwrap();
            assert_eq!((status, &reply["decided"]["revision"]), (200, &acked.revision), "{}", acked.request);
        }
    }
    for id in 1..=3 {
        cluster.caught_up(id);
        for (number, acked) in acked.iter().enumerate() {
            let last = acked_value(&acked.last().unwrap().request);
            assert_eq!(cluster.limit(id, LIMITS[number]), Some(last), "replica {id}");
        }
    }
    assert!(p99 < GAP_P99_MAX, "the write gap is {p99:?} at the 99th percentile");
}

fn acked_value(request: &str) -> u64 {
    request.rsplit('-').next().unwrap().parse().unwrap()
}
