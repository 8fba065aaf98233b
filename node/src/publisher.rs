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
use crate::trace::{About, Acceptance, Origin, Published as Ended, Refusal as Untaken, TraceParent, Traces};

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
        let correlation_id = request.correlation_id.clone();
        let (subscription, message_type) = (request.subscription, request.message_type);
        let (origin, at, begun) = (Origin::current(), self.clock.timestamp(), Instant::now());
        let span = self.traces.tracer().map(|tracer| (tracer, tracer.publishing(&origin)));
        let context = span.as_ref().map(|(_, span)| span.context()).or(origin.parent);
        let result = self.try_publish(request, context, at).await;
        match &result {
            Ok(published) => self.traces.accepted(&Acceptance {
                correlation_id: &correlation_id,
                sub: published.checked.sub,
                message_type: &published.message_type,
                epoch: &published.ack.epoch,
                seq: published.ack.seq,
                duplicate: published.ack.duplicate,
                origin: &origin,
                at,
                stored_within: begun.elapsed(),
            }),
            Err(refused) => {
                log_refused(refused, &correlation_id, subscription, message_type);
                self.metrics.publications_refused.with_label_values(&[refusal(refused).as_str()]).inc();
                self.not_taken(
                    refused,
                    &Untaken {
                        correlation_id: &correlation_id,
                        subscription,
                        message_type,
                        reason: reason(refused),
                        origin: &origin,
                        at,
                    },
                );
            }
        }
        if let Some((tracer, span)) = &span {
            let names = (shown(subscription), shown(message_type));
            let about =
                About { correlation_id: &correlation_id, subscription: names.0, message_type: names.1 };
            let how = match &result {
                Ok(Published { ack, .. }) => Ended::Stored { seq: ack.seq, duplicate: ack.duplicate },
                Err(refused) => Ended::Refused(reason(refused)),
            };
            tracer.published(span, about, &origin, how);
        }
        result
    }

    /// Whoever lost a race looks again, which is no refusal.
    fn not_taken(&self, refused: &Refused, untaken: &Untaken<'_>) {
        if !matches!(refused, Refused::Bus(PublishError::WrongExpected { .. })) {
            self.traces.refused(untaken);
        }
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
