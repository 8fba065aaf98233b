//! A quantile of what a histogram has counted lately. Pure.

use std::collections::VecDeque;

/// One bucket: its upper edge, and how many observations were at most that.
pub(crate) type Bucket = (f64, u64);

/// Looks that are remembered: with one per second, the figure covers the last half minute, the longest time
/// between two reports.
const LOOKS: usize = 30;

/// The counts at the last looks, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Window {
    looks: VecDeque<Vec<u64>>,
}

impl Window {
    /// The upper edge of the bucket in which the quantile of the observations since the oldest look lies;
    /// none when there were none. Beyond the last edge it is that edge: the histogram knows no more.
    pub(crate) fn quantile(&mut self, buckets: &[Bucket], quantile: f64) -> Option<f64> {
        let oldest = self.looks.front();
        let before = |index: usize| oldest.and_then(|look| look.get(index)).copied().unwrap_or(0);
        let fresh: Vec<Bucket> = buckets
            .iter()
            .enumerate()
            .map(|(index, (edge, count))| (*edge, count.saturating_sub(before(index))))
            .collect();
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(buckets.iter().map(|(_, count)| *count).collect());
        let total = fresh.last()?.1;
        if total == 0 {
            return None;
        }
        let rank = (total as f64 * quantile).ceil() as u64;
        let finite = |edge: f64| edge.is_finite();
        let found = fresh.iter().find(|(edge, count)| *count >= rank && finite(*edge));
        let last = fresh.iter().rev().find(|(edge, _)| finite(*edge));
        found.or(last).map(|(edge, _)| *edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(window: &mut Window, fast: u64, slow: u64, beyond: u64) -> Option<f64> {
        let buckets = [(0.1, fast), (1.0, fast + slow), (f64::INFINITY, fast + slow + beyond)];
        window.quantile(&buckets, 0.99)
    }

    #[test]
    fn the_edge_of_the_quantile_is_shown_and_nothing_when_nothing_came() {
        let mut window = Window::default();
        assert_eq!(look(&mut window, 0, 0, 0), None);
        assert_eq!(look(&mut window, 99, 1, 0), Some(0.1));
        assert_eq!(look(&mut window, 99, 3, 0), Some(1.0));
        assert_eq!(look(&mut Window::default(), 0, 0, 5), Some(1.0), "the histogram knows no more");
    }

    #[test]
    fn what_was_slow_shows_for_as_many_looks_as_are_kept() {
        let mut window = Window::default();
        look(&mut window, 0, 0, 0);
        look(&mut window, 0, 1, 0);
        for _ in 2..LOOKS {
            assert_eq!(look(&mut window, 0, 1, 0), Some(1.0));
        }
        look(&mut window, 0, 1, 0);
        assert_eq!(look(&mut window, 0, 1, 0), None);
    }
}
