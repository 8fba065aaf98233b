//! The one way onto the bus: checks a publication against the contract and the limits, then hands it over.
//!
//! The HTTP routes, the board and the reporter call it; each gets the place in the log or the reason why
//! there is none. It knows nothing of HTTP and nothing of who is connected.

use std::sync::Arc;
use std::time::Instant;

use hiveops_proto::control::ControlView;
use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::{CorrelationId, Envelope, MessageType, Payload, Timestamp};
use tokio::sync::watch;

use crate::bus::{Ack, Bus, Expect, Publish, PublishError, Repeat};
use crate::catalog::{Catalog, Checked, Invalid};
use crate::telemetry::metrics::{Metrics, Refusal};
use crate::time::Clock;
use crate::trace::{
    About, Acceptance, Origin, Published as Ended, Publishing, Refusal as Untaken, TraceParent, Tracer,
    Traces,
};

/// Why a publication has no end that anybody heard of.
const GIVEN_UP: &str = "given_up";

/// Publishes; cheap to clone.
#[derive(Clone)]
pub(crate) struct Publisher {
    bus: Arc<dyn Bus>,
    catalog: watch::Receiver<Arc<Catalog>>,
    control: watch::Receiver<Arc<ControlView>>,
    clock: Clock,
    metrics: Arc<Metrics>,
    traces: Arc<Traces>,
}

/// What somebody wants to publish.
pub(crate) struct Request<'a> {
    pub(crate) subscription: &'a str,
    pub(crate) message_type: &'a str,
    pub(crate) data: Payload,
    pub(crate) correlation_id: CorrelationId,
    /// The publisher's own, when it could not be taken over as it was.
    pub(crate) source_correlation_id: Option<String>,
    pub(crate) idempotency_key: Option<IdempotencyKey>,
    pub(crate) expect: Expect,
    pub(crate) repeat: Repeat,
}

/// A publication that the log has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) checked: Checked,
    pub(crate) message_type: MessageType,
    pub(crate) ack: Ack,
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("data has {bytes} bytes, and may have {max} (max_publication_bytes)")]
    TooLarge { bytes: u64, max: u64 },
    #[error(transparent)]
    Bus(#[from] PublishError),
}

impl<'a> Request<'a> {
    /// A publication without a condition, known by nothing when it is repeated.
    pub(crate) fn new(
        subscription: &'a str,
        message_type: &'a str,
        data: Payload,
        correlation_id: CorrelationId,
    ) -> Self {
        Self {
            subscription,
            message_type,
            data,
            correlation_id,
            source_correlation_id: None,
            idempotency_key: None,
            expect: Expect::Any,
            repeat: Repeat::Never,
        }
    }
}

impl Publisher {
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        catalog: watch::Receiver<Arc<Catalog>>,
        control: watch::Receiver<Arc<ControlView>>,
        clock: Clock,
        metrics: Arc<Metrics>,
        traces: Arc<Traces>,
    ) -> Self {
        Self { bus, catalog, control, clock, metrics, traces }
    }

    /// The contract in force.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// Returns once the log has stored the publication, or with the reason why it has not.
    pub(crate) async fn publish(&self, request: Request<'_>) -> Result<Published, Refused> {
        let (origin, at) = (Origin::current(), self.clock.timestamp());
        let span = self.traces.tracer().map(|tracer| (tracer, tracer.publishing(&origin)));
        let context = span.as_ref().map(|(_, span)| span.context()).or(origin.parent);
        let mut attempt = Attempt {
            publisher: self,
            correlation_id: request.correlation_id.clone(),
            subscription: request.subscription,
            message_type: request.message_type,
            origin,
            at,
            begun: Instant::now(),
            span,
            is_over: false,
        };
        let result = self.try_publish(request, context, at).await;
        attempt.is_over = true;
        match &result {
            Ok(published) => attempt.stored(published),
            Err(refused) => attempt.refused(refused),
        }
        result
    }

    async fn try_publish(
        &self,
        request: Request<'_>,
        context: Option<TraceParent>,
        at: Timestamp,
    ) -> Result<Published, Refused> {
        // The size comes first: it is what bounds the cost of the other checks.
        self.check_size(&request.data)?;
        let catalog = self.catalog();
        let (checked, message_type) =
            catalog.check(request.subscription, request.message_type, &request.data)?;
        let envelope = Envelope {
            subscription: catalog.name(checked.sub).clone(),
            message_type: message_type.clone(),
            correlation_id: request.correlation_id,
            source_correlation_id: request.source_correlation_id,
            timestamp: at,
            idempotency_key: request.idempotency_key,
            traceparent: context.map(|context| context.to_string()),
            data: request.data,
        };
        let publish = Publish {
            sub: checked.sub,
            key: checked.key.clone(),
            removes: checked.removes,
            envelope,
            expect: request.expect,
            repeat: request.repeat,
        };
        let ack = self.bus.publish(publish).await?;
        Ok(Published { checked, message_type, ack })
    }

    /// Bytes that the data of a publication may have now.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.control.borrow().limits.max_publication_bytes
    }

    fn check_size(&self, data: &Payload) -> Result<(), Refused> {
        let max = self.max_bytes();
        let bytes = data.as_str().len() as u64;
        if bytes <= max { Ok(()) } else { Err(Refused::TooLarge { bytes, max }) }
    }
}

