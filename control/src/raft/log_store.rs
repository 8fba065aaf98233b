//! Log and vote as the library asks for them, on our files. Every write is on the disk when it is answered.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::codec::{self, Unreadable};
use super::{AnyError, Entry, Fault, LogId, StorageError, Types, Vote};
#[cfg(test)]
use crate::sim::planted::{Planted, is_planted};
use crate::storage::{Error, Log, Overwritten, Recovered, read, replace};

const VOTE: &str = "vote";
const VOTE_MAGIC: [u8; 8] = *b"HIVEVOT1";
const PURGED: &str = "purged";
const PURGED_MAGIC: [u8; 8] = *b"HIVEPUR1";
const COMMITTED: &str = "committed";
const COMMITTED_MAGIC: [u8; 8] = *b"HIVECOM1";
const LOG: &str = "log";

/// Bytes of entries that are read at once for one message to a follower; one entry is always read.
const READ_BYTES_MAX: usize = 1_048_576;

/// Cheap to clone; the clones are the readers of replication.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    inner: Arc<Mutex<Inner>>,
    fault: Fault,
    /// The last entry that is in the snapshot on the disk, once somebody keeps one.
    covered: Option<watch::Receiver<Option<LogId>>>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    log: Log,
    vote: Option<Vote>,
    /// The last entry that was removed at the front.
    purged: Option<LogId>,
    /// The last entry that is there.
    last: Option<LogId>,
    committed: Overwritten,
}

/// Why the store cannot be opened, or not be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Storage(#[from] Error),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The library has skipped an entry, which would be a bug of it.
    #[error("entry {found} was to follow, where {wanted} is next")]
    Gap { found: u64, wanted: u64 },
}

impl LogStore {
    /// Reads and checks everything in a data directory.
    pub(crate) fn open(directory: &Path, fault: &Fault) -> Result<Self, LogError> {
        let stored = |name: &str, magic| read(&directory.join(name), magic);
        let vote = stored(VOTE, VOTE_MAGIC)?.map(|bytes| codec::read_vote(&bytes)).transpose()?;
        let purged = stored(PURGED, PURGED_MAGIC)?.map(|bytes| codec::read_log_id(&bytes)).transpose()?;
        let next = purged.as_ref().map_or(0, |purged| purged.index + 1);
        let (log, recovered) = Log::open(&directory.join(LOG), next)?;
        if let Some(Recovered { path, offset, bytes }) = recovered {
            let path = path.display();
            tracing::warn!(%path, offset, bytes, "unfinished end of the log cut off");
        }
        let committed = Overwritten::open(directory.join(COMMITTED), COMMITTED_MAGIC)?;
        let directory = directory.to_owned();
        let mut inner = Inner { directory, log, vote, purged, last: None, committed };
        inner.last = inner.entry_before(inner.log.next())?;
        Ok(Self { inner: Arc::new(Mutex::new(inner)), fault: fault.clone(), covered: None })
    }

    /// From now on nothing is removed at the front that is not in the snapshot on the disk.
    pub(super) fn keep_what_is_not_in(&mut self, covered: watch::Receiver<Option<LogId>>) {
        self.covered = Some(covered);
    }

    /// The library removes entries as soon as it has a leader's snapshot, while that is still being written: a
    /// power cut in between would leave neither.
    async fn covered(&mut self, upto: LogId) -> Result<(), StorageError> {
        #[cfg(test)]
        if is_planted(Planted::PurgedBeforeSnapshot) {
            return Ok(());
        }
        let Some(covered) = &mut self.covered else { return Ok(()) };
        let fault = &self.fault;
        let known = covered.wait_for(|covered| *covered >= Some(upto) || fault.get().is_some()).await;
        match known {
            Ok(covered) if *covered >= Some(upto) => Ok(()),
            Ok(_) | Err(_) => {
                let text = "the snapshot that is to take the place of entries could not be stored";
                Err(StorageError::from(writing(&AnyError(text.to_owned()))))
            }
        }
    }

    /// A replica that led when it ended begins as a follower. The library would let it go on leading in its
    /// term, not knowing how far it had come: reads that it then confirms could be older than what it had
    /// acknowledged, and its clock would jump within the term. Its vote stands, only that it won is forgotten.
    pub(crate) fn step_back(&self, own: u64) {
        #[cfg(test)]
        if is_planted(Planted::LeadsOnAfterRestart) {
            return;
        }
        let mut inner = self.inner.lock();
        if let Some(vote) = &mut inner.vote
            && vote.leader_id.voted_for == Some(own)
        {
            vote.committed = false;
        }
    }

