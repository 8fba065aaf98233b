//! A histogram of latencies that shards count for themselves, many observations at a time, and that keeps one
//! example per bucket: which publication it was. `prometheus` has neither.
//!
//! A shard's own counts are plain numbers, and reach the others once per turn. Examples are rare by design:
//! one per bucket, shard and second, so that a delivery pays for a comparison.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hiveops_proto::Timestamp;
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use super::exemplar::{Exemplar, Subject};

/// A shard offers an example of one bucket at most this often.
const EXAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Examples of a bucket that are due on their own: of any publication, and of a sampled trace.
const KINDS: usize = 2;

/// The histogram; cheap to clone.
#[derive(Clone)]
pub(crate) struct Latency(Arc<Inner>);

struct Inner {
    desc: Desc,
    edges: &'static [f64],
    /// One more than there are edges.
    counts: Box<[AtomicU64]>,
    sum_micros: AtomicU64,
    /// One per bucket. Held for a moment by scrapes, and by shards that find it free.
    examples: Mutex<Vec<Option<Exemplar>>>,
}

/// One shard's part of it.
pub(crate) struct LocalLatency {
    of: Latency,
    counts: Vec<u64>,
    sum_seconds: f64,
    /// When the next example of each bucket may be offered: of any publication, and of a sampled trace.
    due: Vec<(Option<Instant>, Option<Instant>)>,
    /// What others have not seen yet.
    fresh: Vec<(usize, Subject, f64)>,
}

impl Latency {
    pub(crate) fn new(name: &str, help: &str, edges: &'static [f64]) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), help.to_owned(), Vec::new(), Default::default())?;
        let buckets = edges.len() + 1;
        Ok(Self(Arc::new(Inner {
            desc,
            edges,
            counts: std::iter::repeat_with(AtomicU64::default).take(buckets).collect(),
            sum_micros: AtomicU64::new(0),
            examples: Mutex::new(vec![None; buckets]),
        })))
    }

    pub(crate) fn local(&self) -> LocalLatency {
        let buckets = self.0.counts.len();
        LocalLatency {
            of: self.clone(),
            counts: vec![0; buckets],
            sum_seconds: 0.0,
            due: vec![(None, None); buckets],
            fresh: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.desc.fq_name
    }

    /// The example of each bucket.
    pub(crate) fn examples(&self) -> Vec<Option<Exemplar>> {
        self.0.examples.lock().clone()
    }
}

impl LocalLatency {
    /// Counts `times` observations of `seconds`, made at `at`, of what `subject` names.
    pub(crate) fn observe(
        &mut self,
        seconds: f64,
        times: u64,
        at: Instant,
        is_sampled: bool,
        subject: impl FnOnce() -> Subject,
    ) {
        let bucket =
            self.of.0.edges.iter().position(|edge| seconds <= *edge).unwrap_or(self.of.0.edges.len());
        self.counts[bucket] += times;
        self.sum_seconds += seconds * times as f64;
        let (any, sampled) = &mut self.due[bucket];
        let due = if is_sampled { &mut *sampled } else { &mut *any };
        if due.is_none_or(|due| due <= at) {
            *due = at.checked_add(EXAMPLE_EVERY);
            // As many as one turn can have; more are there only while somebody reads for a second.
            if self.fresh.len() < self.due.len() * KINDS {
                self.fresh.push((bucket, subject(), seconds));
            }
        }
    }