/// A publication on its way. Whoever wants it may be gone before the log answers: a request is dropped with its
/// connection, and when its time is over. The log may store it all the same, so that is told as well.
struct Attempt<'a> {
    publisher: &'a Publisher,
    correlation_id: CorrelationId,
    subscription: &'a str,
    message_type: &'a str,
    origin: Origin,
    at: Timestamp,
    begun: Instant,
    span: Option<(&'a Tracer, Publishing)>,
    /// Whether it is known what came of it.
    is_over: bool,
}

impl Attempt<'_> {
    fn stored(&self, published: &Published) {
        let Published { checked, message_type, ack } = published;
        self.publisher.traces.accepted(&Acceptance {
            correlation_id: &self.correlation_id,
            sub: checked.sub,
            message_type,
            epoch: &ack.epoch,
            seq: ack.seq,
            duplicate: ack.duplicate,
            origin: &self.origin,
            at: self.at,
            stored_within: self.begun.elapsed(),
        });
        self.end_span(Ended::Stored { seq: ack.seq, duplicate: ack.duplicate });
    }

    fn refused(&self, refused: &Refused) {
        log_refused(refused, &self.correlation_id, self.subscription, self.message_type);
        self.count(refusal(refused));
        // Whoever lost a race looks again, which is no refusal.
        if !matches!(refused, Refused::Bus(PublishError::WrongExpected { .. })) {
            self.note(reason(refused));
        }
        self.end_span(Ended::Refused(reason(refused)));
    }

    fn given_up(&self) {
        tracing::warn!(
            correlation_id = %self.correlation_id,
            r#type = shown(self.message_type),
            subscription = shown(self.subscription),
            reason = GIVEN_UP,
            "publisher has gone before the log answered, which may have the publication"
        );
        self.count(Refusal::GivenUp);
        self.note(GIVEN_UP);
        self.end_span(Ended::Refused(GIVEN_UP));
    }

    fn count(&self, why: Refusal) {
        self.publisher.metrics.publications_refused.with_label_values(&[why.as_str()]).inc();
    }

    fn note(&self, reason: &'static str) {
        self.publisher.traces.refused(&Untaken {
            correlation_id: &self.correlation_id,
            subscription: self.subscription,
            message_type: self.message_type,
            reason,
            origin: &self.origin,
            at: self.at,
        });
    }

    fn end_span(&self, how: Ended) {
        let Some((tracer, span)) = &self.span else { return };
        let about = About {
            correlation_id: &self.correlation_id,
            subscription: shown(self.subscription),
            message_type: shown(self.message_type),
        };
        tracer.published(span, about, &self.origin, how);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.given_up();
        }
    }
}

/// A lost race is the business of whoever ran it; everything else is for the operator.
fn log_refused(refused: &Refused, correlation_id: &CorrelationId, subscription: &str, message_type: &str) {
    let (subscription, message_type, reason) = (shown(subscription), shown(message_type), reason(refused));
    match refused {
        Refused::Bus(PublishError::WrongExpected { .. }) => {
            tracing::debug!(
                %correlation_id, r#type = message_type, subscription, reason, "publication refused"
            );
        }
        Refused::Bus(error @ (PublishError::Timeout | PublishError::Unavailable(_))) => {
            tracing::warn!(
                %correlation_id, r#type = message_type, subscription, reason, %error, "publication not stored"
            );
        }
        Refused::Bus(_) | Refused::Invalid(_) | Refused::TooLarge { .. } => {
            tracing::info!(
                %correlation_id, r#type = message_type, subscription, reason, "publication refused"
            );
        }
    }
}

