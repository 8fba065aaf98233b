//! Printing: results to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::{self, Write as _};

/// The command line can be parsed, but does not make sense. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints one line of a result. Unlike `println!`, a reader that went away is an error and not a panic.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints a text as it is.
pub(crate) fn text(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

/// Tells the person at the terminal something beside the result; when nobody listens, nothing is lost.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints JSON, indented for people.
pub(crate) fn json(value: &serde_json::Value) -> io::Result<()> {
    line(format_args!("{value:#}"))
}

/// A member of an answer as people read it: text without its quotes, and a word where there is none.
pub(crate) fn shown(value: Option<&serde_json::Value>) -> String {
    match value {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "unknown".to_owned(),
    }
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
