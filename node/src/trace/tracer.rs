//! Spans of the publish path, for publications that are sampled: made where the work ends, handed to the
//! exporter's queue, and dropped with a count when that is full.
//!
//! The SDK's tracer is not used, only its data and its exporters (docs/decisions/0017): a span of a fan-out
//! begins in the receive loop and ends on whichever shard is last, which is no scope that a guard could hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hiveops_proto::{CorrelationId, MessageType, SubscriptionName};
use opentelemetry::trace::{Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::mpsc;

use super::tally::Counts;
use super::{Lost, Origin, TraceParent};
use crate::bus::Stored;
use crate::config::Sampler;
use crate::telemetry::metrics::SpanDropped;
use crate::time::Clock;

/// Deliveries of one publication that a node tells of, as events of its span: of some of the first groups of
/// sockets, and of some that had to wait.
const DELIVERY_EVENTS_MAX: usize = 16;

/// Makes spans and decides of which publications.
pub(crate) struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<SpanData>,
    dropped: IntCounterVec,
    clock: Clock,
    /// How many shards fan each publication out.
    shards: u32,
    ids: RandomIdGenerator,
    scope: InstrumentationScope,
}

/// The span of a publication that is on its way into the log.
pub(crate) struct Publishing {
    trace_id: TraceId,
    span_id: SpanId,
    parent: Option<SpanId>,
    sampled: bool,
    begun: (SystemTime, Instant),
}

/// The spans of a publication on a node that has got it from the bus.
pub(crate) struct Traced {
    tracer: Arc<Tracer>,
    subscription: SubscriptionName,
    trace_id: TraceId,
    /// Of `publish`, on whichever node.
    parent: Option<SpanId>,
    receive: SpanId,
    fan_out: SpanId,
    begun: SystemTime,
    /// Shards that have not come to the end of it.
    shards_left: AtomicU32,
    /// None once the span has ended: what comes then would stay with the publication, and nobody would see it.
    /// Held for one push; who finds it held has nothing to tell.
    events: Mutex<Option<Vec<Event>>>,
    /// Deliveries that were not told of.
    untold: AtomicU32,
}

/// What every span of a publication says.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) correlation_id: &'a CorrelationId,
    pub(crate) subscription: &'a str,
    pub(crate) message_type: &'a str,
}

/// How publishing ended.
#[derive(Clone, Copy)]
pub(crate) enum Published {
    Stored { seq: u64, duplicate: bool },
    Refused(&'static str),
}

impl std::fmt::Debug for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traced").field("trace_id", &self.trace_id).finish_non_exhaustive()
    }
}

impl Tracer {
    pub(super) fn new(
        sampler: Sampler,
        queue: mpsc::Sender<SpanData>,
        dropped: IntCounterVec,
        clock: Clock,
        shards: usize,
    ) -> Self {
        let shards = u32::try_from(shards).unwrap_or(u32::MAX);
        let scope = InstrumentationScope::builder("hiveops").with_version(env!("CARGO_PKG_VERSION")).build();
        Self { sampler, queue, dropped, clock, shards, ids: RandomIdGenerator::default(), scope }
    }

    /// One that keeps every trace, and where its spans come out.
    #[cfg(test)]
    pub(crate) fn of_all(
        dropped: IntCounterVec,
        clock: Clock,
        shards: usize,
    ) -> (Arc<Self>, mpsc::Receiver<SpanData>) {
        let (queue, spans) = mpsc::channel(DELIVERY_EVENTS_MAX);
        (Arc::new(Self::new(Sampler::ALL, queue, dropped, clock, shards)), spans)
    }

    /// A node begins to publish.
    pub(crate) fn publishing(&self, origin: &Origin) -> Publishing {
        let parent = origin.parent;
        let trace_id = parent
            .map_or_else(|| self.ids.new_trace_id(), |it| TraceId::from_bytes(it.trace_id.to_be_bytes()));
        let number = u128::from_be_bytes(trace_id.to_bytes());
        Publishing {
            trace_id,
            span_id: self.ids.new_span_id(),
            parent: parent.map(|parent| SpanId::from_bytes(parent.span_id.to_be_bytes())),
            sampled: self.sampler.keeps(number, parent.map(|parent| parent.sampled)),
            begun: (self.clock.wall(), Instant::now()),
        }
    }

