//! Publications that publishers hand to the bus themselves: checked like any other, published, settled.
//!
//! What cannot be published is dropped and counted by its reason; what cannot be published just now comes
//! again, where the bus keeps it.

use std::sync::Arc;

use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::{CorrelationId, Payload};
use sha2::{Digest, Sha256};

use crate::bus::{Incoming, Intake as TakenIn, PublishError, Repeat, Settled};
use crate::catalog::Invalid;
use crate::publisher::{Publisher, Refused, Request};
use crate::telemetry::metrics::{Metrics, Rejected};
use crate::time::Clock;
use crate::trace::{Origin, TraceParent};

/// Characters of a publisher's own correlation id that are kept when it cannot be taken over.
const SOURCE_ID_CHARS_MAX: usize = 256;

pub(super) struct Intake {
    publisher: Publisher,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// The correlation id of a publication, and the publisher's own where it could not be that.
struct Cause {
    id: CorrelationId,
    source: Option<String>,
}

impl Intake {
    pub(super) fn new(publisher: Publisher, metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { publisher, metrics, clock }
    }

    /// Takes in one after the other, so that a publisher's order is kept.
    pub(super) async fn run(self, mut taken_in: Box<dyn TakenIn>, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        loop {
            // Cancel-safe by the contract of `Intake::next`; what is being published is finished.
            let incoming = tokio::select! {
                () = &mut shutdown => return,
                incoming = taken_in.next() => incoming,
            };
            let Some(mut incoming) = incoming else { return shutdown.await };
            let settle = incoming.settle.take();
            let settled = self.take(incoming, settle.is_some()).await;
            if let Some(settle) = settle {
                settle(settled).await;
            }
        }
    }

    async fn take(&self, incoming: Incoming, comes_again: bool) -> Settled {
        let cause = self.cause(incoming.correlation_id.as_deref());
        if cause.source.is_some() {
            self.count(Rejected::CorrelationId);
        }
        let source = incoming.source.as_str();
        let rejected = match self.publish(&incoming, &cause).await {
            Ok(()) => {
                self.metrics.bus_taken_in.with_label_values(&[source]).inc();
                return Settled::Stored;
            }
            Err(Rejected::Unavailable) if comes_again => return Settled::Later,
            Err(rejected) => rejected,
        };
        self.count(rejected);
        tracing::warn!(
            correlation_id = %cause.id,
            source,
            reason = rejected.as_str(),
            bytes = incoming.payload.len(),
            "publication from outside was dropped"
        );
        Settled::Refused
    }

    async fn publish(&self, incoming: &Incoming, cause: &Cause) -> Result<(), Rejected> {
        if incoming.payload.len() as u64 > self.publisher.max_bytes() {
            return Err(Rejected::TooLarge);
        }
        let text = std::str::from_utf8(&incoming.payload).map_err(|_| Rejected::Json)?;
        let data = Payload::parse(text).map_err(|_| Rejected::Json)?;
        let mut request =
            Request::new(&incoming.subscription, &incoming.message_type, data, cause.id.clone());
        request.source_correlation_id.clone_from(&cause.source);
        if let Some(key) = incoming.idempotency_key.as_deref() {
            let key = idempotency_key(key);
            request.repeat = key.clone().map_or(Repeat::Never, Repeat::Key);
            request.idempotency_key = key;
        }
        let parent = incoming.traceparent.as_deref().and_then(TraceParent::parse);
        let origin = Origin::intake(incoming.source, parent);
        let published = origin.of(self.publisher.publish(request)).await;
        published.map(drop).map_err(|refused| rejected(&refused))
    }

    /// The publisher's id where the contract allows it, else one of ours beside it.
    fn cause(&self, given: Option<&str>) -> Cause {
        match given.map(|text| (text, CorrelationId::new(text))) {
            Some((_, Ok(id))) => Cause { id, source: None },
            Some((text, Err(_))) => {
                let source = text.chars().take(SOURCE_ID_CHARS_MAX).collect();
                Cause { id: self.clock.correlation_id(), source: Some(source) }
            }
            None => Cause { id: self.clock.correlation_id(), source: None },
        }
    }

    fn count(&self, rejected: Rejected) {
        self.metrics.bus_invalid.with_label_values(&[rejected.as_str()]).inc();
    }
}

/// A name that is too long or odd for ours is as good by its hash.
fn idempotency_key(text: &str) -> Option<IdempotencyKey> {
    IdempotencyKey::new(text)
        .or_else(|_| {
            let hash = Sha256::digest(text.as_bytes());
            let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            IdempotencyKey::new(&format!("sha256:{hex}"))
        })
        .ok()
}

fn rejected(refused: &Refused) -> Rejected {
    match refused {
        Refused::TooLarge { .. } => Rejected::TooLarge,
        Refused::Invalid(Invalid::Subscription(_)) => Rejected::Subscription,
        Refused::Invalid(Invalid::MessageType { .. }) => Rejected::MessageType,
        Refused::Invalid(Invalid::Schema(_) | Invalid::Payload(_)) => Rejected::Schema,
        Refused::Bus(PublishError::Timeout | PublishError::Unavailable(_)) => Rejected::Unavailable,
        Refused::Bus(
            PublishError::WrongExpected { .. }
            | PublishError::IdempotencyConflict { .. }
            | PublishError::StateFull { .. },
        ) => Rejected::Refused,
    }
}
