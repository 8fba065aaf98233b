//! Every metric of the node: name, help, labels. `docs/metrics.md` lists the same, and a test compares.
//!
//! Labels come from closed sets only: enums of the contract, names of the contract in force.

use std::sync::Arc;

use hiveops_proto::{DisconnectReason, ErrorCode, SubscriptionName};
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::exemplar::Exemplar;
pub(crate) use super::labels::{Discarded, HandshakeRefusal, Refusal, Rejected, SnapshotReason};
use super::latency::Latency;
use super::openmetrics;
use super::quantile::Bucket;
pub(crate) use super::reason::SpanDropped;
use crate::admission::AskOutcome;
use crate::auth::{Denial, LoginRefusal, NoTicket, RefreshOutcome};
use crate::bus::IntakeSource;
use crate::cluster::SignalDropped;
use crate::http::client::Ignored;
use crate::hub::Dropped;
use crate::tls::Reload;

/// Seconds; the edges of the delivery objective (0.25) and of its neighbours are exact.
const LATENCY: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bytes; the soft cap (65,536) is an edge.
const BYTES: &[f64] = &[64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// Seconds of one batch on one shard; its own work is far below the sends.
const FANOUT_SECONDS: &[f64] = &[
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    1.0,
];

/// Sessions that one publication went to.
const FANOUT: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

/// Handles to all metrics of one node.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) messages_sent: IntCounter,
    pub(crate) send_failures: IntCounter,
    pub(crate) messages_received: IntCounter,
    pub(crate) dropped_rate_limit: IntCounter,
    pub(crate) discarded: IntCounterVec,
    pub(crate) errors_sent: IntCounterVec,
    pub(crate) connections: IntCounter,
    pub(crate) disconnections: IntCounterVec,
    pub(crate) backpressure_disconnects: IntCounterVec,
    pub(crate) idle_disconnects: IntCounter,
    pub(crate) auth_denied: IntCounterVec,
    pub(crate) auth_refreshed: IntCounter,
    pub(crate) auth_kept: IntCounter,
    pub(crate) logins: IntCounter,
    pub(crate) requests_denied: IntCounterVec,
    pub(crate) refreshes: IntCounterVec,
    pub(crate) origin_denied: IntCounter,
    pub(crate) handshakes_refused: IntCounterVec,
    pub(crate) forwarded_ignored: IntCounterVec,
    pub(crate) tls_reloads: IntCounterVec,
    pub(crate) tls_expires: IntGauge,
    pub(crate) bytes_sent: IntCounter,
    pub(crate) bytes_received: IntCounter,
    pub(crate) recipients: IntCounterVec,
    pub(crate) caught_up: IntCounterVec,
    pub(crate) delivered: IntCounterVec,
    pub(crate) coalesced: IntCounterVec,
    pub(crate) dropped: IntCounterVec,
    pub(crate) pending: IntGaugeVec,
    pub(crate) replayed: IntCounter,
    pub(crate) snapshots: IntCounterVec,
    pub(crate) version_mismatches: IntCounter,
    pub(crate) connections_active: IntGauge,
    pub(crate) subscriptions: IntGaugeVec,
    pub(crate) last_fanout: IntGauge,
    pub(crate) outbox_frames: IntGauge,
    pub(crate) bus_live: IntGauge,
    pub(crate) control_view_age: Gauge,
    pub(crate) contract_waiting: IntGauge,
    pub(crate) lease_held: IntGauge,
    pub(crate) lease_used: IntGauge,
    pub(crate) lease_scarce: IntGauge,
    pub(crate) lease_age: Gauge,
    pub(crate) lease_asks: IntCounterVec,
    pub(crate) delivery: Latency,
    pub(crate) publish_to_socket: Latency,
    pub(crate) bus_seconds: Histogram,
    pub(crate) outbox_wait: Histogram,
    pub(crate) message_bytes: HistogramVec,
    pub(crate) fanout: HistogramVec,
    pub(crate) fanout_size: Histogram,
    pub(crate) publications: IntCounterVec,
    pub(crate) publications_refused: IntCounterVec,
    pub(crate) bus_resets: IntCounter,
    pub(crate) probe_failures: IntCounter,
    pub(crate) bus_reconnects: IntCounter,
    pub(crate) bus_resyncs: IntCounter,
    pub(crate) bus_gaps: IntCounter,
    pub(crate) bus_lagged: IntCounter,
    pub(crate) bus_retries: IntCounter,
    pub(crate) bus_bad_entries: IntCounter,
    pub(crate) bus_invalid: IntCounterVec,
    pub(crate) bus_taken_in: IntCounterVec,
    pub(crate) cluster_nodes: IntGauge,
    pub(crate) cluster_signals_dropped: IntCounterVec,
    pub(crate) log_lines_dropped: IntCounter,
    pub(crate) spans_exported: IntCounter,
    pub(crate) spans_dropped: IntCounterVec,
}

