//! Whether a log goes on where a node knew it, decided from what the server has. Pure.
//!
//! A server that was started anew, or a replica that was promoted, may have lost the end of what was
//! acknowledged. The seqs of what is published next would then name other publications than those that
//! somebody has already seen. The log gets a new epoch unless it is proven to be whole.

use hiveops_proto::Epoch;

/// What a node knows of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) epoch: Epoch,
    pub(super) head: u64,
    /// The record of the head, where the node has seen it.
    pub(super) tail: Option<String>,
    /// The life of the server that it was read from, where it is known.
    pub(super) run: Option<String>,
}

/// What the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) epoch: Epoch,
    pub(super) head: u64,
    pub(super) floor: u64,
    /// The life of the server that wrote it last.
    pub(super) run: String,
    /// Whether that is the one that answers.
    pub(super) written_here: bool,
    /// Whether the server has its data from another one.
    pub(super) promoted: bool,
    /// The record at the head that the node knows.
    pub(super) at_known: Option<String>,
    /// Whether everything after that head is still there one by one.
    pub(super) has_rest: bool,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on: what follows is there one by one.
    Rest,
    /// It goes on: of what follows, only what matters is left.
    Compacted,
    /// Begin with what is there.
    Reset,
    /// It is whole, as far as can be told, but this server has not said so yet.
    Keep,
    /// Something may be lost: all nodes begin anew.
    Renew,
}

pub(super) fn continuity(known: Option<&Known>, found: &Found) -> Verdict {
    let known = known.filter(|known| known.epoch == found.epoch);
    if !found.written_here {
        let whole = !found.promoted && known.is_some_and(|known| is_whole(known, found));
        return if whole { Verdict::Keep } else { Verdict::Renew };
    }
    let Some(known) = known else { return Verdict::Reset };
    if found.head < known.head || is_other(known, found) || is_doubtful(known, found) {
        return Verdict::Renew;
    }
    match (found.has_rest, found.floor <= known.head) {
        (true, _) => Verdict::Rest,
        (false, true) => Verdict::Compacted,
        (false, false) => Verdict::Reset,
    }
}

/// Whether all that the node knows is there.
fn is_whole(known: &Known, found: &Found) -> bool {
    known.head == 0 || found.head >= known.head && known.tail.is_some() && known.tail == found.at_known
}

/// Whether another publication has the place of the head that the node knows.
fn is_other(known: &Known, found: &Found) -> bool {
    matches!((&known.tail, &found.at_known), (Some(tail), Some(found)) if tail != found)
}

/// Whether the server was started anew since, and what the node knew can no longer be compared: another node
/// has settled the log, which may not have seen an end that was lost.
fn is_doubtful(known: &Known, found: &Found) -> bool {
    let same_life = known.run.as_ref() == Some(&found.run);
    known.head > 0 && !same_life && (known.tail.is_none() || found.at_known.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(head: u64) -> Known {
        Known {
            epoch: Epoch::from_bits(1),
            head,
            tail: (head > 0).then(|| format!("r{head}")),
            run: Some("life-1".to_owned()),
        }
    }

    /// The server that the node knows, further on.
    fn found(head: u64) -> Found {
        Found {
            epoch: Epoch::from_bits(1),
            head,
            floor: 0,
            run: "life-1".to_owned(),
            written_here: true,
            promoted: false,
            at_known: Some("r5".to_owned()),
            has_rest: true,
        }
    }

    #[test]
    fn a_log_that_is_as_it_was_goes_on() {
        assert_eq!(continuity(Some(&known(5)), &found(5)), Verdict::Rest);
        assert_eq!(continuity(Some(&known(5)), &found(9)), Verdict::Rest);
        let behind = Found { has_rest: false, at_known: None, ..found(9_999) };
        assert_eq!(continuity(Some(&known(5)), &Found { floor: 5, ..behind.clone() }), Verdict::Compacted);
        assert_eq!(continuity(Some(&known(5)), &Found { floor: 6, ..behind }), Verdict::Reset);
    }

    #[test]
    fn who_knows_nothing_of_the_epoch_begins_with_what_is_there() {
        assert_eq!(continuity(None, &found(5)), Verdict::Reset);
        let other = Known { epoch: Epoch::from_bits(2), ..known(5) };
        assert_eq!(continuity(Some(&other), &found(5)), Verdict::Reset);
    }

    #[test]
    fn a_lost_end_is_a_new_epoch() {
        assert_eq!(continuity(Some(&known(5)), &Found { at_known: None, ..found(4) }), Verdict::Renew);
        let other = Found { at_known: Some("x".to_owned()), ..found(5) };
        assert_eq!(continuity(Some(&known(5)), &other), Verdict::Renew);
    }

    #[test]
    fn a_log_that_another_node_settled_goes_on_where_the_known_end_can_be_compared() {
        let settled = Found { run: "life-2".to_owned(), ..found(9) };
        assert_eq!(continuity(Some(&known(5)), &settled), Verdict::Rest);
        let gone = Found { at_known: None, has_rest: false, ..settled.clone() };
        assert_eq!(continuity(Some(&known(5)), &gone), Verdict::Renew);
        assert_eq!(continuity(Some(&known(0)), &gone), Verdict::Compacted, "nothing was known");
        assert_eq!(continuity(Some(&Known { tail: None, ..known(5) }), &settled), Verdict::Renew);
    }

    #[test]
    fn a_server_started_anew_goes_on_only_when_the_known_end_is_there() {
        let anew = |found: Found| Found { written_here: false, ..found };
        assert_eq!(continuity(Some(&known(5)), &anew(found(5))), Verdict::Keep);
        assert_eq!(continuity(Some(&known(5)), &anew(found(9))), Verdict::Keep);
        assert_eq!(continuity(Some(&known(0)), &anew(found(9))), Verdict::Keep);
        for lost in [
            Found { at_known: None, ..found(4) },
            Found { at_known: None, ..found(9) },
            Found { at_known: Some("x".to_owned()), ..found(9) },
            Found { promoted: true, ..found(9) },
            Found { epoch: Epoch::from_bits(2), ..found(9) },
        ] {
            assert_eq!(continuity(Some(&known(5)), &anew(lost.clone())), Verdict::Renew, "{lost:?}");
        }
        assert_eq!(continuity(None, &anew(found(5))), Verdict::Renew, "nobody here can tell");
        let unseen = Known { tail: None, ..known(5) };
        assert_eq!(continuity(Some(&unseen), &anew(found(5))), Verdict::Renew);
        assert_eq!(continuity(Some(&known(0)), &anew(Found { promoted: true, ..found(0) })), Verdict::Renew);
    }
}
