//! Probes under way: one is back when every link that it was sent over has seen it.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Probes that are waited for at most. One is sent every two seconds and given up before the next.
const UNDER_WAY_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Probes {
    /// Nonces, and how many links have yet to see each.
    under_way: Mutex<VecDeque<(u64, usize)>>,
}

impl Probes {
    pub(super) fn begin(&self, nonce: u64, links: usize) {
        let mut under_way = self.under_way.lock();
        while under_way.len() >= UNDER_WAY_MAX {
            under_way.pop_front();
        }
        under_way.push_back((nonce, links));
    }

    /// One link has seen it; true when it was the last.
    pub(super) fn seen(&self, nonce: u64) -> bool {
        let mut under_way = self.under_way.lock();
        let Some(at) = under_way.iter().position(|(other, _)| *other == nonce) else { return false };
        under_way[at].1 -= 1;
        let all = under_way[at].1 == 0;
        if all {
            under_way.remove(at);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_back_when_all_links_have_seen_it() {
        let probes = Probes::default();
        probes.begin(1, 2);
        probes.begin(2, 2);
        assert_eq!(
            [probes.seen(1), probes.seen(2), probes.seen(2), probes.seen(1)],
            [false, false, true, true]
        );
        assert!(!probes.seen(1) && !probes.seen(7));
        (0..100).for_each(|nonce| probes.begin(nonce, 1));
        assert_eq!(probes.under_way.lock().len(), UNDER_WAY_MAX);
    }
}
