//! The compacted log against a plain list of everything that was ever appended.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Item {
    seq: u64,
    key: Option<ValueKey>,
    removes: bool,
    at: Timestamp,
}

impl Entry for Item {
    fn seq(&self) -> u64 {
        self.seq
    }
    fn key(&self) -> Option<&ValueKey> {
        self.key.as_ref()
    }
    fn removes(&self) -> bool {
        self.removes
    }
    fn published_at(&self) -> Timestamp {
        self.at
    }
    fn size(&self) -> usize {
        10
    }
}

fn epoch() -> Epoch {
    Epoch::new("e1").unwrap()
}

fn value_key(key: &str) -> ValueKey {
    ValueKey { message_type: MessageType::new("task_update").unwrap(), key: Key::new(key).unwrap() }
}

fn item(seq: u64, key: Option<&str>, removes: bool, ms: i64) -> Item {
    let key = key.map(value_key);
    Item { seq, key, removes, at: Timestamp::from_millis(ms) }
}

fn seqs<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<u64> {
    items.map(|item| item.seq).collect()
}

#[test]
fn an_update_replaces_the_one_before_it() {
    let mut log = CompactedLog::new(epoch(), 0);
    assert_eq!(log.append(item(1, Some("a"), false, 0)), None);
    assert_eq!(log.append(item(2, None, false, 0)), None);
    assert_eq!(log.append(item(3, Some("a"), false, 0)), Some(1));
    assert_eq!(seqs(log.entries()), [2, 3]);
    assert_eq!((log.live_keys(), log.live_bytes()), (1, 10));
    assert_eq!(seqs(log.after(1).unwrap()), [2, 3]);
    assert!(log.after(4).is_none(), "a position beyond the head is not a known one");
}

#[test]
fn a_removal_stays_until_it_expires_and_then_raises_the_floor() {
    let mut log = CompactedLog::new(epoch(), 0);
    log.append(item(1, Some("a"), false, 0));
    log.append(item(2, Some("a"), true, 0));
    assert_eq!((seqs(log.values()), seqs(log.entries()), log.live_keys()), (vec![], vec![2], 0));
    let kept = i64::try_from(KEPT_MS).unwrap();
    assert!(log.expire(Timestamp::from_millis(kept)).is_empty());
    assert_eq!(log.expire(Timestamp::from_millis(kept + 1)), [2]);
    assert!(log.after(1).is_none() && log.after(2).is_some() && log.latest(&value_key("a")).is_none());
}

#[test]
fn occurrences_beyond_their_number_go_first_in_first_out() {
    let mut log = CompactedLog::new(epoch(), 0);
    for seq in 1..=(KEPT_MAX as u64 + 3) {
        log.append(item(seq, None, false, 0));
    }
    assert_eq!(log.expire(Timestamp::from_millis(0)), [1, 2, 3]);
    assert_eq!(log.floor(), 3);
}

#[test]
fn a_position_of_another_epoch_is_not_continued() {
    let log: CompactedLog<Item> = CompactedLog::new(epoch(), 5);
    let elsewhere = Position { epoch: Epoch::new("e2").unwrap(), seq: 5 };
    assert!(log.since(&elsewhere).is_none());
    assert!(log.since(&log.position()).is_some_and(|mut rest| rest.next().is_none()));
}

proptest! {
    /// Whoever stands at or after the floor and applies the replay ends with the same state as the log.
    #[test]
    fn a_replay_from_any_known_position_gives_the_state(
        steps in prop::collection::vec((prop::option::of(0..6_u8), any::<bool>(), 0..3_i64), 1..80),
        expire_every in 1..10_usize,
    ) {
        let mut log = CompactedLog::new(epoch(), 0);
        let mut states: Vec<BTreeMap<String, u64>> = vec![BTreeMap::new()];
        let mut ms = 0;
        for (i, (key, removes, minutes)) in steps.iter().enumerate() {
            let seq = i as u64 + 1;
            ms += minutes * 60_000;
            let key = key.map(|k| k.to_string());
            let removes = *removes && key.is_some();
            log.append(item(seq, key.as_deref(), removes, ms));
            let mut state = states[i].clone();
            match key {
                Some(key) if removes => { state.remove(&key); }
                Some(key) => { state.insert(key, seq); }
                None => {}
            }
            states.push(state);
            if i % expire_every == 0 {
                log.expire(Timestamp::from_millis(ms));
            }
        }
        let end = states.last().unwrap();
        prop_assert_eq!(log.live_keys(), end.len());
        prop_assert_eq!(log.live_bytes(), end.len() * 10);
        let values: BTreeMap<String, u64> =
            log.values().map(|item| (item.key.as_ref().unwrap().key.to_string(), item.seq)).collect();
        prop_assert_eq!(&values, end);
        for (seq, state) in states.iter().enumerate() {
            let Some(rest) = log.after(seq as u64) else {
                prop_assert!((seq as u64) < log.floor());
                continue;
            };
            let mut state = state.clone();
            let mut last = seq as u64;
            for item in rest {
                prop_assert!(item.seq > last);
                last = item.seq;
                match &item.key {
                    Some(key) if item.removes => { state.remove(key.key.as_str()); }
                    Some(key) => { state.insert(key.key.to_string(), item.seq); }
                    None => {}
                }
            }
            prop_assert_eq!(&state, end, "from {}", seq);
        }
    }

    #[test]
    fn a_stored_log_comes_back_as_it_was(
        steps in prop::collection::vec((prop::option::of(0..6_u8), any::<bool>()), 1..60),
    ) {
        let mut log = CompactedLog::new(epoch(), 0);
        for (i, (key, removes)) in steps.iter().enumerate() {
            let key = key.map(|k| k.to_string());
            log.append(item(i as u64 + 1, key.as_deref(), *removes && key.is_some(), i as i64 * 60_000));
            log.expire(Timestamp::from_millis(i as i64 * 60_000));
        }
        let back = CompactedLog::restore(epoch(), log.head(), log.floor(), log.entries().cloned());
        prop_assert_eq!((back.head(), back.floor()), (log.head(), log.floor()));
        prop_assert_eq!((back.live_keys(), back.live_bytes()), (log.live_keys(), log.live_bytes()));
        prop_assert_eq!(seqs(back.entries()), seqs(log.entries()));
    }
}
