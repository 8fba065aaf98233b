//! The binary, the floor and addresses for the tests.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// The binary under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_hiveops-loadtest");

/// What a run printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) errors: String,
}

impl Output {
    /// The JSON line, which is the last one.
    pub(crate) fn report(&self) -> serde_json::Value {
        let line = self.text.lines().last().unwrap();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line} is not JSON: {error}"))
    }
}

/// Runs the binary to its end; its own deadlines bound the wait.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        text: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A floor of its own for one test, ended with it.
pub(crate) struct Floor {
    child: Child,
    address: String,
}

impl Floor {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["floor", "--listen", "127.0.0.1:0", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("floor listening on ").unwrap().to_owned();
        Self { child, address }
    }

    pub(crate) fn socket_url(&self) -> String {
        format!("ws://{}/api/dashboard/ws/dashboard", self.address)
    }

    pub(crate) fn http_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // Closing its input is how it is told; a floor that does not hear that hangs the test, visibly.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// An address that nobody listens on, and nobody else gets as long as the socket is held.
pub(crate) fn free_address() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}
