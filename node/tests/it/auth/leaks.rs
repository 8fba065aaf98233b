//! Watches the log of this process for secrets: every line of every node that runs here, down to `trace`.

use std::io;
use std::sync::{Mutex, Once};

use tracing_subscriber::EnvFilter;

/// Shorter parts stand in a log by chance.
const PART_CHARS_MIN: usize = 16;

/// What may stand in no line.
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Lines that had some of it, and how many lines there were.
static LEAKS: Mutex<(Vec<String>, usize)> = Mutex::new((Vec::new(), 0));

struct Sink;

impl io::Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let has_secret = SECRETS.lock().unwrap().iter().any(|secret| text.contains(secret));
        let mut leaks = LEAKS.lock().unwrap();
        leaks.1 += 1;
        if has_secret {
            leaks.0.push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to watch, once for the process.
pub(super) fn watch() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        let filter = EnvFilter::new("debug,hiveops_node=trace,axum=trace,tower_http=trace");
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Sink);
        lines.try_init().expect("nobody else logs in this process");
    });
}

/// From now on neither it nor a long part of it may stand in the log.
pub(super) fn secret(text: &str) -> String {
    let mut secrets = SECRETS.lock().unwrap();
    // A header of a token is the same for all, and no secret.
    let parts = text.split('.').skip(1).filter(|part| part.len() >= PART_CHARS_MIN);
    secrets.extend(parts.chain([text].into_iter().filter(|text| text.len() >= 8)).map(str::to_owned));
    drop(secrets);
    text.to_owned()
}

/// Fails if anything has leaked up to now.
#[track_caller]
pub(super) fn check() {
    let (leaks, lines) = &*LEAKS.lock().unwrap();
    assert!(*lines > 0, "the log is not watched");
    assert!(leaks.is_empty(), "secrets in the log: {leaks:#?}");
}
