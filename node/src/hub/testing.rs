//! Publications, views and a shard's surroundings for the tests of the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use hiveops_proto::control::{ContractView, ControlView, DeprecationPolicy, Revision};
use hiveops_proto::{
    CorrelationId, Envelope, Epoch, Key, Limits, MessageType, NodeId, Payload, SubscriptionName, Timestamp,
};

use super::frame::Publication;
use super::registry::Registry;
use super::shard::{Answers, Hints, Shared};
use super::view::View;
use crate::admission::Budget;
use crate::board::testing::catalog;
use crate::bus::{Reset, Stored};
use crate::catalog::SubId;
use crate::log::{CompactedLog, ValueKey};
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;
use crate::trace::Tally;

/// The epoch of the logs in these tests, unless they say otherwise.
pub(super) const EPOCH: u64 = 7;

/// Publications of one subscription.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) sub: SubId,
    pub(super) name: SubscriptionName,
    epoch: Epoch,
}

impl Source {
    pub(super) fn new(name: &str) -> Self {
        Self::in_epoch(name, EPOCH)
    }

    pub(super) fn in_epoch(name: &str, epoch: u64) -> Self {
        let sub = catalog().id(name).unwrap();
        Self { sub, name: SubscriptionName::new(name).unwrap(), epoch: Epoch::from_bits(epoch) }
    }

    /// The whole value of `key`, with `pad` bytes more than it needs.
    pub(super) fn update(&self, seq: u64, key: &str, pad: usize) -> Arc<Publication> {
        let data = format!(r#"{{"id":"{key}","n":{seq},"pad":"{}"}}"#, "x".repeat(pad));
        self.make(seq, "task_update", Some(key), false, &data)
    }

    pub(super) fn removal(&self, seq: u64, key: &str) -> Arc<Publication> {
        let data = format!(r#"{{"id":"{key}","deleted":true}}"#);
        self.make(seq, "task_update", Some(key), true, &data)
    }

    pub(super) fn event(&self, seq: u64, pad: usize) -> Arc<Publication> {
        let data = format!(r#"{{"n":{seq},"pad":"{}"}}"#, "x".repeat(pad));
        self.make(seq, "task_event", None, false, &data)
    }

    fn make(&self, seq: u64, kind: &str, key: Option<&str>, removes: bool, data: &str) -> Arc<Publication> {
        let message_type = MessageType::new(kind).unwrap();
        let key = key.map(|key| ValueKey { message_type: message_type.clone(), key: Key::new(key).unwrap() });
        let envelope = Envelope {
            subscription: self.name.clone(),
            message_type,
            correlation_id: CorrelationId::new(&format!("c-{seq}")).unwrap(),
            source_correlation_id: None,
            timestamp: Timestamp::from_millis(0),
            idempotency_key: None,
            traceparent: None,
            data: Payload::parse(data).unwrap(),
        };
        let epoch = self.epoch.clone();
        let stored = Stored { sub: self.sub, epoch, seq, key, removes, envelope };
        let received = Instant::now();
        let tally = Tally::new(&stored, received, Timestamp::from_millis(0), None);
        Publication::seal_counted(Arc::new(stored), received, Arc::new(tally))
    }

    /// An empty log.
    pub(super) fn view(&self) -> View {
        View::new(self.sub, self.name.clone(), CompactedLog::new(self.epoch.clone(), 0))
    }

    /// The log as if it had been read anew.
    pub(super) fn reset(&self, head: u64, floor: u64) -> Reset {
        Reset { sub: self.sub, epoch: self.epoch.clone(), head, floor, entries: Vec::new() }
    }
}

/// A view with these limits in force.
pub(crate) fn control(limits: Limits) -> Arc<ControlView> {
    Arc::new(ControlView {
        revision: Revision::default(),
        limits,
        sources: BTreeMap::new(),
        contract: ContractView {
            current: catalog().contract().clone(),
            supported_versions: vec![],
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: String::new(),
            contract_digest: None,
        },
        access: Default::default(),
    })
}

/// What a shard needs of its node.
pub(super) fn shared(io_uring: bool, limits: Limits, answers: Box<dyn Answers>) -> Arc<Shared> {
    let (catalog, clock) = (catalog(), Clock::start());
    Arc::new(Shared {
        node_id: NodeId::new("node-1").unwrap(),
        clock,
        registry: Registry::default(),
        budget: Budget::new(None, clock),
        hints: Hints::default(),
        metrics: Metrics::new(catalog.names()).unwrap(),
        answers,
        bus_live: Arc::new(AtomicBool::new(true)),
        gate: Arc::new(crate::auth::testing::open_gate(clock)),
        io_uring,
        control: control(limits),
        catalog,
    })
}
