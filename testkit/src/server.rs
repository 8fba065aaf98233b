//! What every server has in common: a directory, a port, and a process that is killed and started again in
//! the same place. It knows no protocol: each kind of server says what it means to be ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::program::Program;
use crate::wait::{PATIENCE, wait_for_some};

/// In the server's directory, which it is started in: its configuration.
pub(crate) const CONFIG: &str = "server.conf";

#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    port: Port,
    process: Process,
    /// Dropped last: the process writes into it.
    place: TempDir,
}

impl Server {
    /// Starts it in a new directory, with the text of its configuration, made for the directory and the
    /// port, in the file `CONFIG`. Who calls this waits for it with `wait_ready`.
    pub(crate) fn start(
        program: Program,
        args: &[&str],
        port: Port,
        config: impl FnOnce(&Path, &Port) -> Result<String>,
    ) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("hiveops-testkit-").tempdir()?;
        std::fs::write(place.path().join(CONFIG), config(place.path(), &port)?)?;
        let file = program.find()?;
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let process = launch(program.name, &file, &args, place.path())?;
        Ok(Self { name: program.name, program: file, args, port, process, place })
    }

    /// Waits until `ready` gives something; its errors mean that it is not so far yet.
    pub(crate) fn wait_ready<T>(&mut self, ready: impl Fn(SocketAddr) -> Result<T>) -> Result<T> {
        let addr = self.addr();
        let mut last = None;
        let waited = wait_for_some(&format!("{} on {addr}", self.name), PATIENCE, || {
            if let Some(status) = self.process.ended()? {
                last = None;
                bail!("{} ended: {status}\n{}", self.name, self.process.last_output());
            }
            match ready(addr) {
                Ok(value) => Ok(Some(value)),
                Err(error) => {
                    last = Some(error);
                    Ok(None)
                }
            }
        });
        waited.map_err(|error| match last {
            None => error,
            Some(last) => error.context(format!("{last:#}\n{}", self.process.last_output())),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(crate) fn output(&self) -> String {
        self.process.output()
    }

    /// Starts it again, on the same port and with the files that it left; kills it first when it still runs.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = launch(self.name, &self.program, &self.args, self.place.path())?;
        Ok(())
    }
}

fn launch(name: &str, program: &Path, args: &[String], place: &Path) -> Result<Process> {
    let mut command = Command::new(program);
    command.args(args).current_dir(place);
    Process::start(name, &command, &place.join("output"))
}
