//! The last control view on disk, with a checksum: what a node starts from while control is away.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hiveops_proto::control::ControlView;
use hiveops_proto::digest;

const NAME: &str = "control-view";

/// Why the last view cannot be used. A node does not start without one: it would be open by default.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file is there and cannot be read.
    #[error("the last control view {} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not what a node wrote.
    #[error(
        "the last control view {} is damaged ({problem}): remove it, and start the node while a control replica answers",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        problem: String,
    },
}

/// The view that was written last, if there is one.
pub(super) fn read(dir: &Path) -> Result<Option<ControlView>, CacheError> {
    let path = dir.join(NAME);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CacheError::Read { path, source }),
    };
    let damaged = |problem: String| CacheError::Damaged { path: path.clone(), problem };
    let (sum, json) = text.split_once('\n').ok_or_else(|| damaged("no checksum".to_owned()))?;
    if sum != digest(json) {
        return Err(damaged("the checksum differs".to_owned()));
    }
    serde_json::from_str(json).map(Some).map_err(|error| damaged(error.to_string()))
}

/// How long ago the view was written, as far as the machine's clock can tell.
pub(super) fn age(dir: &Path) -> Duration {
    let written = std::fs::metadata(dir.join(NAME)).and_then(|data| data.modified());
    written.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

/// Writes the view in the place of the one before, whole or not at all.
pub(super) fn write(dir: &Path, view: &ControlView) -> io::Result<()> {
    let json = serde_json::to_string(view)?;
    std::fs::create_dir_all(dir)?;
    let (path, fresh) = (dir.join(NAME), dir.join(format!("{NAME}.new")));
    let mut file = File::create(&fresh)?;
    write!(file, "{}\n{json}", digest(&json))?;
    file.sync_all()?;
    std::fs::rename(&fresh, &path)?;
    // So that the new name outlives a power loss as well.
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hiveops_proto::Limits;

    use crate::hub::testing::control;

    fn control_view() -> ControlView {
        ControlView::clone(&control(Limits::default()))
    }

    #[test]
    fn a_view_comes_back_as_it_was_written_and_the_later_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b");
        assert!(read(&place).unwrap().is_none());
        let mut view = control_view();
        write(&place, &view).unwrap();
        assert_eq!(read(&place).unwrap().as_ref(), Some(&view));
        view.revision.index += 1;
        write(&place, &view).unwrap();
        assert_eq!(read(&place).unwrap(), Some(view));
    }

    #[test]
    fn a_damaged_file_is_named_and_never_used() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &control_view()).unwrap();
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in [0, 80, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let error = read(dir.path()).unwrap_err().to_string();
            assert!(error.contains("control-view"), "byte {at}: {error}");
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(read(dir.path()).is_err(), "half of it");
        std::fs::write(&path, "").unwrap();
        assert!(read(dir.path()).is_err(), "nothing of it");
    }
}