    /// Nothing has ever been written to it.
    pub(crate) fn is_pristine(&self) -> bool {
        let inner = self.inner.lock();
        inner.vote.is_none() && inner.last.is_none() && inner.purged.is_none()
    }

    /// The last entry, or the last that was removed when none is left.
    pub(super) fn last(&self) -> Option<LogId> {
        let inner = self.inner.lock();
        inner.last.max(inner.purged)
    }

    /// The size of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.inner.lock().log.bytes()
    }

    /// Does something on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        subject: fn(&AnyError) -> StorageIOError<u64>,
        work: impl FnOnce(&mut Inner) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let inner = Arc::clone(&self.inner);
        super::blocking(&self.fault, subject, move || work(&mut inner.lock())).await
    }
}

fn reading(error: &AnyError) -> StorageIOError<u64> {
    StorageIOError::read_logs(error)
}

fn writing(error: &AnyError) -> StorageIOError<u64> {
    StorageIOError::write_logs(error)
}

fn writing_vote(error: &AnyError) -> StorageIOError<u64> {
    StorageIOError::write_vote(error)
}

impl Inner {
    fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        // What a snapshot contains already is not stored again.
        let known = entries.iter().take_while(|entry| self.purged >= Some(entry.log_id)).count();
        let entries = &entries[known..];
        let Some((first, last)) = entries.first().zip(entries.last()) else { return Ok(()) };
        if self.last.is_none() && self.purged.is_none() {
            // The library's suite begins where it likes. The library itself begins at 0, and a log on the
            // disk that does not is refused at the next start.
            self.log.purge(first.log_id.index)?;
        }
        let wanted = self.log.next();
        if first.log_id.index != wanted {
            return Err(LogError::Gap { found: first.log_id.index, wanted });
        }
        let payloads: Vec<Vec<u8>> = entries.iter().map(codec::entry).collect();
        self.log.append(&payloads)?;
        self.last = Some(last.log_id);
        Ok(())
    }

    fn truncate(&mut self, index: u64) -> Result<(), LogError> {
        self.log.truncate(index)?;
        self.last = self.entry_before(index)?;
        Ok(())
    }

    fn purge(&mut self, upto: LogId) -> Result<(), LogError> {
        if self.purged >= Some(upto) {
            return Ok(());
        }
        replace(&self.directory.join(PURGED), PURGED_MAGIC, &codec::log_id(&upto))?;
        self.purged = Some(upto);
        self.log.purge(upto.index + 1)?;
        Ok(())
    }

    fn entry_before(&self, index: u64) -> Result<Option<LogId>, LogError> {
        let Some(before) = index.checked_sub(1) else { return Ok(None) };
        let payload = self.log.read(before)?;
        Ok(payload.map(|payload| codec::read_entry(&payload)).transpose()?.map(|entry| entry.log_id))
    }

    /// Those of the range that are there, up to a number of bytes but at least one.
    fn entries(&self, range: std::ops::Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in range {
            let Some(payload) = self.log.read(index)? else { break };
            bytes += payload.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(codec::read_entry(&payload)?);
        }
        Ok(entries)
    }

    /// The range without what is not there any more or not yet.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> std::ops::Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        start.max(self.log.first())..end.min(self.log.next())
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry>, StorageError>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = self.inner.lock().clamp(&range);
        self.blocking(reading, move |inner| inner.entries(range, usize::MAX)).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.blocking(reading, move |inner| inner.entries(start..end, READ_BYTES_MAX)).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let inner = self.inner.lock();
        let last_purged_log_id = inner.purged;
        Ok(LogState { last_purged_log_id, last_log_id: inner.last.max(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let save = move |inner: &mut Inner| {
            replace(&inner.directory.join(VOTE), VOTE_MAGIC, &codec::vote(&vote))?;
            inner.vote = Some(vote);
            Ok(())
        };
        self.blocking(writing_vote, save).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.inner.lock().vote)
    }

    /// Not synced: it only spares the machine a wait for the leader after a restart, and an older value is
    /// as true as a newer one.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(committed) = committed else { return Ok(()) };
        let bytes = codec::log_id(&committed);
        self.blocking(writing, move |inner| Ok(inner.committed.write(&bytes)?)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let inner = self.inner.lock();
        let committed = inner.committed.read().and_then(|bytes| codec::read_log_id(&bytes).ok());
        // What is not there cannot be applied, however sure it is that it was agreed on.
        Ok(committed.filter(|committed| Some(*committed) <= inner.last.max(inner.purged)))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.blocking(writing, move |inner| inner.append(&entries)).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.blocking(writing, move |inner| inner.truncate(log_id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.covered(log_id).await?;
        self.blocking(writing, move |inner| inner.purge(log_id)).await
    }
}
