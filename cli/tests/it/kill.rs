//! A kill of the process under load with a data directory loses nothing that was acknowledged.
//!
//! Each cycle starts the binary, looks for everything that the cycle before was told is stored, publishes
//! from several connections at once, and kills the process at a moment that a fixed seed chooses.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Place;
use crate::running::Running;
use crate::wire::{Http, Socket};

const CYCLES: u64 = 50;
/// Half of them publish events, half updates.
const PUBLISHERS: u64 = 4;
/// Keys of each publisher of updates: few, so that most are overwritten within a cycle.
const KEYS: u64 = 5;
/// Acknowledgements before the kill. What a cycle publishes must fit into one replay, of 300 frames.
const ACKS: std::ops::Range<u64> = 10..120;
/// Publications of one publisher in a cycle: more than the acknowledgements before the kill, and those of the
/// two that publish events fit into one replay, however long the kill takes to come.
const PUBLICATIONS_MAX: u64 = 140;
/// The kill comes at most this long after the last acknowledgement that was waited for, so that it falls
/// into every phase of a batch.
const DELAY_MAX_MICROS: u64 = 3_000;
const SEED: u64 = 0x4849_5645_4f50_5300;

const EVENTS: (&str, &str) = ("tasks", "task_event");
const UPDATES: (&str, &str) = ("project_index", "project_index_update");

/// SplitMix64: the moments are the same in every run, as far as a scheduler allows.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A publication that the node has acknowledged.
#[derive(Debug, Clone)]
struct Acked {
    subscription: String,
    epoch: String,
    seq: u64,
    data: Value,
    key: String,
}

/// What one cycle must find again in the next.
#[derive(Default)]
struct Expected {
    acked: Vec<Acked>,
    /// The heads before the cycle, from which the events are asked for.
    before: BTreeMap<String, (String, u64)>,
}

/// Publishes until the connection ends or it was enough, one after the other.
fn publisher(url: &str, cycle: u64, number: u64, acked: SyncSender<Acked>) -> JoinHandle<()> {
    let mut http = Http::connect(url);
    std::thread::spawn(move || {
        let updates = number % 2 == 1;
        let (subscription, message_type) = if updates { UPDATES } else { EVENTS };
        for n in 0..PUBLICATIONS_MAX {
            let key = format!("{cycle}-{number}-{n}");
            let id = format!("k{number}-{}", n % KEYS);
            let data = json!({"id": id, "from": key, "pad": "x".repeat(100)});
            let headers = [("Idempotency-Key", key.as_str())];
            let Ok((status, reply)) = http.publish(subscription, message_type, &headers, &data) else {
                return;
            };
            assert_eq!((status, &reply["duplicate"]), (200, &json!(false)), "{reply}");
            let (epoch, seq) = (reply["epoch"].as_str().unwrap().to_owned(), reply["seq"].as_u64().unwrap());
            let subscription = subscription.to_owned();
            if acked.send(Acked { subscription, epoch, seq, data, key }).is_err() {
                return;
            }
        }
    })
}

/// Publishes under load, kills the node and returns what had been acknowledged.
fn load(node: &mut Running, url: &str, cycle: u64, random: &mut Random) -> Vec<Acked> {
    // No publisher ever waits for this test to count.
    let (sender, receiver): (_, Receiver<Acked>) = sync_channel(100_000);
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|number| publisher(url, cycle, number, sender.clone())).collect();
    drop(sender);
    let acks = ACKS.start + random.below(ACKS.end - ACKS.start);
    let delay = Duration::from_micros(random.below(DELAY_MAX_MICROS));
    let mut acked: Vec<Acked> = receiver.iter().take(usize::try_from(acks).unwrap()).collect();
    assert_eq!(acked.len() as u64, acks, "the node ended by itself");
    let at = Instant::now();
    while at.elapsed() < delay {
        std::hint::spin_loop();
    }
    node.kill();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    acked.extend(receiver.iter());
    acked
}

/// What a session is shown when it joins: positions, replayed events by place, values by key.
struct Shown {
    positions: BTreeMap<String, (String, u64)>,
    events: BTreeMap<u64, Value>,
    values: BTreeMap<String, (u64, Value)>,
}

