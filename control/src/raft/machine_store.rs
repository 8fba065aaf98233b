//! The machine and its snapshots as the library asks for them.
//!
//! The machine lives in memory; after a start it is what the snapshot on the disk shows, and then what the
//! log adds. There is one snapshot file, which is replaced whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hiveops_proto::control::Revision;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::codec::{self, Unreadable};
use super::counts::Counts;
use super::{
    Answer, AnyError, Entry, Fault, LogId, Machine, Proposal, SnapshotMeta, StorageError, StoredMembership,
    Types, Unusable, blocking, fatal,
};
use crate::storage::{Error, read, replace};

const SNAPSHOT: &str = "snapshot";
const SNAPSHOT_MAGIC: [u8; 8] = *b"HIVESNP1";

/// Cheap to clone; the clones build snapshots beside the one that applies.
#[derive(Clone)]
pub(crate) struct MachineStore {
    /// Guards the machine and what it has been told.
    applied: Arc<Mutex<Applied>>,
    file: Arc<SnapshotFile>,
    fault: Fault,
    counts: Counts,
}

struct Applied {
    machine: Box<dyn Machine>,
    last: Option<LogId>,
    membership: StoredMembership,
}

struct SnapshotFile {
    path: PathBuf,
    /// Held while the file is replaced, so that an older snapshot that took longer does not take the place of a
    /// newer one.
    replacing: Mutex<()>,
    /// The last entry that the file contains, for the log: it removes nothing that is not in it.
    last: watch::Sender<Option<LogId>>,
}

/// Why the machine cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error(transparent)]
    Storage(#[from] Error),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the snapshot cannot be used: {0}")]
    Snapshot(#[source] Unusable),
    #[error("entry {index} cannot be applied: {source}")]
    Entry { index: u64, source: Unusable },
}

impl MachineStore {
    /// Makes the machine what the snapshot in the data directory shows.
    pub(crate) fn open(
        directory: &Path,
        mut machine: Box<dyn Machine>,
        fault: &Fault,
        counts: &Counts,
    ) -> Result<Self, MachineError> {
        let path = directory.join(SNAPSHOT);
        let (mut last, mut membership) = (None, StoredMembership::default());
        if let Some(bytes) = read(&path, SNAPSHOT_MAGIC)? {
            let (meta, data) = codec::read_snapshot(&bytes)?;
            counts.snapshot_bytes.set(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
            machine.restore(&data).map_err(MachineError::Snapshot)?;
            (last, membership) = (meta.last_log_id, meta.last_membership);
        }
        Ok(Self {
            applied: Arc::new(Mutex::new(Applied { machine, last, membership })),
            file: Arc::new(SnapshotFile {
                path,
                replacing: Mutex::default(),
                last: watch::Sender::new(last),
            }),
            fault: fault.clone(),
            counts: counts.clone(),
        })
    }

    /// The last entry that is in the snapshot on the disk.
    pub(super) fn covered(&self) -> watch::Receiver<Option<LogId>> {
        self.file.last.subscribe()
    }

    pub(super) async fn write(&self, meta: SnapshotMeta, data: Vec<u8>) -> Result<Vec<u8>, StorageError> {
        let (file, counts) = (Arc::clone(&self.file), self.counts.clone());
        let write = move || {
            let _replacing = file.replacing.lock();
            if *file.last.borrow() <= meta.last_log_id {
                let bytes = codec::snapshot(&meta, &data);
                replace(&file.path, SNAPSHOT_MAGIC, &bytes)?;
                counts.snapshot_bytes.set(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
                file.last.send_replace(meta.last_log_id);
            }
            Ok::<_, MachineError>(data)
        };
        let written = blocking(&self.fault, writing, write).await;
        if written.is_err() {
            // Whoever waits for this snapshot has to hear that it will not come.
            self.file.last.send_modify(|_| ());
        }
        written
    }
}

fn reading(error: &AnyError) -> StorageIOError<u64> {
    StorageIOError::read_snapshot(None, error)
}

fn writing(error: &AnyError) -> StorageIOError<u64> {
    StorageIOError::write_snapshot(None, error)
}

fn applying(error: &AnyError) -> StorageIOError<u64> {
    StorageIOError::write_state_machine(error)
}

impl Applied {
    fn apply(&mut self, entry: Entry) -> Result<Answer, MachineError> {
        let Entry { log_id, payload } = entry;
        let answer = match payload {
            EntryPayload::Blank => None,
            EntryPayload::Normal(Proposal(text)) => {
                let at = Revision { term: log_id.leader_id.term, index: log_id.index };
                let applied = self.machine.apply(at, &text);
                Some(applied.map_err(|source| MachineError::Entry { index: log_id.index, source })?)
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                None
            }
        };
        self.last = Some(log_id);
        Ok(Answer(answer))
    }
}

impl RaftSnapshotBuilder<Types> for MachineStore {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let (meta, data) = {
            let applied = self.applied.lock();
            let meta = SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership.clone(),
                snapshot_id: name(applied.last),
            };
            (meta, applied.machine.snapshot())
        };
        let data = self.write(meta.clone(), data).await?;
        self.counts.snapshots_built.inc();
        Ok(Snapshot { meta, snapshot: Box::new(data) })
    }
}

impl RaftStateMachine<Types> for MachineStore {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.lock();
        let answers: Result<Vec<Answer>, MachineError> =
            entries.into_iter().map(|entry| applied.apply(entry)).collect();
        answers.map_err(fatal(&self.fault, applying))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError> {
        // On the disk first: what the machine shows must not be forgotten by a crash.
        let data = self.write(meta.clone(), *snapshot).await?;
        let mut applied = self.applied.lock();
        let restored = applied.machine.restore(&data).map_err(MachineError::Snapshot);
        restored.map_err(fatal(&self.fault, writing))?;
        applied.last = meta.last_log_id;
        applied.membership = meta.last_membership.clone();
        self.counts.snapshots_installed.inc();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let file = Arc::clone(&self.file);
        let read = move || {
            let _replacing = file.replacing.lock();
            let bytes = read(&file.path, SNAPSHOT_MAGIC)?;
            Ok::<_, MachineError>(bytes.map(|bytes| codec::read_snapshot(&bytes)).transpose()?)
        };
        let found = blocking(&self.fault, reading, read).await?;
        Ok(found.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(data) }))
    }
}

/// Two replicas that have applied the same name the snapshot the same.
fn name(last: Option<LogId>) -> String {
    match last {
        None => "empty".to_owned(),
        Some(LogId { leader_id, index }) => format!("{}-{index}", leader_id.term),
    }
}
