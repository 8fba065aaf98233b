//! A directory for one run of `hiveops dev` that has nothing to keep. A run that is killed leaves it behind.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::control_api::unique;

/// Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn make() -> io::Result<Self> {
        // A dead process may have had this one's number.
        let name = format!("hiveops-dev-{}-{:x}", std::process::id(), unique());
        let path = std::env::temp_dir().join(name);
        // Signing keys may come to lie in it.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %error, "temporary directory not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_nobody_elses_and_goes_with_what_is_in_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::make().unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