/// Makes metrics and registers them; the first mistake is kept, so that the list below stays a list.
struct Maker {
    registry: Registry,
    mistake: Option<prometheus::Error>,
}

impl Maker {
    fn add<C: Collector + Clone + 'static>(&mut self, made: prometheus::Result<C>) -> Option<C> {
        let added = made.and_then(|metric| {
            self.registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        });
        match added {
            Ok(metric) => Some(metric),
            Err(error) => {
                self.mistake.get_or_insert(error);
                None
            }
        }
    }
}

/// Builds [`Metrics`] field by field from a table.
macro_rules! build {
    ($maker:ident, $registry:ident; $($field:ident = $kind:ident($($arg:expr),+);)+) => {{
        $(let $field = $maker.add(make::$kind($($arg),+));)+
        match ($maker.mistake, $($field),+) {
            (None, $(Some($field)),+) => Ok(Metrics { registry: $registry, $($field),+ }),
            (mistake, ..) => Err(mistake.unwrap_or(prometheus::Error::AlreadyReg)),
        }
    }};
}

mod make {
    use super::{
        Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
        Latency, Opts,
    };
    use prometheus::Result;

    pub(super) fn counter(name: &str, help: &str) -> Result<IntCounter> {
        IntCounter::new(name, help)
    }
    pub(super) fn counters(name: &str, help: &str, label: &str) -> Result<IntCounterVec> {
        IntCounterVec::new(Opts::new(name, help), &[label])
    }
    pub(super) fn counters_by(name: &str, help: &str, labels: [&str; 2]) -> Result<IntCounterVec> {
        IntCounterVec::new(Opts::new(name, help), &labels)
    }
    pub(super) fn latency(name: &str, help: &str, edges: &'static [f64]) -> Result<Latency> {
        Latency::new(name, help, edges)
    }
    pub(super) fn gauge(name: &str, help: &str) -> Result<IntGauge> {
        IntGauge::new(name, help)
    }
    pub(super) fn seconds(name: &str, help: &str) -> Result<Gauge> {
        Gauge::new(name, help)
    }
    pub(super) fn gauges(name: &str, help: &str, label: &str) -> Result<IntGaugeVec> {
        IntGaugeVec::new(Opts::new(name, help), &[label])
    }
    pub(super) fn histogram(name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    }
    pub(super) fn histograms(name: &str, help: &str, label: &str, buckets: &[f64]) -> Result<HistogramVec> {
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])
    }
}

