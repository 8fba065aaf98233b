//! A quantile of what a histogram has counted since the last look. Pure.

/// One bucket: its upper edge, and how many observations were at most that.
pub(crate) type Bucket = (f64, u64);

/// The counts at the last look.
#[derive(Debug, Default)]
pub(crate) struct Window {
    seen: Vec<u64>,
}

impl Window {
    /// The upper edge of the bucket in which the quantile of the new observations lies; none when there
    /// are no new ones. Beyond the last edge it is that edge: the histogram knows no more.
    pub(crate) fn quantile(&mut self, buckets: &[Bucket], quantile: f64) -> Option<f64> {
        let fresh: Vec<(f64, u64)> = buckets
            .iter()
            .enumerate()
            .map(|(index, (edge, count))| {
                (*edge, count.saturating_sub(self.seen.get(index).copied().unwrap_or(0)))
            })
            .collect();
        self.seen = buckets.iter().map(|(_, count)| *count).collect();
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

    #[test]
    fn only_what_is_new_counts() {
        let mut window = Window::default();
        assert_eq!(window.quantile(&[(0.1, 0), (1.0, 0), (f64::INFINITY, 0)], 0.99), None);
        assert_eq!(window.quantile(&[(0.1, 99), (1.0, 100), (f64::INFINITY, 100)], 0.99), Some(0.1));
        assert_eq!(window.quantile(&[(0.1, 99), (1.0, 101), (f64::INFINITY, 101)], 0.99), Some(1.0));
        assert_eq!(window.quantile(&[(0.1, 99), (1.0, 101), (f64::INFINITY, 102)], 0.99), Some(1.0));
        assert_eq!(window.quantile(&[(0.1, 99), (1.0, 101), (f64::INFINITY, 102)], 0.99), None);
    }
}
