//! The logs on disk: one redb file in the data directory.
//!
//! What is acknowledged is synced. The file holds only what the compacted logs hold, so it stays as small
//! as they do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hiveops_proto::{Envelope, Epoch, Key, SubscriptionName, Timestamp};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::ledger::{Fingerprint, Ledger, Seen};
use crate::bus::Stored;
use crate::catalog::SubId;
use crate::log::{CompactedLog, ValueKey};

/// Subscription → epoch, head, floor.
const LOGS: TableDefinition<'_, &str, (&str, u64, u64)> = TableDefinition::new("logs");

/// Subscription, seq → the entry as JSON.
const ENTRIES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("entries");

/// Subscription, name of the repeat → seq, fingerprint of its data, time in milliseconds.
const REPEATS: TableDefinition<'_, (&str, Fingerprint), (u64, Fingerprint, i64)> =
    TableDefinition::new("repeats");

/// The file's name in the data directory.
const FILE: &str = "bus.redb";

/// Opens the database. The store keeps it, because after a failed write redb wants to be opened anew.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// An open store.
pub(super) struct Store {
    path: PathBuf,
    opener: Opener,
    /// `None` when it could not be opened again after a failure.
    database: Option<Database>,
    names: Vec<SubscriptionName>,
}

/// Why the logs cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot create the data directory {path:?} (HIVEOPS_DATA_DIR)")]
    Directory {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the bus store {path:?} is in use by another hiveops (HIVEOPS_DATA_DIR)")]
    InUse { path: PathBuf },
    #[error("cannot open the bus store {path:?} (HIVEOPS_DATA_DIR)")]
    Open {
        path: PathBuf,
        #[source]
        source: Box<DatabaseError>,
    },
    #[error("cannot read or write the bus store {path:?} (HIVEOPS_DATA_DIR)")]
    Access {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("{count} subscriptions are more than the bus has logs")]
    Count { count: usize },
    #[error("cannot start the bus thread")]
    Thread(#[source] std::io::Error),
}

/// An entry as the file keeps it.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    #[serde(default)]
    removes: bool,
    envelope: Envelope,
}

/// What one batch changes in one log. Of an entry or a repeat that came and went within the batch, only
/// the end is written.
pub(super) struct Change {
    pub(super) sub: SubId,
    entries: BTreeMap<u64, Option<Arc<Stored>>>,
    repeats: BTreeMap<Fingerprint, Option<Seen>>,
    pub(super) head: u64,
    pub(super) floor: u64,
}

impl Change {
    pub(super) fn new(sub: SubId) -> Self {
        Self { sub, entries: BTreeMap::new(), repeats: BTreeMap::new(), head: 0, floor: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.repeats.is_empty()
    }

    pub(super) fn add(&mut self, stored: &Arc<Stored>, repeat: Option<(Fingerprint, Seen)>) {
        self.entries.insert(stored.seq, Some(Arc::clone(stored)));
        self.repeats.extend(repeat.map(|(name, seen)| (name, Some(seen))));
    }

    pub(super) fn remove(&mut self, seqs: impl IntoIterator<Item = u64>) {
        self.entries.extend(seqs.into_iter().map(|seq| (seq, None)));
    }

    pub(super) fn forget(&mut self, names: impl IntoIterator<Item = Fingerprint>) {
        self.repeats.extend(names.into_iter().map(|name| (name, None)));
    }
}

/// New logs of `names` that nothing keeps.
pub(super) fn in_memory(
    names: &[SubscriptionName],
    mut new_epoch: impl FnMut() -> Epoch,
) -> Result<Vec<Ledger>, StoreError> {
    Ok(sub_ids(names)?.into_iter().map(|sub| Ledger::begin(sub, new_epoch())).collect())
}

fn sub_ids(names: &[SubscriptionName]) -> Result<Vec<SubId>, StoreError> {
    let ids: Option<Vec<SubId>> = (0..names.len()).map(SubId::from_index).collect();
    ids.ok_or(StoreError::Count { count: names.len() })
}

impl Store {
    /// Opens the logs of `names` in `dir`; those that it does not have yet begin.
    pub(super) fn open(
        dir: &Path,
        names: &[SubscriptionName],
        new_epoch: impl FnMut() -> Epoch,
    ) -> Result<(Self, Vec<Ledger>), StoreError> {
        let directory = |source| StoreError::Directory { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(directory)?;
        let path = dir.join(FILE);
        let file = path.clone();
        let opener = Box::new(move || {
            // Without the check a damaged file may be trusted, or end the process; it reads the whole file,
            // which the limits of the state keep small.
            Database::builder().set_check_integrity_on_open(true).create(&file)
        });
        let opened = Self::open_with(path, opener, names, new_epoch)?;
        // A new file is only safe when its directory knows it.
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(directory)?;
        Ok(opened)
    }

    fn open_with(
        path: PathBuf,
        opener: Opener,
        names: &[SubscriptionName],
        new_epoch: impl FnMut() -> Epoch,
    ) -> Result<(Self, Vec<Ledger>), StoreError> {
        let mut store = Self { path, opener, database: None, names: names.to_vec() };
        let ids = sub_ids(names)?;
        let database = store.reopen()?;
        create_missing(database, names, new_epoch).map_err(|error| store.access(error))?;
        let ledgers = store.load(&ids)?;
        Ok((store, ledgers))
    }

    /// Begins a log, or goes on with one from before, and gives what is in it.
    pub(super) fn begin(
        &mut self,
        sub: SubId,
        name: SubscriptionName,
        new_epoch: impl FnMut() -> Epoch,
    ) -> Result<Ledger, StoreError> {
        let begun = self.database().and_then(|database| {
            create_missing(database, std::slice::from_ref(&name), new_epoch)?;
            load(database, sub, name.as_str())
        });
        let ledger = begun.map_err(|error| self.access(error))?;
        self.names.push(name);
        Ok(ledger)
    }

    /// Closes the database if it is open, and opens it.
    fn reopen(&mut self) -> Result<&Database, StoreError> {
        // Closed first: it holds the file's lock.
        self.database = None;
        match (self.opener)() {
            Ok(database) => Ok(self.database.insert(database)),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::InUse { path: self.path.clone() }),
            Err(source) => Err(StoreError::Open { path: self.path.clone(), source: Box::new(source) }),
        }
    }

