//! The binary while it runs: its output line by line as it comes, signals, and its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use hiveops_testkit::wait::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::Place;

/// A process of the binary; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

/// What a process has written so far.
#[derive(Clone)]
pub(crate) struct Lines {
    /// Shared with the thread that reads the pipe.
    state: Arc<(Mutex<Written>, Condvar)>,
}

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    /// The pipe is closed: no more will come.
    closed: bool,
}

impl Running {
    pub(crate) fn start(place: &Place, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hiveops"))
            .args(args)
            .env_clear()
            // What a killed process leaves behind goes with the place.
            .env("TMPDIR", place.dir.path())
            .envs(env.iter().copied())
            .current_dir(place.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Lines::read(child.stdout.take().unwrap());
        let err = Lines::read(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    /// `hiveops dev` on a free port, and where it listens.
    pub(crate) fn dev(place: &Place, args: &[&str], env: &[(&str, &str)]) -> (Self, String) {
        let args = [&["dev", "--listen", "127.0.0.1:0"], args].concat();
        let node = Self::start(place, &args, env);
        let line = node.out.wait(|line| line.contains(" listens on "));
        let url = line.rsplit(' ').next().unwrap().to_owned();
        (node, url)
    }

    /// `hiveops node` on a free port, and where it listens; its log must be JSON.
    pub(crate) fn node(place: &Place, args: &[&str], env: &[(&str, &str)]) -> (Self, String) {
        let args = [&["node", "--listen", "127.0.0.1:0"], args].concat();
        let node = Self::start(place, &args, env);
        let line = node.err.wait(|line| line.contains("\"message\":\"listening\""));
        let line: Value = serde_json::from_str(&line).unwrap();
        let url = format!("http://{}", line["address"].as_str().unwrap());
        (node, url)
    }

    /// How much of the machine's memory it occupies.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        kib * 1_024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it as a power cut would, as far as a process can tell.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        // Both pipes are closed when it ends, which is what can be waited for with a deadline.
        self.out.wait_closed();
        self.err.wait_closed();
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self { state: Arc::default() };
        let state = Arc::clone(&lines.state);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { break };
                state.0.lock().unwrap().lines.push(line);
                state.1.notify_all();
            }
            state.0.lock().unwrap().closed = true;
            state.1.notify_all();
        });
        lines
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.state.0.lock().unwrap().lines.clone()
    }

    /// The first line, written already or to come, that satisfies the condition.
    pub(crate) fn wait(&self, holds: impl Fn(&str) -> bool) -> String {
        self.wait_all(|lines| lines.iter().find(|line| holds(line)).cloned())
    }

    /// Waits until all lines together give something.
    pub(crate) fn wait_all<T>(&self, find: impl Fn(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.0.lock().unwrap();
        loop {
            if let Some(found) = find(&state.lines) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!state.closed, "it ended without it: {:#?}", state.lines);
            assert!(!left.is_zero(), "it did not come within {PATIENCE:?}: {:#?}", state.lines);
            state = self.state.1.wait_timeout(state, left).unwrap().0;
        }
    }

    fn wait_closed(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.0.lock().unwrap();
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it did not end within {PATIENCE:?}: {:#?}", state.lines);
            state = self.state.1.wait_timeout(state, left).unwrap().0;
        }
    }
}
