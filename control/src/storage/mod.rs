//! What a replica keeps on its own disk: the log in segments, small files that are replaced whole, and the
//! directory with its lock. Payloads are bytes to it; what they mean is the business of `raft`.
//!
//! Everything that is read back has a checksum. What a power cut can leave behind, an unfinished end of the
//! last segment, is cut off; anything else that does not fit stops the replica and names file and offset.
//! All calls block.

mod directory;
mod disk;
mod file;
mod log;
mod segment;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use directory::Directory;
pub(crate) use file::{Overwritten, read, replace};
pub(crate) use log::{Log, Recovered};

/// Does something that waits for the disk on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    #[cfg(test)]
    if let Some(process) = crate::sim::process::Process::current() {
        return Ok(process.blocking(work).await);
    }
    tokio::task::spawn_blocking(work).await
}

/// Why something cannot be stored, or not be read back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is there is not what was written.
    #[error("{} is corrupt at offset {offset}: {reason}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it the damage begins.
        offset: u64,
        /// What does not fit.
        reason: &'static str,
    },
    /// An earlier write failed, so that nobody knows what of it is on the disk.
    #[error("nothing more is written to {}, because a write to it has failed", .path.display())]
    Failed {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else uses the directory.
    #[error("the data directory {} is in use by another process", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another replica.
    #[error("the data directory {} belongs to replica {found}, not to replica {wanted}", .path.display())]
    OtherReplica {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who wanted to use it.
        wanted: u64,
    },
}

impl Error {
    /// For `map_err` on a call of the system.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
