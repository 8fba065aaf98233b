//! System calls of another process, counted by the kernel's own trace point through `perf stat`: neither
//! `/proc/PID/io` will do (its `syscw` leaves out `send` and `sendmsg`), nor `strace` (it stops the process at
//! each call, which lets more pile up for the next one and so changes what is counted).

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid as KernelPid, Signal, kill_process};

use crate::clock::Deadline;
use crate::process::Pid;

const EVENT: &str = "raw_syscalls:sys_enter";
/// How long perf may take until it counts.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// A running count. Dropping it ends it.
pub(crate) struct Counter {
    perf: Child,
}

impl Counter {
    /// Counts from when this returns, over all threads of `process`.
    pub(crate) fn start(process: Pid) -> anyhow::Result<Self> {
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", EVENT, "-p", &process.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start perf, which counts system calls")?;
        let mut counter = Self { perf };
        let deadline = Deadline::after(START_TIMEOUT);
        while !counter.is_attached() {
            let ended = counter.perf.try_wait().context("cannot look at perf")?.is_some();
            ensure!(!ended, "perf may not count here: {}", counter.output().trim());
            ensure!(deadline.left().is_some(), "perf does not begin to count");
            pause(Duration::from_millis(10));
        }
        Ok(counter)
    }

    /// It holds a descriptor of its event for each thread.
    fn is_attached(&self) -> bool {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{}/fd", self.perf.id())) else { return false };
        descriptors
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .any(|link| link.to_string_lossy().contains("[perf_event]"))
    }

    fn output(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = &mut self.perf.stderr {
            // What could not be read is not in it.
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Ends the count.
    pub(crate) fn stop(mut self) -> anyhow::Result<u64> {
        let pid = i32::try_from(self.perf.id()).ok().and_then(KernelPid::from_raw);
        kill_process(pid.context("perf has a process id")?, Signal::INT).context("cannot end perf")?;
        let output = self.output();
        counted(&output).with_context(|| format!("perf said: {}", output.trim()))
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about a failure here.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing says when perf has attached but the files it holds")]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// The count in a line of `perf stat -x,`: `VALUE,UNIT,EVENT,…`.
fn counted(output: &str) -> Option<u64> {
    let line = output.lines().find(|line| line.contains(EVENT))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_the_first_field_of_its_line() {
        let output = "\n1234,,raw_syscalls:sys_enter,500,100.00,,\n";
        assert_eq!(counted(output), Some(1234));
        assert_eq!(counted("<not counted>,,raw_syscalls:sys_enter,0,0.00,,"), None);
        assert_eq!(counted("Error: no permission"), None);
    }
}
