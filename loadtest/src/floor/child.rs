//! The floor as a child process, so that its CPU can be told from the client's. It ends with its parent:
//! by our hand when the measurement is over, and by the end of its standard input whatever happens.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::answer::LISTENING;
use crate::process::Pid;

/// A running floor.
pub(crate) struct FloorProcess {
    child: Child,
    authority: String,
}

impl FloorProcess {
    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut child = Command::new(program)
            .args(["floor", "--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the floor")?;
        let output = child.stdout.take();
        let mut floor = Self { child, authority: String::new() };
        let mut line = String::new();
        if let Some(output) = output {
            // It says this first or ends, and either ends the wait.
            BufReader::new(output).read_line(&mut line).context("cannot hear from the floor")?;
        }
        let address = line.trim().strip_prefix(LISTENING).context("the floor did not start")?;
        address.clone_into(&mut floor.authority);
        Ok(floor)
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn pid(&self) -> anyhow::Result<Pid> {
        Pid::check(self.child.id())
    }
}

impl Drop for FloorProcess {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about a failure here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
