//! Mistakes that the code of a replica makes when a test says so: the simulation has to find each of them.

use std::cell::Cell;
use std::path::Path;

/// A mistake that somebody could make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A vote is answered before it is on the disk.
    VoteNotSynced,
    /// Entries are acknowledged before they are on the disk.
    AppendNotSynced,
    /// The unfinished end of a log is left where it is.
    TornEndKept,
    /// A snapshot is not on the disk when the log before it is removed.
    SnapshotNotSynced,
    /// A snapshot does not have the answers to earlier requests.
    RequestsNotInSnapshot,
    /// A snapshot does not have the logins.
    LoginsNotInSnapshot,
    /// A leader answers reads without asking whether it still leads.
    ReadWithoutQuorum,
    /// A replica asks for votes without asking first whether anybody would vote.
    NoQuestionBefore,
    /// What was lent is lent again half a lease early.
    LentAgainEarly,
    /// A new leader, with another clock, takes leases as they are.
    LeasesOutliveTheirClock,
    /// A leader that starts again leads on in its term, as the library has it.
    LeadsOnAfterRestart,
    /// The log before a leader's snapshot is removed while that is being written, as the library has it.
    PurgedBeforeSnapshot,
}

impl Planted {
    pub(crate) const ALL: [Self; 12] = [
        Self::VoteNotSynced,
        Self::AppendNotSynced,
        Self::TornEndKept,
        Self::SnapshotNotSynced,
        Self::RequestsNotInSnapshot,
        Self::LoginsNotInSnapshot,
        Self::ReadWithoutQuorum,
        Self::NoQuestionBefore,
        Self::LentAgainEarly,
        Self::LeasesOutliveTheirClock,
        Self::LeadsOnAfterRestart,
        Self::PurgedBeforeSnapshot,
    ];
}

thread_local! {
    /// A run has its thread for itself.
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Whether the code is to make this mistake.
pub(crate) fn is_planted(planted: Planted) -> bool {
    PLANTED.get() == Some(planted)
}

/// Whether a file that is replaced is to be put in its place before it is on the disk.
pub(crate) fn is_left_unsynced(path: &Path) -> bool {
    match PLANTED.get() {
        Some(Planted::VoteNotSynced) => path.ends_with("vote"),
        Some(Planted::SnapshotNotSynced) => path.ends_with("snapshot"),
        _ => false,
    }
}

/// Whether a part of the state is to be left out of snapshots.
pub(crate) fn is_incomplete() -> bool {
    is_planted(Planted::RequestsNotInSnapshot) || is_planted(Planted::LoginsNotInSnapshot)
}

/// The mistake is made on this thread until what is returned is dropped.
pub(super) fn plant(planted: Option<Planted>) -> Grown {
    PLANTED.set(planted);
    Grown
}

pub(super) struct Grown;

impl Drop for Grown {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}
