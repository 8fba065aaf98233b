//! The part of the configuration that says where traces go.

use std::time::Duration;

use super::Builder;
use crate::config::Secret;
use crate::config::traces::{Batch, Endpoint, Pairs, Sampler, Traces};
use crate::config::value::{OtlpProtocol, SamplerName};

/// Spans that may wait at most, whatever is set: each is about a kilobyte.
const QUEUE_MAX: usize = 65_536;

/// Milliseconds of a delay or deadline at most.
const MILLIS_MAX: u64 = 600_000;

impl Builder {
    /// None where nothing is to be traced; the outer one says whether there is a mistake. All parts are read in
    /// any case, so that a mistake is found before tracing is turned on.
    pub(super) fn traces(&mut self) -> Option<Option<Traces>> {
        let disabled = self.switch("otel_sdk_disabled");
        let protocol = self.parse("otel_exporter_otlp_protocol");
        let endpoint = self.endpoint(protocol);
        let headers = self.headers();
        let timeout = self.millis("otel_exporter_otlp_timeout");
        let service_name = self.text("otel_service_name");
        let attributes = self.attributes();
        let sampler = self.sampler();
        let batch = self.batch();
        let (disabled, endpoint) = (disabled?, endpoint?);
        let traces = Traces {
            endpoint: match endpoint {
                Some(endpoint) if !disabled => endpoint,
                Some(_) | None => return Some(None),
            },
            protocol: protocol?,
            headers: headers?,
            timeout: timeout?,
            service_name,
            attributes: attributes?,
            sampler: sampler?,
            batch: batch?,
        };
        Some(Some(traces))
    }

    /// The one for traces wins over the one for all signals, which gets the standard's path for them.
    fn endpoint(&mut self, protocol: Option<OtlpProtocol>) -> Option<Option<Endpoint>> {
        let mut of = |name: &str| match self.layer.contains_key(name) {
            true => self.parse::<Endpoint>(name).map(Some),
            false => Some(None),
        };
        let (all, traces) = (of("otel_exporter_otlp_endpoint"), of("otel_exporter_otlp_traces_endpoint"));
        let (all, traces, protocol) = (all?, traces?, protocol?);
        Some(traces.or(all.map(|all| all.for_traces(protocol))))
    }

    fn headers(&mut self) -> Option<Vec<(String, Secret)>> {
        let name = "otel_exporter_otlp_headers";
        if !self.layer.contains_key(name) {
            return Some(Vec::new());
        }
        let Pairs(pairs) = self.parse_secret(name)?;
        let is_sendable = |(key, value): &(String, String)| {
            http::HeaderName::try_from(key.as_str()).is_ok()
                && http::HeaderValue::try_from(value.as_str()).is_ok()
        };
        if !pairs.iter().all(is_sendable) {
            self.mistake(name, "has something that cannot be a header", "write names and visible ASCII");
            return None;
        }
        Some(pairs.into_iter().map(|(key, value)| (key.to_lowercase(), Secret::new(value))).collect())
    }

    fn attributes(&mut self) -> Option<Vec<(String, String)>> {
        let name = "otel_resource_attributes";
        if self.layer.contains_key(name) {
            self.parse(name).map(|Pairs(pairs)| pairs)
        } else {
            Some(Vec::new())
        }
    }

    fn sampler(&mut self) -> Option<Sampler> {
        let (kind, name) = (self.parse::<SamplerName>("otel_traces_sampler"), "otel_traces_sampler_arg");
        let share: f64 = self.parse_as(name, "is not a share from 0 to 1")?;
        if !(0.0..=1.0).contains(&share) {
            self.mistake(
                name,
                format!("`{share}` is not a share from 0 to 1"),
                "0.01 keeps one of a hundred",
            );
            return None;
        }
        Some(Sampler::new(kind?, share))
    }

    fn batch(&mut self) -> Option<Batch> {
        let (delay, timeout) =
            (self.millis("otel_bsp_schedule_delay"), self.millis("otel_bsp_export_timeout"));
        let queue_max = self.count("otel_bsp_max_queue_size");
        let size_max = self.count("otel_bsp_max_export_batch_size");
        let (queue_max, size_max) = (queue_max?, size_max?);
        if size_max > queue_max {
            let problem = format!("{size_max} spans of one batch do not fit into a queue of {queue_max}");
            self.mistake(
                "otel_bsp_max_export_batch_size",
                problem,
                "lower it, or raise OTEL_BSP_MAX_QUEUE_SIZE",
            );
            return None;
        }
        Some(Batch { queue_max, size_max, delay: delay?, timeout: timeout? })
    }

    fn millis(&mut self, name: &str) -> Option<Duration> {
        let millis: u64 = self.parse_as(name, "is not a whole number of milliseconds")?;
        if !(1..=MILLIS_MAX).contains(&millis) {
            self.mistake(name, format!("must be 1 to {MILLIS_MAX}, not {millis}"), "write milliseconds");
            return None;
        }
        Some(Duration::from_millis(millis))
    }

    fn count(&mut self, name: &str) -> Option<usize> {
        let count: usize = self.parse_as(name, "is not a whole number of spans")?;
        if !(1..=QUEUE_MAX).contains(&count) {
            self.mistake(name, format!("must be 1 to {QUEUE_MAX}, not {count}"), "write a number of spans");
            return None;
        }
        Some(count)
    }
}
