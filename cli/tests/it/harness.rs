//! Runs the binary in an empty directory with an environment of its own.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A directory to run in.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

/// What a run left behind.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With a configuration file in it.
    pub(crate) fn with_toml(text: &str) -> Self {
        let place = Self::new();
        std::fs::write(place.dir.path().join("hiveops.toml"), text).unwrap();
        place
    }

    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        self.run_with(args, env, "")
    }

    /// With something on standard input.
    pub(crate) fn run_with(&self, args: &[&str], env: &[(&str, &str)], input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hiveops"))
            .args(args)
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Who does not read it has ended, or will; dropping the pipe is the end of the input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let Output { status, stdout, stderr } = output;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Runs in an empty directory without an environment.
pub(crate) fn hiveops(args: &[&str]) -> Ran {
    Place::new().run(args, &[])
}
