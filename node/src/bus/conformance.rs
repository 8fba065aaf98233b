//! What every bus must do, as one test per rule and implementation.
//!
//! An implementation adds a line to the `conformance!` at the end: a name, and a function that makes a bus
//! with empty logs of its own. This file has the harness, the rules are in the modules below; they know
//! nothing but the [`Bus`] trait.

mod follow;
mod open;
mod publish;
mod state;

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::{CorrelationId, Envelope, Epoch, Key, MessageType, Payload, SubscriptionName};

use super::{Ack, Bus, BusEvent, Call, Expect, Follow, Publish, PublishError, Repeat, Reset, Stored};
use crate::catalog::SubId;
use crate::log::ValueKey;
use crate::time::Clock;

/// A rule that is not decided by then has failed; far beyond what any takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The subscriptions of every fixture; the rules name them by index.
pub(crate) const NAMES: [&str; 2] = ["agents", "tasks"];

/// Makes a bus with empty logs of [`NAMES`], whose calls end within the given time.
pub(crate) type Make = fn(Duration) -> Call<'static, Fixture>;

/// A bus under test.
pub(crate) struct Fixture {
    pub(crate) bus: Arc<dyn Bus>,
    /// Keeps the bus from answering until what it gives is dropped.
    pub(crate) stall: Box<dyn Fn() -> Call<'static, Box<dyn Any + Send>> + Send + Sync>,
    /// What must outlive the bus: a directory, a server. Dropped after it.
    pub(crate) _keep: Box<dyn Any + Send + Sync>,
}

pub(crate) fn names() -> Vec<SubscriptionName> {
    NAMES.iter().map(|name| SubscriptionName::new(name).unwrap()).collect()
}

/// Ends a rule that waits for what does not come.
pub(crate) async fn in_time<T>(rule: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, rule).await.expect("the rule is decided in time")
}

