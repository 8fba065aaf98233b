//! What one client holds: the latest value of every key, from snapshots and updates, and what it was told.
//! Parses every frame, so that only the few clients have one whose values are compared.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::chain::{Chain, Step};

/// The values of one client.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The text of each value by subscription, type and key.
    values: BTreeMap<(String, String, String), String>,
    chains: BTreeMap<String, Chain>,
    coalesced: u64,
    gaps: u64,
    notice: Option<String>,
}

/// The members of any frame that matter here.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    frame_type: String,
    #[serde(default)]
    subscription: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    prev_seq: u64,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    items: Vec<Item<'a>>,
    #[serde(default)]
    part: u64,
    #[serde(default)]
    from_seq: u64,
    #[serde(default)]
    to_seq: u64,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    reason: String,
}

/// A value in a snapshot.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(rename = "type")]
    message_type: String,
    key: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The members of an update's data that say which value it is.
#[derive(Deserialize)]
struct Value {
    id: Option<String>,
    #[serde(default)]
    deleted: bool,
}

impl State {
    /// The reason of the notice before a close.
    pub(super) fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    pub(super) fn coalesced(&self) -> u64 {
        self.coalesced
    }

    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Equal for equal values at the same positions: events leave no values, and whoever has not read them
    /// yet stands elsewhere.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.values.hash(&mut hasher);
        self.chains.hash(&mut hasher);
        hasher.finish()
    }

    /// Takes one message in; what is not a frame of the contract changes nothing.
    pub(super) fn take(&mut self, message: &[u8]) {
        let Ok(frame) = serde_json::from_slice::<Frame<'_>>(message) else { return };
        match frame.frame_type.as_str() {
            "disconnect_notice" => self.notice = Some(frame.reason),
            "snapshot" => self.snapshot(frame),
            "coalesced" => {
                self.coalesced += frame.count;
                self.step(&frame.subscription, |chain| chain.omitted(frame.from_seq, frame.to_seq));
            }
            _ => {
                let Some(data) = frame.data.filter(|_| frame.seq > 0) else { return };
                self.step(&frame.subscription, |chain| chain.follow(frame.seq, frame.prev_seq));
                if frame.frame_type.ends_with("_update") {
                    self.update(frame.subscription, frame.frame_type, data);
                }
            }
        }
    }

    fn step(&mut self, subscription: &str, step: impl FnOnce(&mut Chain) -> Step) {
        let chain = self.chains.entry(subscription.to_owned()).or_default();
        if let Step::Gap(missing) = step(chain) {
            self.gaps += missing;
        }
    }

    fn snapshot(&mut self, frame: Frame<'_>) {
        if frame.part <= 1 {
            self.values.retain(|(subscription, ..), _| *subscription != frame.subscription);
        }
        for item in frame.items {
            let place = (frame.subscription.clone(), item.message_type, item.key);
            self.values.insert(place, item.data.get().to_owned());
        }
        self.chains.entry(frame.subscription).or_default().stands_at(frame.seq);
    }

    fn update(&mut self, subscription: String, message_type: String, data: &RawValue) {
        let value: Value = serde_json::from_str(data.get()).unwrap_or(Value { id: None, deleted: false });
        let key = value.id.unwrap_or_else(|| message_type.clone());
        let place = (subscription, message_type, key);
        if value.deleted {
            self.values.remove(&place);
        } else {
            self.values.insert(place, data.get().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(seq: u64, prev_seq: u64, data: &str) -> String {
        format!(
            r#"{{"type":"task_update","subscription":"tasks","seq":{seq},"prev_seq":{prev_seq},"data":{data}}}"#
        )
    }

    fn state(messages: &[&str]) -> State {
        let mut state = State::default();
        for message in messages {
            state.take(message.as_bytes());
        }
        state
    }

    #[test]
    fn a_client_that_got_less_has_the_same_values_in_the_end() {
        let fast = state(&[
            &update(1, 0, r#"{"id":"a","n":1}"#),
            &update(2, 1, r#"{"id":"b","n":1}"#),
            &update(3, 2, r#"{"id":"a","n":2}"#),
            &update(4, 3, r#"{"id":"c"}"#),
            &update(5, 4, r#"{"id":"c","deleted":true}"#),
        ]);
        let omission = r#"{"type":"coalesced","subscription":"tasks","from_seq":3,"to_seq":4,"count":2}"#;
        let slow = state(&[
            r#"{"type":"snapshot","subscription":"tasks","seq":2,"part":1,"parts":1,"items":[
                {"type":"task_update","key":"a","data":{"id":"a","n":2},"seq":1},
                {"type":"task_update","key":"b","data":{"id":"b","n":1},"seq":2}]}"#,
            omission,
            &update(5, 4, r#"{"id":"c","deleted":true}"#),
        ]);
        assert_eq!(fast.digest(), slow.digest());
        assert_eq!((slow.coalesced(), slow.gaps(), fast.gaps()), (2, 0, 0));
    }

    #[test]
    fn another_value_is_another_state_and_a_gap_is_counted() {
        let one = state(&[&update(1, 0, r#"{"id":"a","n":1}"#)]);
        let other = state(&[&update(1, 0, r#"{"id":"a","n":1}"#), &update(4, 3, r#"{"id":"a","n":2}"#)]);
        assert_ne!(one.digest(), other.digest());
        assert_eq!(other.gaps(), 2);
        let event = |seq: u64| update(seq, seq - 1, "{}").replace("_update", "_event");
        assert_ne!(state(&[&event(1)]).digest(), state(&[&event(1), &event(2)]).digest(), "one is behind");
        let told = state(&[r#"{"type":"disconnect_notice","reason":"backpressure","code":1013}"#]);
        assert_eq!(told.notice(), Some("backpressure"));
    }
}
