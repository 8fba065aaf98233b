//! One node's share of one limited thing, and the arithmetic that never lends more than there is.

use hiveops_proto::lease::Wanted;
use serde::{Deserialize, Serialize};

/// What a node may hold, at most and at last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// What the node may hold by any answer that it may have got, or promised to stay below. Control counts
    /// this.
    pub(crate) held: u64,
    /// What it was told last; below `held` while it has to give some back.
    pub(crate) granted: u64,
    /// What it wanted last.
    pub(crate) asked: u64,
}

impl Share {
    /// Answers an ask. `others` is what all others may hold; a `limit` of 0 is none.
    ///
    /// What the node does not keep is free at once, because it promised. A grant below what it keeps frees
    /// nothing yet: the answer may be lost, and only the next ask shows that it was heard.
    pub(crate) fn ask(self, wanted: Wanted, limit: u64, others: u64) -> Self {
        let (keep, want) = (wanted.keep, wanted.want.max(wanted.keep));
        if limit == 0 {
            return Self { held: want, granted: want, asked: want };
        }
        let held = self.held.min(keep);
        let granted = match limit.checked_sub(others.saturating_add(held)) {
            Some(free) => want.min(held + free),
            None => self.granted.min(keep),
        };
        Self { held: held.max(granted), granted, asked: want }
    }
}

/// Takes back what a lowered limit does not allow any more, from each as much as it has in proportion. What
/// is taken counts until the node has confirmed it.
pub(crate) fn lower<'a>(shares: impl Iterator<Item = &'a mut Share>, limit: u64) {
    let shares: Vec<&mut Share> = shares.collect();
    let granted: u128 = shares.iter().map(|share| u128::from(share.granted)).sum();
    if granted <= u128::from(limit) {
        return;
    }
    // Each gets what its end is on the scale less what its beginning is, so that all of the limit is lent.
    let scaled = |end: u128| end * u128::from(limit) / granted;
    let mut begin = 0;
    for share in shares {
        let end = begin + u128::from(share.granted);
        share.granted = u64::try_from(scaled(end) - scaled(begin)).unwrap_or(share.granted);
        begin = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(keep: u64, want: u64) -> Wanted {
        Wanted { keep, want }
    }

    #[test]
    fn an_ask_gets_what_is_free() {
        let share = Share::default().ask(wanted(0, 30), 100, 80);
        assert_eq!(share, Share { held: 20, granted: 20, asked: 30 });
        assert_eq!(share.ask(wanted(20, 30), 100, 75).granted, 25);
        assert_eq!(share.ask(wanted(5, 5), 100, 80), Share { held: 5, granted: 5, asked: 5 });
        assert_eq!(Share::default().ask(wanted(9, 9), 100, 95).granted, 5, "it never had nine");
    }

    #[test]
    fn a_lowered_limit_is_told_first_and_counted_when_it_is_confirmed() {
        let mut shares = [30, 60, 10].map(|held| Share { held, granted: held, asked: held });
        lower(shares.iter_mut(), 50);
        assert_eq!(shares.map(|share| share.granted), [15, 30, 5]);
        assert_eq!(shares.map(|share| share.held), [30, 60, 10]);
        let told = shares[0].ask(wanted(30, 30), 50, 70);
        assert_eq!((told.held, told.granted), (30, 15), "the answer may be lost");
        let confirmed = told.ask(wanted(15, 30), 50, 70);
        assert_eq!((confirmed.held, confirmed.granted), (15, 15));
    }

    #[test]
    fn a_lowered_limit_is_lent_to_the_last_place() {
        let mut shares = [6, 6, 0].map(|held| Share { held, granted: held, asked: held });
        lower(shares.iter_mut(), 5);
        assert_eq!(shares.map(|share| share.granted), [2, 3, 0]);
    }

    #[test]
    fn without_a_limit_everything_is_granted_and_still_counted() {
        let share = Share::default().ask(wanted(0, 1_000), 0, 5_000);
        assert_eq!((share.held, share.granted), (1_000, 1_000));
    }
}