    /// Every log as it stands on disk, after a failure that left doubts.
    pub(super) fn reload(&mut self) -> Result<Vec<Ledger>, StoreError> {
        let ids = sub_ids(&self.names)?;
        self.reopen()?;
        self.load(&ids)
    }

    fn load(&self, ids: &[SubId]) -> Result<Vec<Ledger>, StoreError> {
        let logs = ids.iter().zip(&self.names);
        self.database()
            .and_then(|database| logs.map(|(sub, name)| load(database, *sub, name.as_str())).collect())
            .map_err(|error| self.access(error))
    }

    /// Writes a batch and syncs it.
    pub(super) fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.database()
            .and_then(|database| commit(database, &self.names, changes))
            .map_err(|error| self.access(error))
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn access(&self, error: redb::Error) -> StoreError {
        StoreError::Access { path: self.path.clone(), source: Box::new(error) }
    }
}

fn create_missing(
    database: &Database,
    names: &[SubscriptionName],
    mut new_epoch: impl FnMut() -> Epoch,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut logs = transaction.open_table(LOGS)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(REPEATS)?;
        for name in names {
            if logs.get(name.as_str())?.is_none() {
                logs.insert(name.as_str(), (new_epoch().as_str(), 0, 0))?;
            }
        }
    }
    Ok(transaction.commit()?)
}

fn load(database: &Database, sub: SubId, name: &str) -> Result<Ledger, redb::Error> {
    let transaction = database.begin_read()?;
    let logs = transaction.open_table(LOGS)?;
    let log = logs.get(name)?.ok_or_else(|| corrupt(format!("no log `{name}`")))?;
    let (epoch, head, floor) = log.value();
    let epoch = Epoch::new(epoch).map_err(|error| corrupt(format!("log `{name}`: {error}")))?;
    let mut restored = Vec::new();
    for entry in transaction.open_table(ENTRIES)?.range((name, 0)..=(name, u64::MAX))? {
        let (at, bytes) = entry?;
        let seq = at.value().1;
        let stored = read_record(sub, &epoch, seq, bytes.value())
            .map_err(|error| corrupt(format!("entry {seq} of log `{name}`: {error}")))?;
        restored.push(stored);
    }
    let mut seen = Vec::new();
    let range = (name, [0; 16])..=(name, [u8::MAX; 16]);
    for repeat in transaction.open_table(REPEATS)?.range(range)? {
        let (at, value) = repeat?;
        let (seq, data, ms) = value.value();
        seen.push((at.value().1, Seen { seq, data, at: Timestamp::from_millis(ms) }));
    }
    // The order of age, in which they are forgotten.
    seen.sort_by_key(|(_, seen)| seen.seq);
    Ok(Ledger::new(sub, CompactedLog::restore(epoch, head, floor, restored), seen))
}

fn commit(database: &Database, names: &[SubscriptionName], changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut logs = transaction.open_table(LOGS)?;
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut repeats = transaction.open_table(REPEATS)?;
        for change in changes {
            let name = names[change.sub.index()].as_str();
            let epoch = logs.get(name)?.map(|log| log.value().0.to_owned());
            let epoch = epoch.ok_or_else(|| corrupt(format!("no log `{name}`")))?;
            for (seq, entry) in &change.entries {
                match entry {
                    Some(stored) => entries.insert((name, *seq), write_record(stored)?.as_slice())?,
                    None => entries.remove((name, *seq))?,
                };
            }
            for (id, seen) in &change.repeats {
                match seen {
                    Some(seen) => repeats.insert((name, *id), (seen.seq, seen.data, seen.at.as_millis()))?,
                    None => repeats.remove((name, *id))?,
                };
            }
            logs.insert(name, (epoch.as_str(), change.head, change.floor))?;
        }
    }
    Ok(transaction.commit()?)
}

fn read_record(sub: SubId, epoch: &Epoch, seq: u64, bytes: &[u8]) -> Result<Arc<Stored>, serde_json::Error> {
    let Record { key, removes, envelope } = serde_json::from_slice(bytes)?;
    let key = key.map(|key| ValueKey { message_type: envelope.message_type.clone(), key });
    Ok(Arc::new(Stored { sub, epoch: epoch.clone(), seq, key, removes, envelope }))
}

fn write_record(stored: &Stored) -> Result<Vec<u8>, redb::Error> {
    let record = Record {
        key: stored.key.as_ref().map(|value| value.key.clone()),
        removes: stored.removes,
        envelope: stored.envelope.clone(),
    };
    serde_json::to_vec(&record).map_err(|error| corrupt(format!("entry {}: {error}", stored.seq)))
}

/// What redb itself would say of a file whose content makes no sense.
fn corrupt(what: String) -> redb::Error {
    redb::Error::Corrupted(what)
}

#[cfg(test)]
mod tests;
