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

/// A member of an answer as people read it: text without its quotes, and a word where there is none. Strangers may
/// have written it (whoever publishes names what was refused), so it draws nothing at the terminal and begins no line.
pub(crate) fn shown(value: Option<&serde_json::Value>) -> String {
    match value {
        Some(serde_json::Value::String(text)) => plain(text),
        Some(other) => plain(&other.to_string()),
        None => "unknown".to_owned(),
    }
}

/// A text with a mark in the place of every character that commands a terminal, or turns the order of others round.
pub(crate) fn plain(text: &str) -> String {
    let is_command =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if is_command(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_strangers_wrote_commands_no_terminal_and_begins_no_line() {
        let wrote = json!("x\n  published   now\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{fc}");
        assert_eq!(
            shown(Some(&wrote)),
            "x\u{fffd}  published   now\u{fffd}[2J\u{fffd}31m\u{fffd}\u{fffd}\u{fc}"
        );
        assert_eq!(shown(Some(&json!({"a": "\u{9b}"}))), "{\"a\":\"\u{fffd}\"}");
        assert_eq!(
            (shown(Some(&json!("n1"))), shown(Some(&json!(1.5))), shown(None)),
            ("n1".to_owned(), "1.5".to_owned(), "unknown".to_owned())
        );
    }
}
