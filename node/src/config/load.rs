//! The only place of the program that reads the environment, and the machine's part of the defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::build::{Defaults, Loaded, resolve};
use super::layers::{FILE_BYTES_MAX, Inputs};
use super::mistake::Mistakes;
use super::value::LogFormat;

impl Defaults {
    /// Those of this machine, for a command that logs like this.
    pub fn here(log: &str, log_format: LogFormat) -> Self {
        Self {
            host: rustix::system::uname().nodename().to_str().ok().map(str::to_owned),
            process: std::process::id(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            log: log.to_owned(),
            log_format,
            control_beside: false,
        }
    }
}

/// Loads the configuration of this process; `flags` by setting name.
pub fn load(flags: BTreeMap<String, String>, defaults: &Defaults) -> Result<Loaded, Mistakes> {
    let inputs = Inputs { flags, env: environment(), read: Box::new(read_bounded) };
    resolve(&inputs, defaults)
}

#[expect(clippy::disallowed_methods, reason = "the one place of the program that reads the environment")]
fn environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX);
    fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}