/// Joins with the positions of before: the events come as a replay, the updates as a snapshot.
fn join(url: &str, before: &BTreeMap<String, (String, u64)>) -> Shown {
    let since = before.get(EVENTS.0).map(|(epoch, seq)| format!("&since={}:{epoch}:{seq}", EVENTS.0));
    let names = format!("dashboard?subscriptions={},{}", EVENTS.0, UPDATES.0);
    let mut socket = Socket::connect(url, &format!("{names}{}", since.clone().unwrap_or_default()), None);
    let initialized = socket.wait_for("dashboard_initialized");
    let positions = initialized["positions"].as_object().unwrap().iter().map(|(name, position)| {
        let epoch = position["epoch"].as_str().unwrap().to_owned();
        (name.clone(), (epoch, position["seq"].as_u64().unwrap()))
    });
    let mut shown =
        Shown { positions: positions.collect(), events: BTreeMap::new(), values: BTreeMap::new() };
    assert_eq!(initialized["recovered"][EVENTS.0], json!(since.is_some()), "{initialized}");
    let head = shown.positions[EVENTS.0].1;
    let replayed_from = before.get(EVENTS.0).map_or(head, |(_, seq)| *seq);
    let (mut snapshot_done, mut last) = (false, replayed_from);
    while !snapshot_done || last < head {
        let frame = socket.next().expect("the socket stays open");
        if frame["type"] == EVENTS.1 {
            assert_eq!((&frame["replayed"], &frame["prev_seq"]), (&json!(true), &json!(last)), "{frame}");
            last = frame["seq"].as_u64().unwrap();
            shown.events.insert(last, frame["data"].clone());
        } else if frame["type"] == "snapshot" && frame["subscription"] == UPDATES.0 {
            for item in frame["items"].as_array().unwrap() {
                let value = (item["seq"].as_u64().unwrap(), item["data"].clone());
                shown.values.insert(item["key"].as_str().unwrap().to_owned(), value);
            }
            snapshot_done = frame["part"] == frame["parts"];
        }
    }
    shown
}

/// Everything that was acknowledged before the kill is there.
fn check(url: &str, expected: &Expected) -> Shown {
    let shown = join(url, &expected.before);
    for Acked { subscription, epoch, seq, data, key } in &expected.acked {
        let (epoch_now, head) = &shown.positions[subscription];
        assert_eq!(epoch_now, epoch, "{subscription} began anew");
        assert!(head >= seq, "{subscription}: the head is {head}, but {seq} was acknowledged");
        if subscription == EVENTS.0 {
            assert_eq!(shown.events.get(seq), Some(data), "event {seq} ({key})");
        } else {
            let id = data["id"].as_str().unwrap();
            let (seq_now, data_now) = &shown.values[id];
            assert!(seq_now >= seq, "{id} is as of {seq_now}, but {seq} was acknowledged");
            assert!(seq_now > seq || data_now == data, "{id} has another value than {seq}");
        }
    }
    // What was stored is known as stored.
    let mut http = Http::connect(url);
    let newest =
        |name: &str| expected.acked.iter().filter(|acked| acked.subscription == name).max_by_key(|a| a.seq);
    for (subscription, message_type) in [EVENTS, UPDATES] {
        let Some(Acked { key, data, seq, .. }) = newest(subscription) else { continue };
        let headers = [("Idempotency-Key", key.as_str())];
        let (status, reply) = http.publish(subscription, message_type, &headers, data).unwrap();
        assert_eq!(status, 200, "{reply}");
        assert_eq!((&reply["duplicate"], &reply["seq"]), (&json!(true), &json!(seq)), "{key}");
    }
    shown
}

#[test]
fn a_killed_node_has_everything_that_it_acknowledged() {
    let place = Place::new();
    let mut random = Random(SEED);
    let mut expected = Expected::default();
    let mut acknowledged = 0;
    for cycle in 0..CYCLES {
        let (mut node, url) = Running::node(&place, &["--data-dir", "data"], &[]);
        let shown = check(&url, &expected);
        let acked = load(&mut node, &url, cycle, &mut random);
        acknowledged += acked.len();
        expected = Expected { acked, before: shown.positions };
    }
    let (mut node, url) = Running::node(&place, &["--data-dir", "data"], &[]);
    check(&url, &expected);
    node.signal(Signal::TERM);
    assert_eq!(node.ended().code(), Some(0));
    println!("{CYCLES} kills, {acknowledged} acknowledged publications, none lost");
}
