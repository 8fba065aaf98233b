//! A replica's data directory: one process at a time, one replica and one cluster for ever.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};

use super::disk::{self, File};
use super::{Error, file};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity";
const IDENTITY_MAGIC: [u8; 8] = *b"HIVEID01";

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) replica: u64,
    /// None until the replica has met its cluster.
    pub(crate) cluster: Option<String>,
}

/// The directory while it is ours.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Held for its lock, which the kernel takes back when this process ends in any way.
    _lock: File,
    identity: Identity,
}

impl Directory {
    /// Takes the directory for a replica, and makes it when it is not there.
    pub(crate) fn open(path: &Path, replica: u64) -> Result<Self, Error> {
        disk::make_directory(path)?;
        let lock_path = path.join(LOCK);
        let lock = disk::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &lock_path)(error)),
        }
        file::remove_unfinished(path)?;
        let identity = match file::read(&path.join(IDENTITY), IDENTITY_MAGIC)? {
            Some(bytes) => decode(&path.join(IDENTITY), &bytes)?,
            None => Identity { replica, cluster: None },
        };
        if identity.replica != replica {
            let path = path.to_owned();
            return Err(Error::OtherReplica { path, found: identity.replica, wanted: replica });
        }
        let directory = Self { path: path.to_owned(), _lock: lock, identity };
        directory.save()?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Makes the directory part of a cluster.
    pub(crate) fn set_cluster(&mut self, cluster: &str) -> Result<(), Error> {
        self.identity.cluster = Some(cluster.to_owned());
        self.save()
    }

    fn save(&self) -> Result<(), Error> {
        let cluster = self.identity.cluster.as_deref().unwrap_or_default();
        let text = format!("{}\n{cluster}\n", self.identity.replica);
        file::replace(&self.path.join(IDENTITY), IDENTITY_MAGIC, text.as_bytes())
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Identity, Error> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let mut lines = text.lines();
    let replica = lines.next().and_then(|line| line.parse().ok());
    let cluster = lines.next().filter(|line| !line.is_empty()).map(str::to_owned);
    let reason = "it names no replica";
    let replica = replica.ok_or_else(|| Error::Corrupt { path: path.to_owned(), offset: 0, reason })?;
    Ok(Identity { replica, cluster })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_belongs_to_one_replica_and_one_cluster() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("control");
        let mut directory = Directory::open(&path, 2).unwrap();
        assert_eq!(directory.identity().cluster, None);
        directory.set_cluster("c-1").unwrap();
        drop(directory);
        let error = Directory::open(&path, 3).unwrap_err().to_string();
        assert!(error.contains("belongs to replica 2, not to replica 3"), "{error}");
        let directory = Directory::open(&path, 2).unwrap();
        assert_eq!(directory.identity().cluster.as_deref(), Some("c-1"));
    }

    #[test]
    fn nobody_else_can_look_into_it() {
        let place = tempfile::tempdir().unwrap();
        // One that is made, and one that was there and open to all.
        let (made, found) = (place.path().join("made"), place.path().join("found"));
        fs::create_dir(&found).unwrap();
        fs::set_permissions(&found, fs::Permissions::from_mode(0o755)).unwrap();
        for path in [made, found] {
            let _directory = Directory::open(&path, 1).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o700);
            let mut files = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).peekable();
            assert!(files.peek().is_some());
            files.for_each(|file| assert_eq!(mode(&file), 0o600, "{}", file.display()));
        }
    }

    #[test]
    fn one_process_at_a_time_has_it() {
        let place = tempfile::tempdir().unwrap();
        let _first = Directory::open(place.path(), 1).unwrap();
        let error = Directory::open(place.path(), 1).unwrap_err().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }
}
