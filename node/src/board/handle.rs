//! The board as the node shares it: one writer, the receive loop; many readers.
//!
//! Writers of the REST routes wait here until what they published has come back through the log, so that
//! whoever reads after a write sees it.

use hiveops_proto::Position;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use super::{Board, Section};
use crate::bus::{CALL_TIMEOUT, Reset, Stored};
use crate::catalog::Catalog;

/// How far each section has been read.
type Heads = [Option<Position>; Section::ALL.len()];

/// The shared board.
pub(crate) struct BoardHandle {
    /// Written by the receive loop only; read for at most about a millisecond, never across an await.
    board: RwLock<Board>,
    applied: watch::Sender<Heads>,
}

impl BoardHandle {
    pub(crate) fn new() -> Self {
        Self { board: RwLock::default(), applied: watch::Sender::new(Heads::default()) }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Board> {
        self.board.read()
    }

    /// Takes over a log as it is now.
    pub(crate) fn apply_reset(&self, reset: &Reset, catalog: &Catalog) {
        let Some(section) = Section::of(catalog.name(reset.sub).as_str()) else { return };
        self.board.write().apply_reset(reset, catalog);
        self.moved(section, Position { epoch: reset.epoch.clone(), seq: reset.head });
    }

    /// Takes the next publication of a log.
    pub(crate) fn apply(&self, stored: &Stored, catalog: &Catalog) {
        let Some(section) = Section::of(catalog.name(stored.sub).as_str()) else { return };
        self.board.write().apply(stored, catalog);
        self.moved(section, Position { epoch: stored.epoch.clone(), seq: stored.seq });
    }

    fn moved(&self, section: Section, position: Position) {
        self.applied.send_modify(|heads| heads[section.index()] = Some(position));
    }

    /// Waits until the section has been read up to `position`, or the log is a new one; false when that
    /// takes longer than a bus call may.
    pub(crate) async fn reached(&self, section: Section, position: &Position) -> bool {
        self.wait(section, |head| head.epoch != position.epoch || head.seq >= position.seq).await
    }

    /// Waits until the section has been read beyond `position`; false when that takes too long.
    pub(crate) async fn moved_beyond(&self, section: Section, position: &Position) -> bool {
        self.wait(section, |head| head.epoch != position.epoch || head.seq > position.seq).await
    }

    async fn wait(&self, section: Section, done: impl Fn(&Position) -> bool) -> bool {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|heads| heads[section.index()].as_ref().is_some_and(&done));
        matches!(tokio::time::timeout(CALL_TIMEOUT, reached).await, Ok(Ok(_)))
    }
}
