//! `hiveops tied`: becomes another program that the kernel kills when the process that started it ends.
//!
//! Hidden: `hiveops dev` starts the parts of its cluster with it. A process can ask for that only for itself, and
//! what it asked for outlives `exec`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

/// What to become, and whose end is to be its own.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process that started this one
    parent: i32,
    /// What to become
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // Elsewhere the parts of a cluster outlive a parent that is killed.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot be tied to its parent")?;
    // It may have ended before the kernel was asked.
    if rustix::process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get() != args.parent) {
        return Ok(ExitCode::FAILURE);
    }
    let error = Command::new(&args.program).args(args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", args.program.display()))
}
