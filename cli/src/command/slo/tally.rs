//! What one node's metrics did between the first scrape and the last. Pure.
//!
//! Counters only grow, except when their process begins anew: a value below the one before is what has been
//! counted since then, as Prometheus reads it too.

use std::collections::BTreeMap;

use super::exposition::{Sample, Series};

/// The series of one node.
#[derive(Debug, Default)]
pub(super) struct Tally {
    series: BTreeMap<Series, Track>,
    scrapes: usize,
    /// Scrapes in which a counter was below its value before.
    resets: u64,
}

#[derive(Debug)]
struct Track {
    last: f64,
    /// Of a counter: what it has grown by.
    increase: f64,
    /// Of a gauge: every value that was seen.
    seen: Vec<f64>,
}

/// What the first scrape stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Nothing has happened before it: all that the counters say counts.
    Start,
    /// It is where the window begins: only what comes later counts.
    Window,
}

impl Tally {
    /// Takes in a scrape.
    pub(super) fn add(&mut self, samples: Vec<Sample>, begin: Begin) {
        // A series that appears later began at 0 within the window.
        let base_counts = begin == Begin::Start || self.scrapes > 0;
        let mut reset = false;
        for Sample { series, value } in samples {
            let value = if value.is_finite() { value } else { 0.0 };
            match self.series.get_mut(&series) {
                Some(track) => {
                    reset |= is_counter(&series.name) && value < track.last;
                    track.increase += if value < track.last { value } else { value - track.last };
                    track.last = value;
                    track.seen.push(value);
                }
                None => {
                    let increase = if base_counts { value } else { 0.0 };
                    self.series.insert(series, Track { last: value, increase, seen: vec![value] });
                }
            }
        }
        self.resets += u64::from(reset);
        self.scrapes += 1;
    }

    pub(super) fn resets(&self) -> u64 {
        self.resets
    }

    /// By how much the series of a metric that satisfy the condition have grown; none when there is none.
    pub(super) fn increase(&self, metric: &str, holds: impl Fn(&Series) -> bool) -> Option<f64> {
        let grown: Vec<f64> =
            self.of(metric).filter(|(series, _)| holds(series)).map(|(_, track)| track.increase).collect();
        (!grown.is_empty()).then(|| grown.iter().sum())
    }

    /// Every value of a gauge that was seen.
    pub(super) fn seen(&self, metric: &str) -> impl Iterator<Item = f64> {
        self.of(metric).flat_map(|(_, track)| track.seen.iter().copied())
    }

    fn of(&self, metric: &str) -> impl Iterator<Item = (&Series, &Track)> {
        self.series.iter().filter(move |(series, _)| series.name == metric)
    }
}

fn is_counter(name: &str) -> bool {
    ["_total", "_count", "_bucket"].iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::super::exposition::parse;
    use super::*;

    fn tally(begin: Begin, scrapes: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for text in scrapes {
            tally.add(parse(text, |_| true).unwrap(), begin);
        }
        tally
    }

    fn increase(tally: &Tally, metric: &str) -> Option<f64> {
        tally.increase(metric, |_| true)
    }

    #[test]
    fn in_a_window_only_what_comes_after_the_first_scrape_counts() {
        let tally = tally(Begin::Window, &["a_total 100", "a_total 130", "a_total 131\nb_total 4"]);
        assert_eq!(increase(&tally, "a_total"), Some(31.0));
        assert_eq!(increase(&tally, "b_total"), Some(4.0), "it appeared within the window");
        assert_eq!(increase(&tally, "c_total"), None);
        assert_eq!(tally.resets(), 0);
    }

    #[test]
    fn since_the_start_all_of_it_counts() {
        assert_eq!(increase(&tally(Begin::Start, &["a_total 100"]), "a_total"), Some(100.0));
    }

    #[test]
    fn a_counter_that_begins_anew_loses_nothing_that_was_seen() {
        let tally = tally(
            Begin::Window,
            &["a_total 100\nb_total 7", "a_total 110\nb_total 7", "a_total 5\nb_total 1"],
        );
        assert_eq!(increase(&tally, "a_total"), Some(15.0));
        assert_eq!(tally.resets(), 1, "one restart, whatever the number of series");
    }

    #[test]
    fn a_gauge_that_falls_is_no_restart_and_every_value_is_kept() {
        let tally = tally(Begin::Window, &["age_seconds 9", "age_seconds 1"]);
        assert_eq!(tally.seen("age_seconds").collect::<Vec<_>>(), [9.0, 1.0]);
        assert_eq!(tally.resets(), 0);
    }

    #[test]
    fn series_are_chosen_by_their_labels() {
        let tally = tally(Begin::Start, &["a_total{reason=\"x\"} 1\na_total{reason=\"y\"} 2"]);
        assert_eq!(tally.increase("a_total", |series| series.label("reason") == Some("y")), Some(2.0));
        assert_eq!(tally.increase("a_total", |series| series.label("reason") == Some("z")), None);
    }
}
