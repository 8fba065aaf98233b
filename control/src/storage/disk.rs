//! The calls of the system that storage is made of, in one place: a simulation of a cluster puts a disk there
//! that loses what was not synced.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

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

pub(super) fn create_directories(path: &Path) -> io::Result<()> {
    or_simulated!(_disk => Ok(()));
    fs::create_dir_all(path)
}

/// A new file, or an empty one in its place.
pub(super) fn create(path: &Path) -> io::Result<File> {
    or_simulated!(disk => disk.create(path).map(File::Simulated));
    fs::OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path).map(File::System)
}

/// A file that is there.
pub(super) fn open(path: &Path) -> io::Result<File> {
    or_simulated!(disk => disk.open(path).map(File::Simulated));
    fs::OpenOptions::new().read(true).write(true).open(path).map(File::System)
}

/// A file as it is, or a new one.
pub(super) fn open_or_create(path: &Path) -> io::Result<File> {
    or_simulated!(disk => disk.open_or_create(path).map(File::Simulated));
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).open(path).map(File::System)
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
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::System(file) => file.write_all(bytes),
            #[cfg(test)]
            Self::Simulated(file) => file.append(bytes),
        }
    }

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
