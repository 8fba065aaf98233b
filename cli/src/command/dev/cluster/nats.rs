//! Where nats-server is, and how it is started for a local cluster.

use std::path::{Path, PathBuf};

const NAME: &str = "nats-server";
/// Names another file, for `scripts/install` and the tests as well.
const ENV: &str = "NATS_SERVER";

/// There is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missing {
    #[error(
        "nats-server is missing, neither in .tools/bin nor in PATH; install it with: scripts/install nats-server"
    )]
    Everywhere,
    #[error("{ENV} names {}, which is no file", .0.display())]
    Named(PathBuf),
}

/// What the environment names, what `scripts/install` made in the checkout, or what the system has. Most systems
/// have one that is too old, which is why it comes last.
#[expect(clippy::disallowed_methods, reason = "where programs are is no setting of HiveOps")]
pub(super) fn find() -> Result<PathBuf, Missing> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set(ENV).map(PathBuf::from) {
        return if path.is_file() { Ok(path) } else { Err(Missing::Named(path)) };
    }
    let path = set("PATH").unwrap_or_default();
    let here = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let tools = here.iter().flatten().flat_map(|here| here.ancestors()).map(|place| place.join(".tools/bin"));
    first(tools.chain(std::env::split_paths(&path)))
}

fn first(places: impl Iterator<Item = PathBuf>) -> Result<PathBuf, Missing> {
    places.map(|place| place.join(NAME)).find(|path| path.is_file()).ok_or(Missing::Everywhere)
}

pub(super) fn args(port: u16, data: &Path) -> Vec<String> {
    let data = data.display().to_string();
    let port = port.to_string();
    ["--addr", "127.0.0.1", "--port", &port, "--jetstream", "--store_dir", &data].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_has_it_wins_and_without_one_the_error_says_how_to_install_it() {
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = || places.iter().map(|place| place.path().to_owned());
        assert!(first(paths()).unwrap_err().to_string().ends_with("scripts/install nats-server"));
        for place in places.iter().rev() {
            std::fs::write(place.path().join(NAME), "").unwrap();
            assert_eq!(first(paths()).unwrap(), place.path().join(NAME));
        }
    }
}
