//! The calls of the system that storage is made of, in one place: a simulation of a cluster puts a disk there
//! that loses what was not synced.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Error;

#[cfg(test)]
use crate::sim::disk as simulated;

/// An open file.
#[derive(Debug)]
pub(super) enum File {
    System(fs::File),
    #[cfg(test)]
    Simulated(simulated::File),
}

/// Does it on the simulated disk, where there is one.
macro_rules! or_simulated {
    ($disk:ident => $simulated:expr) => {
        #[cfg(test)]
        if let Some($disk) = simulated::Disk::mounted() {
            return $simulated;
        }
    };
}

/// Private keys and hashes of passwords are among what is stored: only the owner reads it.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// How files are opened.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE).read(true).write(true);
    options
}

/// Makes a directory when it is not there, and keeps others out of it.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    or_simulated!(_disk => Ok(()));
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(Error::io("create", path))?;
    let mode = fs::metadata(path).map_err(Error::io("look at", path))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    // It was there before. A volume may belong to somebody else, who cannot be overruled; the files in it are
    // private all the same.
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)) {
        let directory = path.display();
        tracing::warn!(%directory, error = %error, "others can list the data directory");
    }
    Ok(())
}

/// A new file, or an empty one in its place.
pub(super) fn create(path: &Path) -> io::Result<File> {
    or_simulated!(disk => disk.create(path).map(File::Simulated));
    private().create(true).truncate(true).open(path).map(File::System)
}

/// A file that is there.
pub(super) fn open(path: &Path) -> io::Result<File> {
    or_simulated!(disk => disk.open(path).map(File::Simulated));
    private().open(path).map(File::System)
}

/// A file as it is, or a new one.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    or_simulated!(disk => disk.open_or_create(path).map(File::Simulated));
    private().create(true).truncate(false).open(path).map(File::System)
}

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    or_simulated!(disk => disk.read(path));
    fs::read(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    or_simulated!(disk => disk.rename(from, to));
    fs::rename(from, to)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    or_simulated!(disk => disk.remove(path));
    fs::remove_file(path)
}

/// What is in a directory.
pub(super) fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    or_simulated!(disk => disk.list(path));
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Makes what was created, renamed or removed in a directory last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    or_simulated!(disk => disk.sync_directory(path));
    fs::File::open(path)?.sync_all()
}

impl File {
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::System(file) => file.write_all_at(bytes, offset),
            #[cfg(test)]
            Self::Simulated(file) => file.write_at(bytes, offset),
        }
    }

    pub(super) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::System(file) => file.read_exact_at(bytes, offset),
            #[cfg(test)]
            Self::Simulated(file) => file.read_at(bytes, offset),
        }
    }

    pub(super) fn set_len(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::System(file) => file.set_len(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.set_len(bytes),
        }
    }

    pub(super) fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::System(file) => file.sync_all(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::System(file) => file.sync_data(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync(),
        }
    }

    pub(super) fn try_lock(&self) -> Result<(), fs::TryLockError> {
        match self {
            Self::System(file) => file.try_lock(),
            // One process has a simulated disk.
            #[cfg(test)]
            Self::Simulated(_) => Ok(()),
        }
    }
}
