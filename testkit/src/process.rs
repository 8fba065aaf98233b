//! A process of a test: its output goes to a file, it can be killed, frozen and asked to end, and it is
//! killed when it is dropped.
//!
//! A test run that is itself killed drops nothing. For that case the process asks the kernel to be killed
//! with the thread that started it, which is why one thread that never ends starts them all.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::program;
use crate::wait::{PATIENCE, wait_for_some};

/// Of the output that an error shows.
const SHOWN_BYTES: usize = 4_096;

#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it, with both outputs appended to `log`.
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        let child = spawn(dying_with_us(command), out).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// None while it runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot look after {}", self.name))
    }

    /// Kills it as a power cut would, as far as a process can tell. Nothing happens when it has ended.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM).map(|_| ())
    }

    /// Stops it where it is: its connections stay open, and nobody serves them. Returns when it stands still.
    pub fn freeze(&mut self) -> Result<()> {
        let pid = self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        wait_for_some(&format!("{} to stand still", self.name), PATIENCE, || {
            Ok(waitid(WaitId::Pid(pid), options)?.map(|_| ()))
        })
    }

    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT).map(|_| ())
    }

    /// Waits for its end.
    pub fn wait_ended(&mut self) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_for_some(&what, PATIENCE, || self.ended())
    }

    /// What it has written so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of what it has written, for an error.
    pub fn last_output(&self) -> String {
        let output = self.output();
        let mut start = output.len().saturating_sub(SHOWN_BYTES);
        while !output.is_char_boundary(start) {
            start += 1;
        }
        output[start..].to_owned()
    }

    fn signal(&mut self, signal: Signal) -> Result<Pid> {
        // A process that has ended but was not waited for keeps its number, so that nobody else gets this.
        if let Some(status) = self.ended()? {
            return Err(anyhow!("{} has ended: {status}\n{}", self.name, self.last_output()));
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a pid is positive")?;
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {}", self.name))?;
        Ok(pid)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command unless our process ended before the kernel was told to kill it with us.
const UNLESS_ORPHAN: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;

/// The same command, killed by the kernel when the thread that starts it ends. Where there is no `setpriv`
/// it is only killed on drop.
fn dying_with_us(command: &Command) -> Command {
    static SETPRIV: LazyLock<Option<PathBuf>> = LazyLock::new(|| program::in_path("setpriv"));
    let mut wrapped = match SETPRIV.as_ref() {
        None => Command::new(command.get_program()),
        Some(setpriv) => {
            let mut wrapped = Command::new(setpriv);
            wrapped.args(["--pdeathsig", "KILL", "--", "sh", "-c", UNLESS_ORPHAN]);
            wrapped.arg(std::process::id().to_string()).arg(command.get_program());
            wrapped
        }
    };
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

struct Order {
    command: Command,
    out: File,
    reply: SyncSender<std::io::Result<Child>>,
}

fn spawn(command: Command, out: File) -> Result<Child> {
    // One order at a time; who orders waits for the reply.
    static SPAWNER: LazyLock<Mutex<SyncSender<Order>>> = LazyLock::new(|| {
        let (sender, receiver): (_, Receiver<Order>) = sync_channel(1);
        std::thread::spawn(move || {
            for Order { mut command, out, reply } in receiver {
                let child = out
                    .try_clone()
                    .and_then(|err| command.stdin(Stdio::null()).stdout(out).stderr(err).spawn());
                // Whoever ordered it waits for it.
                let _ = reply.send(child);
            }
        });
        Mutex::new(sender)
    });
    let (reply, child) = sync_channel(1);
    let spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    spawner.send(Order { command, out, reply }).ok().context("the spawner has ended")?;
    Ok(child.recv().context("the spawner has ended")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> (tempfile::TempDir, Process) {
        let place = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]).env("GREETING", "hello").current_dir(place.path());
        let process = Process::start("sh", &command, &place.path().join("sh.log")).unwrap();
        (place, process)
    }

    fn state(process: &Process) -> Option<char> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).ok()?;
        status.lines().find_map(|line| line.strip_prefix("State:"))?.trim().chars().next()
    }

    #[test]
    fn its_output_and_status_are_kept() {
        let (_place, mut process) = start("echo $GREETING; echo there >&2; exit 3");
        assert_eq!(process.wait_ended().unwrap().code(), Some(3));
        assert_eq!(process.output(), "hello\nthere\n");
        assert!(process.terminate().unwrap_err().to_string().starts_with("sh has ended: exit status: 3"));
    }

    #[test]
    fn it_is_frozen_and_thawed_and_ends_when_asked() {
        use std::os::unix::process::ExitStatusExt as _;
        // Thousands of seconds: it ends by a signal.
        let (_place, mut process) = start("exec sleep 3600");
        process.freeze().unwrap();
        process.freeze().unwrap();
        assert_eq!(state(&process), Some('T'));
        process.thaw().unwrap();
        crate::wait::wait_for("S", || state(&process) == Some('S')).unwrap();
        process.terminate().unwrap();
        assert_eq!(process.wait_ended().unwrap().signal(), Some(15));
    }

    #[test]
    fn it_does_not_outlive_its_owner_even_when_frozen() {
        let (_place, mut process) = start("exec sleep 3600");
        process.freeze().unwrap();
        let pid = process.pid();
        drop(process);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn it_lives_longer_than_the_thread_that_asked_for_it() {
        let started = std::thread::spawn(|| start("echo up; exec sleep 3600")).join();
        let (_place, mut process) = started.unwrap();
        crate::wait::wait_for("up", || process.output() == "up\n").unwrap();
        assert!(process.ended().unwrap().is_none());
    }
}
