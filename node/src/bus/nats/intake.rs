//! The `in` work queue: what publishers hand to NATS goes to one node, and again until one has settled it.
//!
//! One message is out at a time, over all nodes: two updates of one key that went to two nodes would race,
//! and the older one could be stored last.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;

use super::link::Link;
use super::{Inner, LinkError};
use crate::bus::{Call, Incoming, Intake, IntakeSource, Settle, Settled};

/// The consumer that all nodes share.
const CONSUMER: &str = "nodes";

/// A message that no node has settled for so long goes to another one, and until then nobody gets the next;
/// longer than a publication may take.
const SETTLE_WITHIN: Duration = Duration::from_secs(8);

/// Messages that may be with nodes at one time.
const UNSETTLED_MAX: i64 = 1;

/// What could not be stored comes again after this.
const LATER: Duration = Duration::from_secs(1);

/// How long a node that has no link waits at most before it looks again.
const RETRY: Duration = Duration::from_millis(250);

pub(super) struct NatsIntake {
    inner: Arc<Inner>,
    /// None until there is a link, and after it is lost: the library would wait for its messages.
    open: Option<(Arc<Link>, pull::Stream)>,
}

impl NatsIntake {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, open: None }
    }

    async fn open(&self, link: &Link) -> Result<pull::Stream, async_nats::Error> {
        let stream = link.context.get_stream_no_info(self.inner.names.in_stream()).await?;
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: SETTLE_WITHIN,
            max_ack_pending: UNSETTLED_MAX,
            ..pull::Config::default()
        };
        // Made, or changed when an older node has made it.
        let consumer = stream.create_consumer(config).await?;
        Ok(consumer.stream().max_messages_per_batch(1).messages().await?)
    }

    /// Waits for a link and opens the queue on it; `None` when the bus has stopped.
    async fn reopen(&self) -> Option<(Arc<Link>, pull::Stream)> {
        let mut stop = self.inner.stop.subscribe();
        let mut link = self.inner.link.subscribe();
        loop {
            let link = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return None,
                link = link.wait_for(Result::is_ok) => link.ok()?.as_ref().ok().cloned(),
            };
            let link = link?;
            match self.open(&link).await {
                Ok(messages) => return Some((link, messages)),
                Err(error) => {
                    let error = LinkError::Broker(error.to_string());
                    tracing::warn!(error = %error, "publications from outside cannot be taken in");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl Intake for NatsIntake {
    fn next(&mut self) -> Call<'_, Option<Incoming>> {
        Box::pin(async move {
            let mut stop = self.inner.stop.subscribe();
            loop {
                if self.open.is_none() {
                    self.open = Some(self.reopen().await?);
                }
                let (link, messages) = self.open.as_mut()?;
                let message = tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return None,
                    () = self.inner.lost(link) => None,
                    message = messages.next() => message,
                };
                match message {
                    Some(Ok(message)) => return Some(incoming(&self.inner, message)),
                    Some(Err(error)) => {
                        tracing::warn!(error = %error, "queue of publications from outside is opened again");
                        self.open = None;
                        tokio::time::sleep(RETRY).await;
                    }
                    None => self.open = None,
                }
            }
        })
    }
}

fn incoming(inner: &Inner, message: Message) -> Incoming {
    let header = |name: &str| text(message.headers.as_ref(), name);
    // One that is delivered again must be known as the same.
    let place =
        message.info().map(|info| format!("in:{}:{}", info.published.unix_timestamp(), info.stream_sequence));
    Incoming {
        source: IntakeSource::NatsIn,
        subscription: inner.names.incoming(message.subject.as_str()).unwrap_or_default().to_owned(),
        message_type: header("Hiveops-Type").unwrap_or_default(),
        payload: message.payload.clone(),
        correlation_id: header("X-Correlation-ID"),
        traceparent: header("traceparent"),
        idempotency_key: header("Nats-Msg-Id").or_else(|| place.ok()),
        settle: Some(settle(message)),
    }
}

fn text(headers: Option<&HeaderMap>, name: &str) -> Option<String> {
    headers.and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned())
}

fn settle(message: Message) -> Settle {
    Box::new(move |settled| {
        Box::pin(async move {
            let kind = match settled {
                Settled::Stored => AckKind::Ack,
                Settled::Refused => AckKind::Term,
                Settled::Later => AckKind::Nak(Some(LATER)),
            };
            if let Err(error) = message.ack_with(kind).await {
                // It comes again, and is then known as a repeat.
                tracing::warn!(error = %error, "publication from outside could not be settled");
            }
        })
    })
}