/// Waits until something holds that nothing tells of.
pub(crate) async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let waiting = async {
        while !holds() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

fn base(sub: usize, message_type: &str, data: &str) -> Publish {
    let envelope = Envelope {
        subscription: names()[sub].clone(),
        message_type: MessageType::new(message_type).unwrap(),
        correlation_id: CorrelationId::new("cause-1").unwrap(),
        source_correlation_id: None,
        timestamp: Clock::start().timestamp(),
        idempotency_key: None,
        traceparent: None,
        data: Payload::parse(data).unwrap(),
    };
    let sub = SubId::from_index(sub).unwrap();
    Publish { sub, key: None, removes: false, envelope, expect: Expect::Any, repeat: Repeat::Never }
}

/// An update of `key`, the `n`th.
pub(crate) fn update(sub: usize, key: &str, n: usize) -> Publish {
    typed_update(sub, "some_update", key, &format!(r#"{{"id":"{key}","n":{n}}}"#))
}

pub(crate) fn typed_update(sub: usize, message_type: &str, key: &str, data: &str) -> Publish {
    let publish = base(sub, message_type, data);
    let key = ValueKey { message_type: publish.envelope.message_type.clone(), key: Key::new(key).unwrap() };
    Publish { key: Some(key), ..publish }
}

pub(crate) fn removal(sub: usize, key: &str) -> Publish {
    let data = format!(r#"{{"id":"{key}","deleted":true}}"#);
    Publish { removes: true, ..typed_update(sub, "some_update", key, &data) }
}

pub(crate) fn occurrence(sub: usize, n: usize) -> Publish {
    base(sub, "some_event", &format!(r#"{{"n":{n}}}"#))
}

/// The publication under the name that its publisher gave it.
pub(crate) fn with_key(key: &str, publish: Publish) -> Publish {
    Publish { repeat: Repeat::Key(IdempotencyKey::new(key).unwrap()), ..publish }
}

/// All of them in this order, many at once; every one is stored.
pub(crate) async fn publish_all(bus: &dyn Bus, all: impl IntoIterator<Item = Publish>) -> Vec<Ack> {
    // As many as a slow machine stores well within the deadline of a call.
    const AT_ONCE: usize = 250;
    let mut acks = Vec::new();
    let mut all = all.into_iter().peekable();
    while all.peek().is_some() {
        let calls = join_all(all.by_ref().take(AT_ONCE).map(|publish| bus.publish(publish)));
        // tokio makes a task give way after 128 steps, wherever it is, and then the order is lost.
        let answers = tokio::task::unconstrained(calls).await;
        acks.extend(answers.into_iter().map(|answer| answer.unwrap()));
    }
    acks
}

pub(crate) async fn publish(bus: &dyn Bus, publish: Publish) -> Ack {
    bus.publish(publish).await.unwrap()
}

/// What a follower knows of one log, kept the simplest way there is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replica {
    pub(crate) epoch: Epoch,
    pub(crate) head: u64,
    floor: u64,
    /// Type and key → seq and data.
    pub(crate) values: BTreeMap<(String, String), (u64, String)>,
    pub(crate) occurrences: Vec<u64>,
    /// Every seq that came after the reset.
    pub(crate) live: Vec<u64>,
    pub(crate) resets: usize,
}

impl Replica {
    fn reset(reset: &Reset, resets: usize) -> Self {
        let mut replica = Self {
            epoch: reset.epoch.clone(),
            head: 0,
            floor: reset.floor,
            values: BTreeMap::new(),
            occurrences: Vec::new(),
            live: Vec::new(),
            resets,
        };
        for stored in &reset.entries {
            replica.apply(stored);
        }
        assert!(replica.head <= reset.head, "nothing is left beyond the head");
        replica.head = reset.head;
        replica
    }

    fn apply(&mut self, stored: &Stored) {
        assert!(stored.seq > self.head, "{} comes after {}", stored.seq, self.head);
        assert_eq!(stored.epoch, self.epoch);
        self.head = stored.seq;
        let Some(key) = &stored.key else {
            self.occurrences.push(stored.seq);
            return;
        };
        let name = (key.message_type.to_string(), key.key.to_string());
        let value = (stored.seq, stored.envelope.data.as_str().to_owned());
        if stored.removes {
            self.values.remove(&name)
        } else {
            self.values.insert(name, value)
        };
    }

    /// The seq of the value of each key.
    pub(crate) fn seqs(&self) -> BTreeMap<&str, u64> {
        self.values.iter().map(|((_, key), (seq, _))| (key.as_str(), *seq)).collect()
    }
}

/// A follower that checks what it is told as it goes.
pub(crate) struct Reader {
    follow: Box<dyn Follow>,
    logs: BTreeMap<SubId, Replica>,
}

impl Reader {
    /// A follower that has been told of every log, and nothing else before.
    pub(crate) async fn open(bus: &dyn Bus) -> Self {
        let mut reader = Self { follow: bus.follow().await.unwrap(), logs: BTreeMap::new() };
        while reader.logs.len() < NAMES.len() {
            reader.step().await.expect("the bus is up");
        }
        reader
    }

    /// Takes the next event; `None` when the bus has ended.
    pub(crate) async fn step(&mut self) -> Option<BusEvent> {
        let event = self.follow.next().await?;
        self.take(&event);
        Some(event)
    }

    fn take(&mut self, event: &BusEvent) {
        match event {
            BusEvent::Reset(reset) => {
                let resets = self.logs.get(&reset.sub).map_or(0, |log| log.resets) + 1;
                self.logs.insert(reset.sub, Replica::reset(reset, resets));
            }
            BusEvent::Stored(stored) => {
                let log = self.logs.get_mut(&stored.sub).expect("a log begins with a reset");
                log.apply(stored);
                log.live.push(stored.seq);
            }
            BusEvent::Probe(_) | BusEvent::Told(_) => {}
        }
    }

    /// Reads on until the log has come as far as `seq`.
    pub(crate) async fn until(&mut self, sub: usize, seq: u64) -> &Replica {
        while self.log(sub).head < seq {
            self.step().await.expect("the bus is up");
        }
        self.log(sub)
    }

    pub(crate) fn log(&self, sub: usize) -> &Replica {
        &self.logs[&SubId::from_index(sub).unwrap()]
    }
}

/// The log as somebody sees it who comes now.
pub(crate) async fn seen_now(bus: &dyn Bus, sub: usize) -> Replica {
    Reader::open(bus).await.log(sub).clone()
}

/// Declares the rules once, and turns them into a test each for every implementation.
macro_rules! rules {
    ($($module:ident: $($rule:ident)+;)+) => {
        macro_rules! tests_of {
            ($make:path) => {
                $($(
                    #[tokio::test]
                    async fn $rule() {
                        use crate::bus::conformance::{$module, in_time};
                        in_time($module::$rule($make)).await;
                    }
                )+)+
            };
        }
    };
}

rules! {
    publish:
        a_publication_is_acknowledged_with_the_next_seq_of_its_log
        a_repeated_idempotency_key_gets_the_first_place
        an_idempotency_key_with_other_data_is_a_conflict
        an_idempotency_key_belongs_to_its_subscription
        repeated_content_gets_the_first_place
        the_same_content_of_another_cause_is_no_repeat
        what_has_no_repeat_is_stored_each_time
        a_refused_publication_is_not_remembered_as_stored
        concurrent_repeats_are_stored_once
        nothing_is_stored_after_shutdown
        shutdown_keeps_what_was_acknowledged_readable_to_its_followers
        calls_to_a_bus_that_does_not_answer_end;
    follow:
        a_follower_is_told_of_every_log_and_then_what_comes
        two_followers_see_the_same
        a_late_follower_gets_what_is_left
        who_joins_amid_publications_misses_and_repeats_nothing
        a_probe_comes_back_to_every_follower
        a_follower_that_lags_misses_only_what_was_superseded
        a_follower_that_lags_beyond_what_is_kept_starts_again
        a_read_that_is_given_up_loses_nothing
        occurrences_are_kept_to_their_number_and_the_floor_rises;
    open:
        a_log_can_begin_while_the_bus_runs;
    state:
        absent_holds_only_before_the_first_value
        a_value_changes_only_from_the_expected_one
        of_two_concurrent_writers_one_wins
        a_removed_value_is_gone_and_absent_holds_again
        message_types_do_not_share_their_keys
        a_state_with_all_its_keys_refuses_another
        a_state_with_all_its_bytes_refuses_more;
}

/// The implementations, and how to make one.
macro_rules! conformance {
    ($($name:ident => $make:path),+ $(,)?) => {
        $(mod $name { tests_of!($make); })+
    };
}

conformance! {
    embedded_memory => crate::bus::embedded::tests::memory,
    embedded_disk => crate::bus::embedded::tests::disk,
    nats => crate::bus::nats::tests::server,
    redis => crate::bus::redis::tests::single,
    redis_cluster => crate::bus::redis::tests::cluster,
}
