//! What a client may conclude from its frames (CONTRACT section 5), and what was really published: a test
//! holds one against the other.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{Node, soon};

/// The subscription that only tests publish to.
pub(crate) const INDEX: &str = "project_index";
const UPDATE: &str = "project_index_update";
const EVENT: &str = "project_index_event";

/// Keys of one publisher: few, so that values are overwritten and removed all the time.
const KEYS: u64 = 4;

/// How far publishers may be ahead of the client that they wait for: a replay may have 300 frames.
const LEAD_MAX: u64 = 150;

/// What one client knows of [`INDEX`]. It panics on a gap and on a repetition.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) epoch: String,
    pub(crate) seq: u64,
    values: BTreeMap<String, Value>,
    /// The occurrences received, in their order.
    events: Vec<u64>,
    /// From where on every occurrence must be there.
    whole_after: u64,
    /// The next part of a snapshot that has begun.
    part: Option<u64>,
}

impl Replica {
    /// Takes a frame.
    pub(crate) fn take(&mut self, frame: &Value) {
        if frame["subscription"] != INDEX {
            return;
        }
        if frame["type"] == "snapshot" {
            return self.take_part(frame);
        }
        assert_eq!(self.part, None, "inside a snapshot: {frame}");
        assert_eq!(frame["epoch"], self.epoch.as_str(), "{frame}");
        if frame["type"] == "coalesced" {
            let (from, to) = (number(frame, "from_seq"), number(frame, "to_seq"));
            assert_eq!(
                (from, number(frame, "count")),
                (self.seq + 1, to + 1 - from),
                "at {}: {frame}",
                self.seq
            );
            self.seq = to;
            return;
        }
        let (seq, prev_seq) = (number(frame, "seq"), number(frame, "prev_seq"));
        if frame.get("replayed").is_some() {
            assert!(seq > self.seq, "at {}: {frame}", self.seq);
        } else {
            assert_eq!(prev_seq, self.seq, "{frame}");
        }
        self.seq = seq;
        if frame["type"] == UPDATE {
            apply(&mut self.values, &frame["data"]);
        } else {
            self.events.push(seq);
        }
    }

    fn take_part(&mut self, frame: &Value) {
        let (part, parts) = (number(frame, "part"), number(frame, "parts"));
        assert_eq!(part, self.part.unwrap_or(1), "{frame}");
        if part == 1 {
            self.values.clear();
            self.events.clear();
        }
        for item in frame["items"].as_array().expect("a list") {
            assert_eq!(item["type"], UPDATE);
            apply(&mut self.values, &item["data"]);
        }
        self.part = (part < parts).then_some(part + 1);
        self.epoch = frame["epoch"].as_str().expect("a text").to_owned();
        self.seq = number(frame, "seq");
        self.whole_after = self.seq;
    }

    /// The node goes on after `seq`, so what came later comes again.
    pub(crate) fn rewind(&mut self, seq: u64) {
        self.seq = seq;
        self.events.retain(|event| *event <= seq);
    }

    /// The position as `subscribe` takes it.
    pub(crate) fn since(&self) -> Value {
        json!({ INDEX: {"epoch": self.epoch, "seq": self.seq} })
    }

    /// The path of a socket that goes on here.
    pub(crate) fn path(&self) -> String {
        format!("dashboard?subscriptions={INDEX}&since={INDEX}:{}:{}", self.epoch, self.seq)
    }
}

/// Everything that was acknowledged.
#[derive(Default)]
pub(crate) struct Journal {
    /// Type and data by `seq`. Held for one change, never across an await.
    entries: Mutex<BTreeMap<u64, (&'static str, Value)>>,
    done: AtomicBool,
}

impl Journal {
    /// Publishes updates, removals and occurrences until the journal is closed; `name` tells publishers
    /// apart. With `lead`, it does not run away from the position that is in there.
    pub(crate) async fn fill(&self, node: &Node, name: &str, mut lead: Option<watch::Receiver<u64>>) {
        let client = reqwest::Client::new();
        let mut last = 0;
        for n in 0_u64.. {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            if let Some(lead) = &mut lead
                && soon("the client", lead.wait_for(|seq| last < seq + LEAD_MAX)).await.is_err()
            {
                return;
            }
            let id = format!("{name}{}", n % KEYS);
            let (message_type, data) = match n % 5 {
                0 | 1 => (UPDATE, json!({"id": id, "n": n})),
                2 => (UPDATE, json!({"id": id, "deleted": true})),
                _ => (EVENT, json!({"by": name, "n": n})),
            };
            let path = "/api/dashboard/websocket/broadcast";
            let url = format!("{}?subscription={INDEX}&message_type={message_type}", node.http(path));
            let response = soon("a reply", client.post(url).json(&data).send()).await.expect("an answer");
            assert_eq!(response.status(), 200);
            let reply: Value = response.json().await.expect("JSON");
            last = number(&reply, "seq");
            let before = self.entries.lock().unwrap().insert(last, (message_type, data));
            assert!(before.is_none(), "a seq is given once");
        }
    }

    /// Lets the publishers end.
    pub(crate) fn close(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(crate) fn head(&self) -> u64 {
        self.entries.lock().unwrap().keys().next_back().copied().unwrap_or(0)
    }

    /// Holds a replica against what was published up to its position.
    pub(crate) fn check(&self, replica: &Replica) {
        let entries = self.entries.lock().unwrap();
        let (mut values, mut events) = (BTreeMap::new(), Vec::new());
        for (seq, (message_type, data)) in entries.range(..=replica.seq) {
            if *message_type == UPDATE {
                apply(&mut values, data);
            } else if *seq > replica.whole_after {
                events.push(*seq);
            }
        }
        assert_eq!(replica.values, values, "at {}", replica.seq);
        assert_eq!(replica.events, events, "from {} to {}", replica.whole_after, replica.seq);
    }
}

fn apply(values: &mut BTreeMap<String, Value>, data: &Value) {
    let key = data["id"].as_str().expect("a key").to_owned();
    if data["deleted"] == true {
        values.remove(&key);
    } else {
        values.insert(key, data.clone());
    }
}

fn number(value: &Value, member: &str) -> u64 {
    value[member].as_u64().unwrap_or_else(|| panic!("{member} in {value}"))
}