impl Metrics {
    /// Registers everything, and shows every member of the closed label sets from the start, so that a
    /// rate over a counter that has not moved yet is 0 and not absent.
    pub(crate) fn new(subscriptions: &[SubscriptionName]) -> Result<Arc<Self>, prometheus::Error> {
        let metrics = Self::register()?;
        for code in ErrorCode::ALL {
            metrics.errors_sent.with_label_values(&[code.as_str()]);
        }
        for reason in DisconnectReason::ALL {
            metrics.disconnections.with_label_values(&[reason.as_str()]);
        }
        for reason in Discarded::ALL {
            metrics.discarded.with_label_values(&[reason.as_str()]);
        }
        for reason in SpanDropped::ALL {
            metrics.spans_dropped.with_label_values(&[reason.as_str()]);
        }
        for reason in SnapshotReason::ALL {
            metrics.snapshots.with_label_values(&[reason.as_str()]);
        }
        for reason in Refusal::ALL {
            metrics.publications_refused.with_label_values(&[reason.as_str()]);
        }
        for reason in Rejected::ALL {
            metrics.bus_invalid.with_label_values(&[reason.as_str()]);
        }
        for source in IntakeSource::ALL {
            metrics.bus_taken_in.with_label_values(&[source.as_str()]);
        }
        for reason in SignalDropped::ALL {
            metrics.cluster_signals_dropped.with_label_values(&[reason.as_str()]);
        }
        for reason in HandshakeRefusal::ALL {
            metrics.handshakes_refused.with_label_values(&[reason.as_str()]);
        }
        for reason in Ignored::ALL {
            metrics.forwarded_ignored.with_label_values(&[reason.as_str()]);
        }
        for outcome in Reload::ALL {
            metrics.tls_reloads.with_label_values(&[outcome.as_str()]);
        }
        for denial in Denial::ALL {
            metrics.requests_denied.with_label_values(&[denial.as_str()]);
            // A socket of a wrong origin has a counter of its own.
            if *denial != Denial::Origin {
                metrics.auth_denied.with_label_values(&[denial.as_str()]);
            }
        }
        for word in LoginRefusal::ALL.map(LoginRefusal::as_str).into_iter().chain(NoTicket::WORDS) {
            metrics.requests_denied.with_label_values(&[word]);
        }
        for outcome in RefreshOutcome::ALL {
            metrics.refreshes.with_label_values(&[outcome.as_str()]);
        }
        for outcome in AskOutcome::ALL {
            metrics.lease_asks.with_label_values(&[outcome.as_str()]);
        }
        metrics.backpressure_disconnects.with_label_values(&["outbox_full"]);
        metrics.declare(subscriptions);
        for part in ["wait", "send", "own"] {
            metrics.fanout.with_label_values(&[part]);
        }
        for direction in ["in", "out"] {
            metrics.message_bytes.with_label_values(&[direction]);
        }
        Ok(Arc::new(metrics))
    }

    /// Shows the series of these subscriptions before anything happens on them.
    pub(crate) fn declare(&self, subscriptions: &[SubscriptionName]) {
        for name in subscriptions {
            for counter in [&self.recipients, &self.caught_up, &self.delivered, &self.coalesced] {
                counter.with_label_values(&[name.as_str()]);
            }
            for reason in Dropped::ALL {
                self.dropped.with_label_values(&[name.as_str(), reason.as_str()]);
            }
            self.pending.with_label_values(&[name.as_str()]);
            self.subscriptions.with_label_values(&[name.as_str()]);
            self.publications.with_label_values(&[name.as_str()]);
        }
    }