    /// Publishing has ended.
    pub(crate) fn published(&self, span: &Publishing, about: About<'_>, origin: &Origin, how: Published) {
        if !span.sampled {
            return;
        }
        let (begun, took) = (span.begun.0, span.begun.1.elapsed());
        let ids = Ids { trace_id: span.trace_id, span_id: span.span_id, parent: span.parent };
        let mut made = self.span("publish", SpanKind::Producer, ids, (begun, begun + took), about);
        made.attributes.push(KeyValue::new("source", origin.source.as_str()));
        match how {
            Published::Stored { seq, duplicate } => {
                made.attributes.push(KeyValue::new("seq", number(seq)));
                made.attributes.push(KeyValue::new("duplicate", duplicate));
            }
            Published::Refused(reason) => {
                made.attributes.push(KeyValue::new("reason", reason));
                made.status = Status::error(reason);
            }
        }
        self.offer(made);
    }

    /// A publication has come from the bus; none when nothing is to be told of it.
    pub(super) fn received(self: &Arc<Self>, stored: &Stored) -> Option<Traced> {
        let parent = stored.envelope.traceparent.as_deref().and_then(TraceParent::parse);
        let trace_id = parent
            .map_or_else(|| self.ids.new_trace_id(), |it| TraceId::from_bytes(it.trace_id.to_be_bytes()));
        let number = u128::from_be_bytes(trace_id.to_bytes());
        if !self.sampler.keeps(number, parent.map(|parent| parent.sampled)) {
            return None;
        }
        Some(Traced {
            tracer: Arc::clone(self),
            subscription: stored.envelope.subscription.clone(),
            trace_id,
            parent: parent.map(|parent| SpanId::from_bytes(parent.span_id.to_be_bytes())),
            receive: self.ids.new_span_id(),
            fan_out: self.ids.new_span_id(),
            begun: self.clock.wall(),
            shards_left: AtomicU32::new(self.shards),
            events: Mutex::new(Some(Vec::new())),
            untold: AtomicU32::new(0),
        })
    }

    fn span(
        &self,
        name: &'static str,
        span_kind: SpanKind,
        ids: Ids,
        (start_time, end_time): (SystemTime, SystemTime),
        about: About<'_>,
    ) -> SpanData {
        let flags = TraceFlags::SAMPLED;
        SpanData {
            span_context: SpanContext::new(ids.trace_id, ids.span_id, flags, false, TraceState::default()),
            parent_span_id: ids.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: ids.parent.is_some(),
            span_kind,
            name: name.into(),
            start_time,
            end_time,
            attributes: vec![
                KeyValue::new("correlation_id", about.correlation_id.as_str().to_owned()),
                KeyValue::new("subscription", about.subscription.to_owned()),
                KeyValue::new("type", about.message_type.to_owned()),
            ],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn offer(&self, span: SpanData) {
        let dropped = match self.queue.try_send(span) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(_)) => SpanDropped::QueueFull,
            Err(mpsc::error::TrySendError::Closed(_)) => SpanDropped::Shutdown,
        };
        self.dropped.with_label_values(&[dropped.as_str()]).inc();
    }
}

/// Where a span stands.
struct Ids {
    trace_id: TraceId,
    span_id: SpanId,
    parent: Option<SpanId>,
}

impl Publishing {
    /// What the nodes that get the publication go on from.
    pub(crate) fn context(&self) -> TraceParent {
        TraceParent {
            trace_id: u128::from_be_bytes(self.trace_id.to_bytes()),
            span_id: u64::from_be_bytes(self.span_id.to_bytes()),
            sampled: self.sampled,
        }
    }
}

impl Traced {
    /// The publication is in the mailboxes of all shards.
    pub(super) fn handed_over(&self, about: (&CorrelationId, &MessageType), seq: u64, took: Duration) {
        let ids = Ids { trace_id: self.trace_id, span_id: self.receive, parent: self.parent };
        let mut span = self.span("receive", ids, about, took);
        span.attributes.push(KeyValue::new("seq", number(seq)));
        self.tracer.offer(span);
    }

