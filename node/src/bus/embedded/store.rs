//! The logs on disk: one redb file in the data directory.
//!
//! What is acknowledged is synced. The file holds only what the compacted logs hold, so it stays as small
//! as they do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hiveops_proto::{Envelope, Epoch, Key, SubscriptionName, Timestamp};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
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

/// An open store.
pub(super) struct Store {
    database: Database,
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
    #[error("cannot open the bus store {path:?} (HIVEOPS_DATA_DIR); is another hiveops using it?")]
    Open {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("cannot read or write the bus store")]
    Access(#[source] Box<redb::Error>),
    #[error("the bus store holds a record that is not ours: {what}")]
    Corrupt { what: String },
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

/// What one batch changes in one log.
pub(super) struct Change {
    pub(super) sub: SubId,
    pub(super) added: Vec<Arc<Stored>>,
    pub(super) removed: Vec<u64>,
    pub(super) repeats: Vec<(Fingerprint, Seen)>,
    pub(super) forgotten: Vec<Fingerprint>,
    pub(super) head: u64,
    pub(super) floor: u64,
}

/// Opens the logs of `names`: from `data_dir`, or new ones in memory.
pub(super) fn open(
    names: &[SubscriptionName],
    data_dir: Option<&Path>,
    mut new_epoch: impl FnMut() -> Epoch,
) -> Result<(Option<Store>, Vec<Ledger>), StoreError> {
    let Some(dir) = data_dir else {
        let ledgers = names.iter().map(|_| Ledger::new(CompactedLog::new(new_epoch(), 0), Vec::new()));
        return Ok((None, ledgers.collect()));
    };
    std::fs::create_dir_all(dir).map_err(|source| StoreError::Directory { path: dir.to_owned(), source })?;
    let path = dir.join(FILE);
    let database = Database::create(&path)
        .map_err(|source| StoreError::Open { path, source: Box::new(source.into()) })?;
    let store = Store { database, names: names.to_vec() };
    store.create_missing(new_epoch)?;
    let ledgers = store.load()?;
    Ok((Some(store), ledgers))
}

impl Store {
    fn create_missing(&self, mut new_epoch: impl FnMut() -> Epoch) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(access)?;
        {
            let mut logs = transaction.open_table(LOGS).map_err(access)?;
            transaction.open_table(ENTRIES).map_err(access)?;
            transaction.open_table(REPEATS).map_err(access)?;
            for name in &self.names {
                if logs.get(name.as_str()).map_err(access)?.is_none() {
                    logs.insert(name.as_str(), (new_epoch().as_str(), 0, 0)).map_err(access)?;
                }
            }
        }
        transaction.commit().map_err(access)
    }

    /// Every log as it stands on disk.
    pub(super) fn load(&self) -> Result<Vec<Ledger>, StoreError> {
        let transaction = self.database.begin_read().map_err(access)?;
        let logs = transaction.open_table(LOGS).map_err(access)?;
        let entries = transaction.open_table(ENTRIES).map_err(access)?;
        let repeats = transaction.open_table(REPEATS).map_err(access)?;
        let mut ledgers = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            let name = name.as_str();
            let Some(log) = logs.get(name).map_err(access)? else {
                return Err(StoreError::Corrupt { what: format!("no log `{name}`") });
            };
            let (epoch, head, floor) = log.value();
            let epoch = Epoch::new(epoch)
                .map_err(|_| StoreError::Corrupt { what: format!("the epoch of log `{name}`") })?;
            let sub = sub_id(index)?;
            let mut restored = Vec::new();
            for entry in entries.range((name, 0)..=(name, u64::MAX)).map_err(access)? {
                let (at, bytes) = entry.map_err(access)?;
                restored.push(read_record(sub, &epoch, at.value().1, bytes.value(), name)?);
            }
            let log = CompactedLog::restore(epoch, head, floor, restored);
            let range = (name, [0; 16])..=(name, [u8::MAX; 16]);
            let mut seen = Vec::new();
            for repeat in repeats.range(range).map_err(access)? {
                let (at, value) = repeat.map_err(access)?;
                let (seq, data, ms) = value.value();
                seen.push((at.value().1, Seen { seq, data, at: Timestamp::from_millis(ms) }));
            }
            // The order of age, in which they are forgotten.
            seen.sort_by_key(|(_, seen)| (seen.at, seen.seq));
            ledgers.push(Ledger::new(log, seen));
        }
        Ok(ledgers)
    }

    /// Writes a batch and syncs it.
    pub(super) fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(access)?;
        {
            let mut logs = transaction.open_table(LOGS).map_err(access)?;
            let mut entries = transaction.open_table(ENTRIES).map_err(access)?;
            let mut repeats = transaction.open_table(REPEATS).map_err(access)?;
            for change in changes {
                let name = self.names[change.sub.index()].as_str();
                let epoch = logs.get(name).map_err(access)?.map(|log| log.value().0.to_owned());
                let Some(epoch) = epoch else {
                    return Err(StoreError::Corrupt { what: format!("no log `{name}`") });
                };
                for stored in &change.added {
                    let bytes = write_record(stored)?;
                    entries.insert((name, stored.seq), bytes.as_slice()).map_err(access)?;
                }
                for seq in &change.removed {
                    entries.remove((name, *seq)).map_err(access)?;
                }
                for (id, seen) in &change.repeats {
                    repeats
                        .insert((name, *id), (seen.seq, seen.data, seen.at.as_millis()))
                        .map_err(access)?;
                }
                for id in &change.forgotten {
                    repeats.remove((name, *id)).map_err(access)?;
                }
                logs.insert(name, (epoch.as_str(), change.head, change.floor)).map_err(access)?;
            }
        }
        transaction.commit().map_err(access)
    }
}

fn sub_id(index: usize) -> Result<SubId, StoreError> {
    SubId::from_index(index).ok_or_else(|| StoreError::Corrupt { what: "too many logs".to_owned() })
}

fn read_record(
    sub: SubId,
    epoch: &Epoch,
    seq: u64,
    bytes: &[u8],
    name: &str,
) -> Result<Arc<Stored>, StoreError> {
    let record: Record = serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Corrupt { what: format!("entry {seq} of log `{name}`: {error}") })?;
    let Record { key, removes, envelope } = record;
    let key = key.map(|key| ValueKey { message_type: envelope.message_type.clone(), key });
    Ok(Arc::new(Stored { sub, epoch: epoch.clone(), seq, key, removes, envelope }))
}

fn write_record(stored: &Stored) -> Result<Vec<u8>, StoreError> {
    let record = Record {
        key: stored.key.as_ref().map(|value| value.key.clone()),
        removes: stored.removes,
        envelope: stored.envelope.clone(),
    };
    serde_json::to_vec(&record)
        .map_err(|error| StoreError::Corrupt { what: format!("entry {}: {error}", stored.seq) })
}

fn access(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Access(Box::new(error.into()))
}