    /// Adds what was counted here to what all have counted.
    pub(crate) fn flush(&mut self, now: impl Fn() -> Timestamp) {
        for (count, all) in self.counts.iter_mut().zip(&self.of.0.counts) {
            if *count > 0 {
                all.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        }
        // What is less than a microsecond stays for the next time.
        let micros = (self.sum_seconds * 1e6) as u64;
        if micros > 0 {
            self.sum_seconds -= micros as f64 / 1e6;
            self.of.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
        }
        if self.fresh.is_empty() {
            return;
        }
        // Somebody who reads them is not waited for: the examples stay for the next turn.
        let Some(mut examples) = self.of.0.examples.try_lock() else { return };
        let at = now();
        for (bucket, subject, value) in self.fresh.drain(..) {
            if subject.replaces(examples[bucket].as_ref(), at) {
                examples[bucket] = Some(Exemplar { subject, value, at });
            }
        }
    }
}

impl Collector for Latency {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut below = 0;
        let mut buckets = Vec::with_capacity(self.0.edges.len());
        for (edge, count) in self.0.edges.iter().zip(&self.0.counts) {
            below += count.load(Ordering::Relaxed);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*edge);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
        let beyond = self.0.counts.last().map_or(0, |count| count.load(Ordering::Relaxed));
        let mut histogram = Histogram::default();
        histogram.set_sample_count(below + beyond);
        histogram.set_sample_sum(self.0.sum_micros.load(Ordering::Relaxed) as f64 / 1e6);
        histogram.set_bucket(buckets);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use hiveops_proto::CorrelationId;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_millis(1_750_000_000_000)
    }

    fn subject(id: &str, trace_id: Option<&str>) -> Subject {
        Subject::new(CorrelationId::new(id).unwrap(), trace_id.map(str::to_owned))
    }

    #[test]
    fn observations_are_counted_in_the_bucket_whose_edge_they_do_not_pass() {
        let latency = Latency::new("hiveops_x_seconds", "X.", &[0.1, 0.25]).unwrap();
        let (mut one, mut other) = (latency.local(), latency.local());
        let at = Instant::now();
        one.observe(0.25, 3, at, false, || subject("a", None));
        one.observe(0.251, 1, at, false, || subject("b", None));
        other.observe(0.000_000_4, 2, at, false, || subject("c", None));
        one.flush(now);
        other.flush(now);
        // Nothing is added twice.
        one.flush(now);
        let families = latency.collect();
        let histogram = families[0].get_metric()[0].get_histogram();
        let counts: Vec<u64> = histogram.get_bucket().iter().map(Bucket::cumulative_count).collect();
        assert_eq!((counts, histogram.get_sample_count()), (vec![2, 5], 6));
        assert!((histogram.get_sample_sum() - 1.001).abs() < 1e-5, "{}", histogram.get_sample_sum());
    }

    #[test]
    fn a_bucket_has_one_example_and_one_of_a_trace_is_kept_before_others() {
        let latency = Latency::new("hiveops_x_seconds", "X.", &[0.1]).unwrap();
        let mut local = latency.local();
        let at = Instant::now();
        local.observe(0.05, 1, at, false, || subject("first", None));
        local.observe(0.05, 1, at, false, || panic!("one per second is enough"));
        local.observe(0.06, 1, at, true, || subject("traced", Some("4bf92f3577b34da6a3ce929d0e0e4736")));
        local.flush(now);
        local.observe(0.07, 1, at + EXAMPLE_EVERY, false, || subject("later", None));
        local.flush(now);
        let examples = latency.examples();
        assert!(examples[1].is_none());
        let kept = examples[0].as_ref().unwrap();
        assert_eq!((kept.value, kept.at), (0.06, now()));
        assert!(kept.subject.labels().contains("4bf92f3577b34da6a3ce929d0e0e4736"));
    }

    #[test]
    fn an_example_that_comes_while_somebody_reads_is_kept_for_the_next_turn() {
        let latency = Latency::new("hiveops_x_seconds", "X.", &[0.1]).unwrap();
        let mut local = latency.local();
        let (at, reading) = (Instant::now(), latency.0.examples.lock());
        for second in 0..10 {
            local.observe(0.05, 1, at + EXAMPLE_EVERY * second, false, || {
                subject(&format!("c{second}"), None)
            });
            local.flush(now);
        }
        drop(reading);
        assert_eq!(local.fresh.len(), 2 * KINDS, "no more than there can be in one turn");
        local.flush(now);
        assert!(latency.examples()[0].is_some() && local.fresh.is_empty());
    }
}