    /// Sockets have taken it.
    pub(super) fn delivery(&self, took: Duration, sessions: u32) {
        let told = match self.events.try_lock().as_deref_mut() {
            Some(Some(events)) if events.len() < DELIVERY_EVENTS_MAX => {
                let micros = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
                let attributes = vec![
                    KeyValue::new("sessions", i64::from(sessions)),
                    KeyValue::new("delivery_us", micros),
                ];
                events.push(Event::new("delivery", self.begun + took, attributes, 0));
                true
            }
            Some(Some(_)) | None => false,
            // The span has ended.
            Some(None) => return,
        };
        if !told {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more shard has been through its sessions. The last one ends the span.
    pub(super) fn walked(
        &self,
        about: (&CorrelationId, &MessageType),
        took: Duration,
        counts: impl FnOnce() -> Counts,
    ) {
        if self.shards_left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let ids = Ids { trace_id: self.trace_id, span_id: self.fan_out, parent: Some(self.receive) };
        let mut span = self.span("fan_out", ids, about, took);
        span.parent_span_is_remote = false;
        let counts = counts();
        let dropped = counts.lost.iter().fold(0_u32, |sum, lost| sum.saturating_add(*lost));
        for (name, count) in [
            ("recipients", counts.recipients),
            ("delivered", counts.delivered),
            ("enqueued", counts.enqueued),
            ("coalesced", counts.coalesced),
            ("dropped", dropped),
        ] {
            span.attributes.push(KeyValue::new(name, i64::from(count)));
        }
        for (why, count) in Lost::ALL.iter().zip(counts.lost).filter(|(_, count)| *count > 0) {
            span.attributes.push(KeyValue::new(format!("dropped.{}", why.as_str()), i64::from(count)));
        }
        span.events.events = self.events.lock().take().unwrap_or_default();
        span.events.dropped_count = self.untold.load(Ordering::Relaxed);
        self.tracer.offer(span);
    }

    fn span(
        &self,
        name: &'static str,
        ids: Ids,
        (correlation_id, message_type): (&CorrelationId, &MessageType),
        took: Duration,
    ) -> SpanData {
        let (subscription, message_type) = (self.subscription.as_str(), message_type.as_str());
        let about = About { correlation_id, subscription, message_type };
        self.tracer.span(name, SpanKind::Consumer, ids, (self.begun, self.begun + took), about)
    }
}

/// Attributes have signed numbers only; those of ours are far below the end of them.
fn number(value: u64) -> Value {
    Value::I64(i64::try_from(value).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use hiveops_proto::{Envelope, Epoch, Payload};

    use super::*;
    use crate::board::testing::catalog;
    use crate::telemetry::metrics::Metrics;
    use crate::trace::Tally;

    #[test]
    fn what_leaves_an_outbox_after_the_span_has_ended_is_not_kept_for_it() {
        let catalog = catalog();
        let metrics = Metrics::new(catalog.names()).unwrap();
        let clock = Clock::start();
        let (tracer, mut spans) = Tracer::of_all(metrics.spans_dropped.clone(), clock, 2);
        let sub = catalog.id("tasks").unwrap();
        let envelope = Envelope {
            subscription: catalog.name(sub).clone(),
            message_type: "task_event".parse().unwrap(),
            correlation_id: CorrelationId::new("c").unwrap(),
            source_correlation_id: None,
            timestamp: clock.timestamp(),
            idempotency_key: None,
            traceparent: None,
            data: Payload::parse("{}").unwrap(),
        };
        let stored = Stored { sub, epoch: Epoch::from_bits(1), seq: 1, key: None, removes: false, envelope };
        let traced = tracer.received(&stored).unwrap();
        let about = (&stored.envelope.correlation_id, &stored.envelope.message_type);
        let tally = Tally::new(&stored, Instant::now(), clock.timestamp(), None);
        traced.walked(about, Duration::ZERO, || tally.counts());
        for _ in 0..=DELIVERY_EVENTS_MAX {
            traced.delivery(Duration::from_micros(7), 1);
        }
        assert!(spans.try_recv().is_err(), "one shard is on its way");
        traced.walked(about, Duration::ZERO, || tally.counts());
        let span = spans.try_recv().unwrap();
        assert_eq!((span.events.len(), span.events.dropped_count), (DELIVERY_EVENTS_MAX, 1));
        traced.delivery(Duration::from_micros(7), 1);
        assert!(traced.events.lock().is_none() && traced.untold.load(Ordering::Relaxed) == 1);
    }
}