fn refusal(refused: &Refused) -> Refusal {
    match refused {
        Refused::Invalid(_) => Refusal::Invalid,
        Refused::TooLarge { .. } => Refusal::TooLarge,
        Refused::Bus(PublishError::WrongExpected { .. } | PublishError::IdempotencyConflict { .. }) => {
            Refusal::Conflict
        }
        Refused::Bus(PublishError::StateFull { .. }) => Refusal::StateFull,
        Refused::Bus(PublishError::Timeout) => Refusal::Timeout,
        Refused::Bus(PublishError::Unavailable(_)) => Refusal::Unavailable,
    }
}

/// Names that the contract does not know come from outside and have any length.
fn shown(name: &str) -> &str {
    const NAME_BYTES_MAX: usize = 64;
    if name.len() <= NAME_BYTES_MAX { name } else { "(too long for a name)" }
}

/// The reason in one word: a whole error text may repeat what the publisher sent.
fn reason(refused: &Refused) -> &'static str {
    match refused {
        Refused::Invalid(Invalid::Subscription(_)) => "unknown_subscription",
        Refused::Invalid(Invalid::MessageType { .. }) => "unknown_message_type",
        Refused::Invalid(Invalid::Schema(_) | Invalid::Payload(_)) => "invalid_data",
        Refused::TooLarge { .. } => "too_large",
        Refused::Bus(PublishError::WrongExpected { .. }) => "wrong_expected",
        Refused::Bus(PublishError::IdempotencyConflict { .. }) => "idempotency_conflict",
        Refused::Bus(PublishError::StateFull { .. }) => "state_full",
        Refused::Bus(PublishError::Timeout) => "bus_timeout",
        Refused::Bus(PublishError::Unavailable(_)) => "bus_unavailable",
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use hiveops_proto::{Limits, SubscriptionName};

    use super::*;
    use crate::board::testing::catalog;
    use crate::bus::{Call, Follow, Intake, Signal, Unavailable};
    use crate::catalog::SubId;
    use crate::hub::testing::control;

    /// A bus that never answers.
    struct Silent;

    impl Bus for Silent {
        fn publish(&self, _: Publish) -> Call<'_, Result<Ack, PublishError>> {
            Box::pin(std::future::pending())
        }
        fn follow(&self) -> Call<'_, Result<Box<dyn Follow>, Unavailable>> {
            Box::pin(std::future::pending())
        }
        fn open(&self, _: Vec<(SubId, SubscriptionName)>) -> Call<'_, Result<(), Unavailable>> {
            Box::pin(std::future::pending())
        }
        fn probe(&self, _: u64) -> Call<'_, Result<(), Unavailable>> {
            Box::pin(std::future::pending())
        }
        fn tell(&self, _: Signal) -> Call<'_, Result<(), Unavailable>> {
            Box::pin(std::future::pending())
        }
        fn intake(&self) -> Option<Box<dyn Intake>> {
            None
        }
        fn shutdown(&self) -> Call<'_, ()> {
            Box::pin(std::future::pending())
        }
        fn kind(&self) -> &'static str {
            "silent"
        }
    }

    #[test]
    fn a_publisher_that_goes_before_the_log_answers_leaves_an_entry_a_count_and_a_span() {
        let (known, clock) = (catalog(), Clock::start());
        let metrics = Metrics::new(known.names()).unwrap();
        let (tracer, mut spans) = Tracer::of_all(metrics.spans_dropped.clone(), clock, 1);
        let traces = Traces::new(&known, clock, Some(tracer));
        let (_, catalog) = watch::channel(known);
        let (_, control) = watch::channel(control(Limits::default()));
        let publisher = Publisher::new(
            Arc::new(Silent),
            catalog,
            control,
            clock,
            Arc::clone(&metrics),
            Arc::clone(&traces),
        );
        let id = CorrelationId::new("c-1").unwrap();
        let data = Payload::parse("{}").unwrap();
        let mut publishing =
            Box::pin(publisher.publish(Request::new("tasks", "task_event", data, id.clone())));
        assert!(publishing.as_mut().now_or_never().is_none());
        assert!(traces.find(&id).refused.is_empty() && spans.try_recv().is_err());
        drop(publishing);
        let found = traces.find(&id);
        let [refused] = found.refused.as_slice() else { panic!("{found:?}") };
        assert_eq!((refused.subscription.as_str(), refused.reason.as_str()), ("tasks", GIVEN_UP));
        assert_eq!(metrics.publications_refused.with_label_values(&[GIVEN_UP]).get(), 1);
        let span = spans.try_recv().unwrap();
        assert_eq!(
            (span.name.as_ref(), span.status),
            ("publish", opentelemetry::trace::Status::error(GIVEN_UP))
        );
    }
}
