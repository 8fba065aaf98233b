//! Small files: those that are replaced whole, and those that are overwritten in place because losing the
//! last write of them does no harm.

use std::path::{Path, PathBuf};

use super::Error;
use super::disk::{self, File};

/// Magic, length, checksum.
const HEAD_BYTES: usize = 8 + 8 + 4;
/// What a file is called until it is whole.
const UNFINISHED: &str = "tmp";

/// Puts a file in the place of the one of that name, whole or not at all, and on the disk before it returns.
pub(crate) fn replace(path: &Path, magic: [u8; 8], payload: &[u8]) -> Result<(), Error> {
    let unfinished = path.with_extension(UNFINISHED);
    let file = disk::create(&unfinished).map_err(Error::io("create", &unfinished))?;
    let written = file.write_all_at(&head(magic, payload), 0);
    let written = written.and_then(|()| file.write_all_at(payload, HEAD_BYTES as u64));
    written.map_err(Error::io("write", &unfinished))?;
    #[cfg(test)]
    if crate::sim::planted::is_left_unsynced(path) {
        return disk::rename(&unfinished, path).map_err(Error::io("rename", &unfinished));
    }
    file.sync_all().map_err(Error::io("sync", &unfinished))?;
    disk::rename(&unfinished, path).map_err(Error::io("rename", &unfinished))?;
    sync_parent(path)
}

/// Reads what [`replace`] has written; nothing when there is no such file.
pub(crate) fn read(path: &Path, magic: [u8; 8]) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = match disk::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let corrupt = |offset, reason| Error::Corrupt { path: path.to_owned(), offset, reason };
    if bytes.get(..8) != Some(&magic[..]) {
        return Err(corrupt(0, "it does not begin as such a file does"));
    }
    let Some(length) = number(&bytes, 8) else { return Err(corrupt(8, "its length is missing")) };
    if bytes.len() < HEAD_BYTES || length != (bytes.len() - HEAD_BYTES) as u64 {
        return Err(corrupt(8, "it is not as long as it says"));
    }
    if bytes[..HEAD_BYTES] != head(magic, &bytes[HEAD_BYTES..]) {
        return Err(corrupt(16, "its checksum does not fit"));
    }
    bytes.drain(..HEAD_BYTES);
    Ok(Some(bytes))
}

/// Removes what a replacement left that was not finished.
pub(crate) fn remove_unfinished(directory: &Path) -> Result<(), Error> {
    for path in disk::list(directory).map_err(Error::io("list", directory))? {
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            disk::remove(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Makes what was created, renamed or removed beside `path` last.
pub(super) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().expect("a file of ours is in a directory");
    disk::sync_directory(parent).map_err(Error::io("sync", parent))
}

fn head(magic: [u8; 8], payload: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&magic);
    head[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&head[..16]);
    checksum.update(payload);
    head[16..].copy_from_slice(&checksum.finalize().to_le_bytes());
    head
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A file that is overwritten in place and not synced: after a power cut it may hold an older value or none.
#[derive(Debug)]
pub(crate) struct Overwritten {
    file: File,
    path: PathBuf,
    magic: [u8; 8],
}

impl Overwritten {
    pub(crate) fn open(path: PathBuf, magic: [u8; 8]) -> Result<Self, Error> {
        let file = disk::open_or_create(&path).map_err(Error::io("open", &path))?;
        Ok(Self { file, path, magic })
    }

    /// A value of a length that is always the same.
    pub(crate) fn write(&self, payload: &[u8]) -> Result<(), Error> {
        let mut bytes = head(self.magic, payload).to_vec();
        bytes.extend_from_slice(payload);
        self.file.write_all_at(&bytes, 0).map_err(Error::io("write", &self.path))
    }

    /// What was written last, as far as it is there and whole.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        read(&self.path, self.magic).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MAGIC: [u8; 8] = *b"TESTFILE";

    #[test]
    fn a_file_is_replaced_whole_and_read_back() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("vote");
        assert_eq!(read(&path, MAGIC).unwrap(), None);
        for payload in [&b"one"[..], b"", b"another"] {
            replace(&path, MAGIC, payload).unwrap();
            assert_eq!(read(&path, MAGIC).unwrap().as_deref(), Some(payload));
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        fs::write(place.path().join("vote.tmp"), "half").unwrap();
        remove_unfinished(place.path()).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_flipped_bit_and_any_other_length_is_found_and_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("vote");
        replace(&path, MAGIC, b"payload").unwrap();
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let error = read(&path, MAGIC).unwrap_err().to_string();
            assert!(error.contains("vote is corrupt at offset "), "{error}");
        }
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(read(&path, MAGIC).is_err(), "{length}");
        }
    }

    #[test]
    fn what_is_overwritten_is_read_back_or_counts_as_absent() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("committed");
        let file = Overwritten::open(path.clone(), MAGIC).unwrap();
        assert_eq!(file.read(), None);
        file.write(b"12345678").unwrap();
        file.write(b"abcdefgh").unwrap();
        assert_eq!(file.read().as_deref(), Some(&b"abcdefgh"[..]));
        fs::write(&path, "half").unwrap();
        assert_eq!(file.read(), None);
    }
}
