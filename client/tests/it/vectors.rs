//! Runs `schemas/vectors/client.json`, the decisions that clients in every language share.

use std::collections::BTreeMap;
use std::time::Duration;

use hiveops_client::continuity::Continuity;
use hiveops_client::reconnect::{Ended, Next, Policy};
use hiveops_proto::{Positions, ServerFrame};
use serde::Deserialize;
use serde_json::{Map, Value, json};

const VECTORS: &str = include_str!("../../../schemas/vectors/client.json");

type Object = Map<String, Value>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[serde(rename = "description")]
    _description: Vec<String>,
    defaults: BTreeMap<String, Object>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    start: Start,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Start {
    since: Positions,
    live: BTreeMap<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Step {
    frame: Option<Object>,
    overdue: bool,
    connect: bool,
    close: Option<u16>,
    lost: bool,
    refused: Option<u16>,
    expect: Option<Value>,
    positions: Option<Positions>,
    state: BTreeMap<String, Value>,
    since: Positions,
    retry_after_ms: Option<u64>,
    lived_ms: u64,
    random: f64,
    next: Option<Value>,
}

struct Runner<'a> {
    defaults: &'a BTreeMap<String, Object>,
    continuity: Continuity,
    policy: Policy,
}

impl Runner<'_> {
    fn frame(&self, frame: &Object) -> ServerFrame {
        let mut whole = self.defaults["*"].clone();
        let frame_type = frame["type"].as_str().unwrap();
        whole.extend(self.defaults.get(frame_type).cloned().unwrap_or_default());
        whole.extend(frame.clone());
        serde_json::from_str(&Value::Object(whole).to_string()).unwrap()
    }

    fn take(&mut self, frame: &Value) -> Value {
        let frame = self.frame(frame.as_object().unwrap());
        if let ServerFrame::DisconnectNotice(notice) = &frame {
            self.policy.on_notice(notice.retry_after_ms.map(Duration::from_millis));
        }
        serde_json::to_value(self.continuity.handle(&frame)).unwrap()
    }

    fn start(&mut self, start: &Start) {
        if start.live.is_empty() {
            return;
        }
        self.continuity.begin();
        let names: Vec<&String> = start.live.keys().collect();
        let heads: Object = start
            .live
            .iter()
            .map(|(name, at)| (name.clone(), json!({"epoch": at["epoch"], "seq": at["seq"]})))
            .collect();
        let recovered: Object = names.iter().map(|name| (name.to_string(), json!(false))).collect();
        self.take(&json!({
            "type": "dashboard_initialized", "subscriptions": names, "positions": heads, "recovered": recovered,
        }));
        for (name, at) in &start.live {
            self.take(&json!({
                "type": "snapshot", "subscription": name, "part": 1, "parts": 1,
                "epoch": at["epoch"], "seq": at["seq"], "items": at["items"],
            }));
        }
    }

    fn step(&mut self, step: &Step, place: &str) {
        if let Some(frame) = &step.frame {
            let effects = self.take(&Value::Object(frame.clone()));
            assert_eq!(Some(effects), step.expect, "{place}");
        } else if step.overdue {
            let effects = serde_json::to_value(self.continuity.overdue()).unwrap();
            assert_eq!(Some(effects), step.expect, "{place}");
        } else if step.connect {
            assert_eq!(self.continuity.begin(), step.since, "{place}");
        } else {
            let next = self.policy.next(&ended(step), Duration::from_millis(step.lived_ms), step.random);
            let next = match next {
                Next::Wait(wait) => json!({"wait_ms": wait.as_millis() as u64}),
                Next::Stop(stop) => json!({"stop": stop}),
            };
            assert_eq!(Some(next), step.next, "{place}");
        }
        if let Some(positions) = &step.positions {
            assert_eq!(&self.continuity.positions(), positions, "{place}");
        }
        for (name, items) in &step.state {
            assert_eq!(&self.state(name), items, "{place}: the state of {name}");
        }
    }

    fn state(&self, name: &str) -> Value {
        let state = self.continuity.state(name).unwrap();
        let items = state.iter().map(|(message_type, key, item)| {
            let data: Value = item.data.read().unwrap();
            json!({"type": message_type, "key": key, "data": data, "seq": item.seq})
        });
        items.collect()
    }
}

fn ended(step: &Step) -> Ended {
    match (step.close, step.refused) {
        (Some(code), None) => Ended::Closed(code),
        (None, Some(status)) => {
            Ended::Refused { status, retry_after: step.retry_after_ms.map(Duration::from_millis) }
        }
        _ => {
            assert!(step.lost, "a step says what happens");
            Ended::Lost
        }
    }
}

#[test]
fn the_client_decides_as_the_shared_vectors_say() {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert!(!vectors.cases.is_empty());
    for case in &vectors.cases {
        let mut runner = Runner {
            defaults: &vectors.defaults,
            continuity: Continuity::new(case.start.since.clone()),
            policy: Policy::default(),
        };
        runner.start(&case.start);
        for (i, step) in case.steps.iter().enumerate() {
            runner.step(step, &format!("{}, step {}", case.name, i + 1));
        }
    }
}
