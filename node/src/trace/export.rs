//! Sends spans to a receiver of OTLP: a task of its own, which nothing waits for.
//!
//! Whatever the receiver does, a delivery does not notice: spans that find no room in the queue, or cannot be
//! sent within their time, are dropped and counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hiveops_proto::NodeId;
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;

use super::tracer::Tracer;
use crate::config::{Batch, OtlpProtocol, Traces as Config};
use crate::telemetry::metrics::{Metrics, SpanDropped};
use crate::time::Clock;

/// How long a node that stops waits for its last spans to be sent.
pub(crate) const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// A receiver that is away is logged once, and again when this many batches have failed.
const LOG_EVERY: u64 = 100;

/// The task, before it runs.
pub(crate) struct Exporter {
    exporter: SpanExporter,
    queue: mpsc::Receiver<SpanData>,
    /// What is sent next.
    batch: Vec<SpanData>,
    bounds: Batch,
    /// How long one request may take; the crate below does not say that it took longer.
    request_within: Duration,
    metrics: Arc<Metrics>,
    /// Batches that failed since one was taken.
    failed: u64,
}

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExporterError {
    #[error("traces cannot be exported (OTEL_EXPORTER_OTLP_…)")]
    Build(#[from] ExporterBuildError),
    #[error("traces cannot be exported over HTTP")]
    Client(#[from] reqwest::Error),
    #[error("traces cannot be exported with these headers (OTEL_EXPORTER_OTLP_HEADERS)")]
    Headers,
}

/// What makes spans, and what sends them.
pub(crate) fn start(
    config: &Config,
    node_id: &NodeId,
    shards: usize,
    clock: Clock,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<Tracer>, Exporter), ExporterError> {
    let mut exporter = match config.protocol {
        OtlpProtocol::Grpc => grpc(config)?,
        OtlpProtocol::HttpProtobuf => http(config)?,
    };
    exporter.set_resource(&resource(config, node_id));
    let (spans, queue) = mpsc::channel(config.batch.queue_max);
    let dropped = metrics.spans_dropped.clone();
    let tracer = Tracer::new(config.sampler, spans, dropped, clock, shards);
    let (batch, bounds, metrics) = (Vec::new(), config.batch, Arc::clone(metrics));
    let request_within = config.timeout;
    let exporter = Exporter { exporter, queue, batch, bounds, request_within, metrics, failed: 0 };
    Ok((Arc::new(tracer), exporter))
}

// Neither tries again, which the crate does by default: whatever waits for a receiver that is overloaded holds
// up what comes after it, and one whose answer was lost would get the same spans twice.

fn grpc(config: &Config) -> Result<SpanExporter, ExporterError> {
    let headers = http::HeaderMap::try_from(&headers(config)).map_err(|_| ExporterError::Headers)?;
    let builder = SpanExporter::builder().with_tonic().with_endpoint(config.endpoint.as_str());
    let builder = builder.with_timeout(config.timeout).with_metadata(MetadataMap::from_headers(headers));
    Ok(builder.with_retry_policy(RetryPolicy::disabled()).build()?)
}

fn http(config: &Config) -> Result<SpanExporter, ExporterError> {
    // A receiver is reached directly; a proxy of the environment is for other traffic.
    let client = reqwest::Client::builder().no_proxy().timeout(config.timeout).build()?;
    let builder = SpanExporter::builder().with_http().with_http_client(client);
    let builder = builder.with_protocol(Protocol::HttpBinary).with_endpoint(config.endpoint.as_str());
    let builder = builder.with_timeout(config.timeout).with_headers(headers(config));
    Ok(builder.with_retry_policy(RetryPolicy::disabled()).build()?)
}

fn headers(config: &Config) -> std::collections::HashMap<String, String> {
    config.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
}

/// What all spans have in common. What is set by hand wins over what is known.
fn resource(config: &Config, node_id: &NodeId) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.name", config.service_name.clone()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node_id.as_str().to_owned()),
    ];
    // The standard lets the name of OTEL_SERVICE_NAME win.
    let set = config.attributes.iter().filter(|(name, _)| name != "service.name");
    attributes.extend(set.map(|(name, value)| KeyValue::new(name.clone(), value.clone())));
    Resource::builder_empty().with_attributes(attributes).build()
}

