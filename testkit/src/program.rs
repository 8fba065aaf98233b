//! Where the programs are that tests start, and what to do when one is missing.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// A program that `scripts/install` knows.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Of the file, and of what `scripts/install` is asked for.
    pub name: &'static str,
    /// The variable that names another file.
    pub env: &'static str,
}

/// JetStream needs a version that distributions do not have, so that `.tools/bin` comes before `PATH`.
pub const NATS_SERVER: Program = Program { name: "nats-server", env: "NATS_SERVER" };
pub const REDIS_SERVER: Program = Program { name: "redis-server", env: "REDIS_SERVER" };
/// Of the package that `scripts/install prometheus` installs, with `promtool`.
pub const PROMETHEUS: Program = Program { name: "prometheus", env: "PROMETHEUS" };
pub const HAPROXY: Program = Program { name: "haproxy", env: "HAPROXY" };

/// Debian keeps servers there, and a person's `PATH` may lack it.
const SYSTEM: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];

impl Program {
    /// The file: what the environment names, what `scripts/install` made, or what the system has.
    pub fn find(&self) -> Result<PathBuf> {
        if let Some(path) = environment(self.env) {
            let path = PathBuf::from(path);
            if !path.is_file() {
                bail!("{} names {}, which is no file", self.env, path.display());
            }
            return Ok(path);
        }
        let Some(path) = places().map(|place| place.join(self.name)).find(|path| path.is_file()) else {
            bail!("{} is missing; install it with: scripts/install {}", self.name, self.name);
        };
        Ok(path)
    }
}

/// The file of this name in `PATH`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    path().map(|place| place.join(name)).find(|path| path.is_file())
}

fn places() -> impl Iterator<Item = PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin");
    std::iter::once(tools).chain(path()).chain(SYSTEM.map(PathBuf::from))
}

fn path() -> impl Iterator<Item = PathBuf> {
    let path = environment("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

#[expect(clippy::disallowed_methods, reason = "where programs are is no setting of HiveOps")]
fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_an_error_that_says_how_to_get_it() {
        let program = Program { name: "no-such-server", env: "NO_SUCH_SERVER" };
        let error = program.find().unwrap_err().to_string();
        assert_eq!(error, "no-such-server is missing; install it with: scripts/install no-such-server");
    }

    #[test]
    fn a_variable_that_names_no_file_is_an_error_and_not_passed_over() {
        // `CARGO_MANIFEST_DIR` is set in every test run, and is a directory.
        let error = Program { name: "sh", env: "CARGO_MANIFEST_DIR" }.find().unwrap_err().to_string();
        assert!(error.starts_with("CARGO_MANIFEST_DIR names "), "{error}");
    }

    #[test]
    fn what_the_system_has_is_found() {
        let sh = Program { name: "sh", env: "HIVEOPS_TESTKIT_SH" }.find().unwrap();
        assert!(sh.ends_with("sh"), "{}", sh.display());
    }
}
