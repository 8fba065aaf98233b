//! The promise behind the rules: whatever gets lost, a client ends with the node's state, and never takes
//! a publication twice or out of order. A small node with one log is driven with random histories.

use std::collections::{BTreeMap, VecDeque};

use hiveops_client::continuity::{Continuity, Effect};
use hiveops_proto::{Position, Positions, ServerFrame};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Asking, answering and replaying settle in a few rounds; more would be a loop.
const ROUNDS_MAX: usize = 20;

#[derive(Debug, Clone)]
enum Op {
    Publish {
        key: u8,
        deleted: bool,
    },
    /// The frame at the head of the outbox arrives.
    Arrive,
    /// It gets lost.
    Lose,
    /// It is left out for a later value, and the client is told.
    Coalesce,
    Heartbeat,
    Overdue,
    Reconnect,
    /// History before the head can no longer be replayed.
    Forget,
    NewEpoch,
}

#[derive(Default)]
struct Node {
    epoch: u64,
    head: u64,
    floor: u64,
    /// The entry of each key that is left, removals included.
    log: BTreeMap<u64, (u8, bool)>,
    outbox: VecDeque<Value>,
}

struct World {
    node: Node,
    client: Continuity,
    last: Option<Position>,
}

impl Node {
    fn frame(&self, seq: u64, replayed: bool) -> Value {
        let (key, deleted) = self.log[&seq];
        json!({
            "type": "task_update", "subscription": "tasks", "epoch": self.epoch(), "seq": seq,
            "prev_seq": seq - 1, "replayed": replayed,
            "data": {"id": format!("k{key}"), "deleted": deleted, "n": seq},
        })
    }

    fn epoch(&self) -> String {
        format!("e{}", self.epoch)
    }

    fn publish(&mut self, key: u8, deleted: bool) {
        self.head += 1;
        self.log.retain(|_, (other, _)| *other != key);
        self.log.insert(self.head, (key, deleted));
        self.outbox.push_back(self.frame(self.head, false));
    }

    fn heads(&self) -> Value {
        json!({"tasks": {"epoch": self.epoch(), "seq": self.head}})
    }

    fn values(&self) -> Vec<Value> {
        let live = self.log.iter().filter(|(_, (_, deleted))| !deleted);
        live.map(|(seq, (key, _))| {
            let data = self.frame(*seq, false)["data"].clone();
            json!({"type": "task_update", "key": format!("k{key}"), "data": data, "seq": seq})
        })
        .collect()
    }

    /// What waits for a subscription that is joined anew is taken out first, as a node does: it would be
    /// behind what the answer begins with.
    fn join(&mut self, answer: &str, since: &Positions) {
        self.outbox.retain(|frame| frame["type"] != "task_update" && frame["type"] != "snapshot");
        let at = since.get("tasks").filter(|at| at.epoch.as_str() == self.epoch()).map(|at| at.seq);
        let at = at.filter(|at| (self.floor..=self.head).contains(at));
        self.outbox.push_back(json!({
            "type": answer, "subscriptions": ["tasks"], "positions": self.heads(),
            "recovered": {"tasks": at.is_some()}, "contract_version": "1.0.0", "connection_info": {
                "connection_id": "s1", "connection_type": "tasks", "node_id": "n1",
                "connected_at": "2026-01-01T00:00:00Z",
            },
        }));
        match at {
            Some(at) => {
                let missed: Vec<u64> = self.log.range(at + 1..).map(|(seq, _)| *seq).collect();
                let frames: Vec<Value> = missed.into_iter().map(|seq| self.frame(seq, true)).collect();
                self.outbox.extend(frames);
            }
            None => {
                let (first, second) = (self.values(), Vec::new());
                for (part, items) in [(1, first), (2, second)] {
                    self.outbox.push_back(json!({
                        "type": "snapshot", "subscription": "tasks", "epoch": self.epoch(), "seq": self.head,
                        "items": items, "part": part, "parts": 2,
                    }));
                }
            }
        }
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self { node: Node::default(), client: Continuity::new(Positions::new()), last: None };
        world.reconnect();
        world
    }

    fn reconnect(&mut self) {
        self.node.outbox.clear();
        let since = self.client.begin();
        self.node.join("dashboard_initialized", &since);
    }