impl Exporter {
    /// Sends what comes. After `shutdown` what is left, until `over` at the latest.
    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()>, over: impl Future<Output = ()>) {
        tokio::pin!(shutdown, over);
        let mut stopping = false;
        loop {
            tokio::select! {
                () = &mut shutdown, if !stopping => {
                    stopping = true;
                    // What comes from now on is dropped by whoever brings it, with a count.
                    self.queue.close();
                }
                // Cancel-safe: what was taken from the queue is in the batch.
                is_open = fill(&mut self.queue, &mut self.batch, self.bounds, stopping) => {
                    if !is_open && self.batch.is_empty() {
                        return;
                    }
                }
            }
            if self.batch.is_empty() {
                continue;
            }
            let batch = std::mem::take(&mut self.batch);
            let count = batch.len() as u64;
            let outcome = tokio::select! {
                outcome = self.send(batch) => outcome,
                () = &mut over => {
                    self.give_up(count);
                    return;
                }
            };
            self.note(count, outcome);
        }
    }

    /// Sends one batch. The receiver's words are not logged: it was sent headers that are secret.
    async fn send(&self, batch: Vec<SpanData>) -> Result<(), SpanDropped> {
        let begun = Instant::now();
        match tokio::time::timeout(self.bounds.timeout, self.exporter.export(batch)).await {
            Ok(Ok(())) => Ok(()),
            Err(_) | Ok(Err(OTelSdkError::Timeout(_))) => Err(SpanDropped::Timeout),
            // A request that was cut off is an internal failure to the crate, as one that was refused is.
            Ok(Err(_)) if begun.elapsed() >= self.request_within => Err(SpanDropped::Timeout),
            Ok(Err(OTelSdkError::AlreadyShutdown | OTelSdkError::InternalFailure(_))) => {
                Err(SpanDropped::ExportFailed)
            }
        }
    }

    /// Counts what can no longer be sent.
    fn give_up(&mut self, sending: u64) {
        let mut left = sending + self.batch.len() as u64;
        while self.queue.try_recv().is_ok() {
            left += 1;
        }
        self.metrics.spans_dropped.with_label_values(&[SpanDropped::Shutdown.as_str()]).inc_by(left);
    }

    fn note(&mut self, count: u64, outcome: Result<(), SpanDropped>) {
        match outcome {
            Ok(()) => {
                self.metrics.spans_exported.inc_by(count);
                if std::mem::take(&mut self.failed) > 0 {
                    tracing::info!("spans are taken again");
                }
            }
            Err(reason) => {
                self.metrics.spans_dropped.with_label_values(&[reason.as_str()]).inc_by(count);
                if self.failed.is_multiple_of(LOG_EVERY) {
                    let reason = reason.as_str();
                    tracing::warn!(reason, spans = count, failed = self.failed + 1, "spans were not taken");
                }
                self.failed += 1;
            }
        }
    }
}

/// Fills a batch: until it is full, or its first span has waited long enough; false when no more will come.
async fn fill(
    queue: &mut mpsc::Receiver<SpanData>,
    batch: &mut Vec<SpanData>,
    bounds: Batch,
    stopping: bool,
) -> bool {
    if batch.is_empty() {
        match queue.recv().await {
            Some(span) => batch.push(span),
            None => return false,
        }
    }
    let delay = if stopping { Duration::ZERO } else { bounds.delay };
    let late = tokio::time::sleep(delay);
    tokio::pin!(late);
    while batch.len() < bounds.size_max {
        tokio::select! {
            biased;
            span = queue.recv() => match span {
                Some(span) => batch.push(span),
                None => return false,
            },
            () = &mut late => break,
        }
    }
    true
}