    #[expect(clippy::too_many_lines, reason = "a table: one entry for each metric")]
    fn register() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let mut maker = Maker { registry: registry.clone(), mistake: None };
        build! { maker, registry;
            messages_sent = counter("hiveops_ws_messages_sent_total", "Frames that left for a socket whole.");
            send_failures = counter("hiveops_ws_messages_send_failures_total", "Frames that could neither be queued nor coalesced.");
            messages_received = counter("hiveops_ws_messages_received_total", "Client messages that arrived whole, dropped ones included.");
            dropped_rate_limit = counter("hiveops_ws_messages_dropped_rate_limit_total", "Client messages dropped by the inbound rate.");
            discarded = counters("hiveops_ws_messages_discarded_total", "Queued frames that never left, by reason.", "reason");
            errors_sent = counters("hiveops_ws_errors_sent_total", "Error and data_error frames, by code.", "code");
            connections = counter("hiveops_ws_connections_total", "Sessions that were established.");
            disconnections = counters("hiveops_ws_disconnections_total", "Sessions that ended, by reason.", "reason");
            backpressure_disconnects = counters("hiveops_ws_backpressure_disconnects_total", "Sessions ended because they did not keep up, by reason.", "reason");
            idle_disconnects = counter("hiveops_ws_idle_disconnects_total", "Sessions ended because their client was silent for too long.");
            auth_denied = counters("hiveops_ws_auth_denied_total", "Handshakes and sockets that were refused for their credential or role, by reason.", "reason");
            auth_refreshed = counter("hiveops_ws_auth_refreshed_total", "Credentials renewed on an open socket.");
            auth_kept = counter("hiveops_ws_auth_outage_kept_total", "Sessions kept beyond the end of their credential because control could not be asked.");
            logins = counter("hiveops_http_auth_success_total", "Logins that control granted through this node.");
            requests_denied = counters("hiveops_http_auth_denied_total", "HTTP requests refused for their credential or role, by reason.", "reason");
            refreshes = counters("hiveops_http_auth_refresh_total", "Refresh tokens that were brought to this node, by outcome.", "outcome");
            origin_denied = counter("hiveops_ws_origin_denied_total", "Handshakes closed with 4403 for their origin.");
            handshakes_refused = counters("hiveops_ws_handshakes_refused_total", "Handshakes answered with an error or cut off, by reason.", "reason");
            forwarded_ignored = counters("hiveops_http_forwarded_for_ignored_total", "Requests whose X-Forwarded-For was ignored, by reason.", "reason");
            tls_reloads = counters("hiveops_tls_reloads_total", "Times that another certificate was found in its files, or asked for by SIGHUP, by outcome.", "outcome");
            tls_expires = gauge("hiveops_tls_certificate_expires_seconds", "Until when the certificate in use is good, as seconds since 1970; 0 without one.");
            bytes_sent = counter("hiveops_ws_bytes_sent_total", "Bytes that sockets took.");
            bytes_received = counter("hiveops_ws_bytes_received_total", "Bytes that sockets gave.");
            recipients = counters("hiveops_ws_publication_recipients_total", "Frames of live publications that became due to a session, by subscription.", "subscription");
            caught_up = counters("hiveops_ws_publication_caught_up_total", "Those of the recipients that the log fed in for sessions that caught up, by subscription.", "subscription");
            delivered = counters("hiveops_ws_publication_delivered_total", "Frames of live publications that a socket took whole, by subscription.", "subscription");
            dropped = counters_by("hiveops_ws_publication_dropped_total", "Frames of live publications that no socket gets, by subscription and reason.", ["subscription", "reason"]);
            pending = gauges("hiveops_ws_publications_pending", "Frames of live publications that wait in outboxes now, by subscription.", "subscription");
            coalesced = counters("hiveops_ws_coalesced_total", "Updates whose place a later value of their key took, by subscription.", "subscription");
            replayed = counter("hiveops_ws_replayed_total", "Frames sent again because a client asked with since.");
            snapshots = counters("hiveops_ws_snapshots_total", "Snapshots sent, by reason.", "reason");
            version_mismatches = counter("hiveops_ws_client_version_mismatch_total", "Clients that reported a contract version they do not support.");
            connections_active = gauge("hiveops_ws_connections_active", "Sessions now.");
            subscriptions = gauges("hiveops_ws_subscriptions", "Sessions joined to each subscription now.", "subscription");
            last_fanout = gauge("hiveops_ws_last_fanout", "Sessions that the last publication was due to.");
            outbox_frames = gauge("hiveops_ws_outbox_frames", "Frames that wait in outboxes now.");
            bus_live = gauge("hiveops_ws_bus_live", "1 while the bus has lately proved that it delivers.");
            control_view_age = seconds("hiveops_ws_control_view_age_seconds", "Age of the control view.");
            contract_waiting = gauge("hiveops_ws_contract_waiting", "1 while the contract version in force in the cluster is not in force on this node.");
            lease_held = gauge("hiveops_ws_lease_held", "Connections of the cluster-wide limit that this node may hold; -1 without a limit.");
            lease_used = gauge("hiveops_ws_lease_used", "Connections of this node that count, those that are being closed included.");
            lease_scarce = gauge("hiveops_ws_lease_scarce", "1 while nodes want more connections than the limit allows.");
            lease_age = seconds("hiveops_ws_lease_age_seconds", "Since the last ask that control answered was sent; -1 without a lease.");
            lease_asks = counters("hiveops_ws_lease_asks_total", "Asks for a share of the cluster-wide limits, by outcome.", "outcome");
            delivery = latency("hiveops_ws_delivery_seconds", "From the node's receipt of a publication to the socket's taking it.", LATENCY);
            publish_to_socket = latency("hiveops_ws_publish_to_socket_seconds", "From the publication's own timestamp to the socket's taking it, whether it waited or not.", LATENCY);
            bus_seconds = histogram("hiveops_ws_bus_seconds", "From the publication's own timestamp to the node's receipt.", LATENCY);
            outbox_wait = histogram("hiveops_ws_outbox_wait_seconds", "How long frames waited in an outbox.", LATENCY);
            message_bytes = histograms("hiveops_ws_message_bytes", "Size of messages, by direction.", "direction", BYTES);
            fanout = histograms("hiveops_ws_fanout_seconds", "Where the time of a fan-out goes, once per shard and batch: waiting for the shard, the sends, the node's own work.", "part", FANOUT_SECONDS);
            fanout_size = histogram("hiveops_ws_fanout_size", "Sessions that a publication was due to.", FANOUT);
            publications = counters("hiveops_bus_publications_total", "Publications received from the bus, by subscription.", "subscription");
            publications_refused = counters("hiveops_bus_publications_refused_total", "Publications that did not enter the log, or are not known to have, by reason.", "reason");
            bus_resets = counter("hiveops_bus_resets_total", "Logs that were read anew.");
            probe_failures = counter("hiveops_bus_probe_failures_total", "Probes that did not come back in time.");
            bus_reconnects = counter("hiveops_bus_reconnects_total", "Connections to the broker that ended, or could not be made.");
            bus_resyncs = counter("hiveops_bus_resyncs_total", "Times that a log was compared with the broker's and read on from there.");
            bus_gaps = counter("hiveops_bus_gaps_total", "Live messages of the bus that did not follow the one before; each led to a resync.");
            bus_lagged = counter("hiveops_bus_lagged_total", "Times that the bus said it dropped messages for this node; each led to a resync.");
            bus_retries = counter("hiveops_bus_publish_retries_total", "Publications tried again because another node had changed their key meanwhile.");
            bus_bad_entries = counter("hiveops_bus_bad_entries_total", "Entries of a log that no node wrote, passed over.");
            bus_invalid = counters("hiveops_bus_invalid_total", "Publications handed to the bus by others that were dropped, or for correlation_id repaired, by reason.", "reason");
            bus_taken_in = counters("hiveops_bus_taken_in_total", "Publications handed to the bus by others that this node has stored, by way in.", "source");
            cluster_nodes = gauge("hiveops_cluster_nodes", "Nodes of the cluster that hold a lease now, this one included.");
            cluster_signals_dropped = counters("hiveops_cluster_signals_dropped_total", "What other nodes said and this one could not use, by reason.", "reason");
            log_lines_dropped = counter("hiveops_log_lines_dropped_total", "Log lines dropped because nobody read them fast enough.");
            spans_exported = counter("hiveops_trace_spans_exported_total", "Spans that a receiver of traces has taken.");
            spans_dropped = counters("hiveops_trace_spans_dropped_total", "Spans that no receiver of traces has taken, by reason.", "reason");
        }
    }

    /// The buckets of the delivery histogram, the one without an edge included.
    pub(crate) fn delivery_buckets(&self) -> Vec<Bucket> {
        let families = self.delivery.collect();
        let Some(metric) = families.first().and_then(|family| family.get_metric().first()) else {
            return Vec::new();
        };
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket().iter();
        let mut buckets: Vec<Bucket> =
            buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
        buckets.push((f64::INFINITY, histogram.get_sample_count()));
        buckets
    }

    /// Everything in the Prometheus text format.
    pub(crate) fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    /// The same in the format of OpenMetrics, with examples of latencies.
    pub(crate) fn render_openmetrics(&self) -> String {
        openmetrics::encode(&self.registry.gather(), |name| self.examples(name))
    }

    fn examples(&self, name: &str) -> Vec<Option<Exemplar>> {
        let latencies = [&self.delivery, &self.publish_to_socket];
        latencies
            .into_iter()
            .find(|latency| latency.name() == name)
            .map(Latency::examples)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_shows_its_closed_labels() {
        let names = [SubscriptionName::new("tasks").unwrap()];
        let text = Metrics::new(&names).unwrap().render().unwrap();
        assert!(text.contains("hiveops_ws_errors_sent_total{code=\"rate_limited\"} 0"));
        assert!(text.contains("hiveops_ws_subscriptions{subscription=\"tasks\"} 0"));
        assert!(text.contains("hiveops_ws_disconnections_total{reason=\"backpressure\"} 0"));
    }
}