    fn run(&mut self, op: &Op) {
        let head = self.node.outbox.front();
        // A connection is ordered and whole: what is lost is what a node drops under way, never its own
        // word on how a session begins, and never a part of a replay, whose holes are known omissions.
        let can_vanish = head.is_some_and(|frame| {
            frame["type"] != "dashboard_initialized" && frame["replayed"] != json!(true)
        });
        match op {
            Op::Publish { key, deleted } => self.node.publish(*key, *deleted),
            Op::Arrive => self.arrive(),
            Op::Lose if can_vanish => drop(self.node.outbox.pop_front()),
            Op::Coalesce if head.is_some_and(|frame| frame["replayed"] == json!(false)) => self.coalesce(),
            Op::Lose | Op::Coalesce => {}
            Op::Heartbeat => self.heartbeat(),
            Op::Overdue => {
                let effects = self.client.overdue();
                self.carry_out(effects, None);
            }
            Op::Reconnect => self.reconnect(),
            Op::Forget => self.node.floor = self.node.head,
            Op::NewEpoch => {
                let epoch = self.node.epoch + 1;
                self.node = Node { epoch, outbox: std::mem::take(&mut self.node.outbox), ..Node::default() };
            }
        }
    }

    fn heartbeat(&mut self) {
        self.node
            .outbox
            .push_back(json!({"type": "heartbeat", "positions": self.node.heads(), "live": true}));
    }

    /// Only a value that a later one in the outbox replaces is left out.
    fn coalesce(&mut self) {
        let Some(frame) = self.node.outbox.front() else { return };
        let replaced = |later: &&Value| later["data"]["id"] == frame["data"]["id"];
        if self.node.outbox.iter().skip(1).any(|later| replaced(&later)) {
            let seq = frame["seq"].clone();
            self.node.outbox[0] = json!({
                "type": "coalesced", "subscription": "tasks", "epoch": frame["epoch"], "count": 1,
                "from_seq": seq, "to_seq": seq,
            });
        }
    }

    fn arrive(&mut self) {
        let Some(mut frame) = self.node.outbox.pop_front() else { return };
        frame["correlation_id"] = json!("c1");
        frame["timestamp"] = json!("2026-01-01T00:00:00Z");
        let frame: ServerFrame = serde_json::from_str(&frame.to_string()).unwrap();
        let effects = self.client.handle(&frame);
        self.carry_out(effects, Some(&frame));
    }

    fn carry_out(&mut self, effects: Vec<Effect>, frame: Option<&ServerFrame>) {
        for effect in effects {
            match effect {
                Effect::Deliver => {
                    let Some(ServerFrame::Publication(frame)) = frame else { continue };
                    if let Some(last) = self.last.as_ref().filter(|last| last.epoch == frame.epoch) {
                        assert!(last.seq < frame.seq, "{} came after {}", frame.seq, last.seq);
                    }
                    self.last = Some(Position { epoch: frame.epoch.clone(), seq: frame.seq });
                }
                Effect::Snapshot { epoch, seq, .. } => self.last = Some(Position { epoch, seq }),
                Effect::Resubscribe { since } => self.node.join("subscription_updated", &since),
                _ => {}
            }
        }
    }

    /// Nothing is lost any more: the client must come to what the node has.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            while !self.node.outbox.is_empty() {
                self.arrive();
            }
            if self.client.is_pending() {
                self.run(&Op::Overdue);
            } else {
                self.heartbeat();
                self.arrive();
                if self.node.outbox.is_empty() && !self.client.is_pending() {
                    return;
                }
            }
        }
        panic!("the client does not settle");
    }

    fn check(&self) {
        let heads: Positions = serde_json::from_value(self.node.heads()).unwrap();
        assert_eq!(self.client.positions(), heads);
        let state = self.client.state("tasks").unwrap();
        let mut values: Vec<Value> = state
            .iter()
            .map(|(message_type, key, item)| {
                let data: Value = item.data.read().unwrap();
                json!({"type": message_type, "key": key, "data": data, "seq": item.seq})
            })
            .collect();
        values.sort_by_key(|value| value["seq"].as_u64());
        assert_eq!(values, self.node.values());
    }
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..4_u8, prop::bool::weighted(0.2)).prop_map(|(key, deleted)| Op::Publish { key, deleted }),
        8 => Just(Op::Arrive),
        2 => Just(Op::Lose),
        3 => Just(Op::Coalesce),
        1 => Just(Op::Heartbeat),
        1 => Just(Op::Overdue),
        1 => Just(Op::Reconnect),
        1 => Just(Op::Forget),
        1 => Just(Op::NewEpoch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_client_always_comes_to_the_state_of_its_node(history in prop::collection::vec(ops(), 0..120)) {
        let mut world = World::new();
        history.iter().for_each(|op| world.run(op));
        world.settle();
        world.check();
    }
}
