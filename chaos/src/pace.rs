//! How fast things came. Pure.

use std::time::Duration;

/// The most that came within any window of this length.
pub fn densest(times: &[Duration], window: Duration) -> usize {
    let mut times = times.to_vec();
    times.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for (last, time) in times.iter().enumerate() {
        while *time - times[first] >= window {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_densest_window_is_found_wherever_it_begins() {
        let at = |millis: &[u64]| millis.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        let second = Duration::from_secs(1);
        assert_eq!(densest(&at(&[]), second), 0);
        assert_eq!(densest(&at(&[0, 1_000, 2_000]), second), 1);
        assert_eq!(densest(&at(&[0, 1_899, 900, 1_100, 1_500]), second), 4);
    }
}
