//! OpenMetrics 1.0, for those who ask for it: what the text format has, and examples of latencies. Pure.
//!
//! `prometheus` writes its own text format only. The differences are few: a counter's family has no `_total`,
//! units are said, numbers in `le` are floats, buckets may carry an example, and the end is marked.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::exemplar::Exemplar;

/// What it is called in `Content-Type`.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The media types that a scraper may want.
const OPENMETRICS: &str = "application/openmetrics-text";
const PLAIN: &str = "text/plain";

/// Units that the names of metrics end with.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Whether somebody who sends this `Accept` wants OpenMetrics rather than the text format. Who accepts
/// everything gets the latter, as ever.
pub(crate) fn is_wanted(accept: &str) -> bool {
    let quality =
        |media: &str| accept.split(',').filter_map(|range| weight(range, media)).fold(0_u16, u16::max);
    let wanted = quality(OPENMETRICS);
    wanted > 0 && wanted >= quality(PLAIN)
}

/// The weight of a range of `Accept` in thousandths, when it is of this media type and of a version that is
/// spoken here.
fn weight(range: &str, media: &str) -> Option<u16> {
    let mut parts = range.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(media) {
        return None;
    }
    let mut weight = 1_000;
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => weight = (value.trim().parse::<f32>().ok()?.clamp(0.0, 1.0) * 1_000.0) as u16,
            "version" if media == OPENMETRICS && !matches!(value.trim(), "1.0.0" | "0.0.1") => return None,
            _ => {}
        }
    }
    Some(weight)
}

/// Writes what was gathered. `examples` has those of each bucket of the family called so.
pub(crate) fn encode(families: &[MetricFamily], examples: impl Fn(&str) -> Vec<Option<Exemplar>>) -> String {
    let mut out = Out(String::with_capacity(64 * 1024));
    for family in families {
        let kind = family.get_field_type();
        let name = match kind {
            MetricType::COUNTER => family.name().strip_suffix("_total").unwrap_or(family.name()),
            MetricType::GAUGE | MetricType::HISTOGRAM | MetricType::SUMMARY | MetricType::UNTYPED => {
                family.name()
            }
        };
        out.head(name, kind, family.help());
        let examples = if kind == MetricType::HISTOGRAM { examples(name) } else { Vec::new() };
        for metric in family.get_metric() {
            match kind {
                MetricType::COUNTER => {
                    out.sample(name, "_total", metric, None, metric.get_counter().get_value());
                    out.end(None);
                }
                MetricType::HISTOGRAM => out.histogram(name, metric, &examples),
                MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                    out.sample(name, "", metric, None, metric.get_gauge().get_value());
                    out.end(None);
                }
            }
        }
    }
    out.0.push_str("# EOF\n");
    out.0
}

/// The text as it grows. Writing to a string does not fail, so its results are passed over.
struct Out(String);

impl Out {
    fn head(&mut self, name: &str, kind: MetricType, help: &str) {
        let kind = match kind {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            // Nothing here makes one.
            MetricType::SUMMARY | MetricType::UNTYPED => "unknown",
        };
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if let Some(unit) = UNITS.iter().find(|unit| is_of_unit(name, unit)) {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.0, "# HELP {name} {}", escaped(help));
    }

    fn histogram(&mut self, name: &str, metric: &Metric, examples: &[Option<Exemplar>]) {
        let histogram = metric.get_histogram();
        let count = histogram.get_sample_count();
        let buckets = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
        let buckets = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
        for (index, (edge, below)) in buckets.chain([(f64::INFINITY, count)]).enumerate() {
            self.sample(name, "_bucket", metric, Some(edge), below as f64);
            self.end(examples.get(index).and_then(Option::as_ref));
        }
        self.sample(name, "_count", metric, None, count as f64);
        self.end(None);
        self.sample(name, "_sum", metric, None, histogram.get_sample_sum());
        self.end(None);
    }

    fn sample(&mut self, name: &str, suffix: &str, metric: &Metric, edge: Option<f64>, value: f64) {
        let _ = write!(self.0, "{name}{suffix}");
        let labels = metric.get_label();
        if !labels.is_empty() || edge.is_some() {
            self.0.push('{');
            for (index, label) in labels.iter().enumerate() {
                self.label(index, label);
            }
            if let Some(edge) = edge {
                let comma = if labels.is_empty() { "" } else { "," };
                let _ = write!(self.0, "{comma}le=\"{}\"", float(edge));
            }
            self.0.push('}');
        }
        let _ = write!(self.0, " {}", number(value));
    }

    fn label(&mut self, index: usize, label: &LabelPair) {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(self.0, "{comma}{}=\"{}\"", label.name(), escaped(label.value()));
    }

    fn end(&mut self, example: Option<&Exemplar>) {
        if let Some(Exemplar { subject, value, at }) = example {
            let labels = subject.labels();
            if labels.is_empty() {
                return self.0.push('\n');
            }
            let seconds = at.as_millis() as f64 / 1_000.0;
            let _ = write!(self.0, " # {{{labels}}} {} {seconds:.3}", number(*value));
        }
        self.0.push('\n');
    }
}

fn is_of_unit(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
}

/// A number that is always a float, as edges of buckets have to be.
fn float(value: f64) -> String {
    if value.is_infinite() { "+Inf".to_owned() } else { format!("{value:?}") }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        value.to_string()
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use hiveops_proto::{CorrelationId, Timestamp};
    use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    use super::*;
    use crate::telemetry::exemplar::Subject;

    #[test]
    fn the_text_is_what_openmetrics_says() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("a_bytes_total", "Says \"so\".\n"), &["code"]).unwrap();
        counter.with_label_values(&["x\\y\"z"]).inc_by(3);
        let gauge = Gauge::new("b_seconds", "Age.").unwrap();
        gauge.set(-1.5);
        let opts = HistogramOpts::new("c_size", "Sizes.").buckets(vec![1.0, 2.5]);
        let histogram = HistogramVec::new(opts, &["part"]).unwrap();
        histogram.with_label_values(&["own"]).observe(2.0);
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(gauge)).unwrap();
        registry.register(Box::new(histogram)).unwrap();
        let subject = Subject::new(CorrelationId::new("c-1").unwrap(), None);
        let example = Exemplar { subject, value: 2.0, at: Timestamp::from_millis(1_750_000_000_123) };
        let examples = |name: &str| {
            assert_eq!(name, "c_size");
            vec![None, Some(example.clone()), None]
        };
        let expected = r#"# TYPE a_bytes counter
# UNIT a_bytes bytes
# HELP a_bytes Says \"so\".\n
a_bytes_total{code="x\\y\"z"} 3
# TYPE b_seconds gauge
# UNIT b_seconds seconds
# HELP b_seconds Age.
b_seconds -1.5
# TYPE c_size histogram
# HELP c_size Sizes.
c_size_bucket{part="own",le="1.0"} 0
c_size_bucket{part="own",le="2.5"} 1 # {correlation_id="c-1"} 2 1750000000.123
c_size_bucket{part="own",le="+Inf"} 1
c_size_count{part="own"} 1
c_size_sum{part="own"} 2
# EOF
"#;
        assert_eq!(encode(&registry.gather(), examples), expected);
    }

    #[test]
    fn who_asks_for_it_gets_it_and_nobody_else() {
        for wanted in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain;q=0.5, Application/OpenMetrics-Text; version=0.0.1",
        ] {
            assert!(is_wanted(wanted), "{wanted}");
        }
        for other in [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=nonsense",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-texts",
        ] {
            assert!(!is_wanted(other), "{other}");
        }
    }
}
