//! Log lines: one JSON object per line on standard error, or text for people.
//!
//! The binary calls [`init_log`] once. Lines go through a bounded queue to a thread that writes them, because a
//! standard error that nobody reads must not stop the node; what does not fit is dropped and counted.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use hiveops_proto::NodeId;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::LogFormat;
use crate::time::Clock;

/// What the bus's libraries say is told by the links in their own words; a filter that names them wins.
const LIBRARIES: &str = "async_nats=off,redis=off";

/// Lines that may wait: a second of a busy log, about a megabyte.
const QUEUE_LINES_MAX: usize = 4_096;
/// How long the end of the process waits for lines that are still in the queue.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not one.
    #[error("`{filter}` is not a log filter (HIVEOPS_LOG)")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else has set up logging in this process.
    #[error("logging is set up already")]
    Already(#[source] tracing_subscriber::util::TryInitError),
    /// The writing thread cannot start.
    #[error("the thread that writes the log cannot start")]
    Thread(#[source] io::Error),
}

/// Sets up logging for the process. Keep the guard until the end: it writes what still waits.
pub fn init_log(filter: &str, format: LogFormat, node_id: Option<&NodeId>) -> Result<LogGuard, LogError> {
    let parsed = EnvFilter::builder().parse(format!("{LIBRARIES},{filter}"));
    let filter = parsed.map_err(|source| LogError::Filter { filter: filter.to_owned(), source })?;
    let (sender, receiver) = sync_channel(QUEUE_LINES_MAX);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&receiver, &mut io::stderr()))
        .map_err(LogError::Thread)?;
    let lines = Arc::new(Lines { sender: sender.clone() });
    let layer = tracing_subscriber::fmt::layer().with_writer(lines);
    let layer = match format {
        LogFormat::Json => {
            layer.event_format(JsonLine { clock: Clock::start(), node_id: node_id.cloned() }).boxed()
        }
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().map_err(LogError::Already)?;
    Ok(LogGuard { sender })
}

/// Lines that were not written, because the queue was full or standard error is gone.
pub(crate) fn log_lines_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// There is one log per process, so there is one count.
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Writes what is still in the queue when it is dropped.
#[derive(Debug)]
#[must_use = "lines that still wait are lost without the guard"]
pub struct LogGuard {
    sender: SyncSender<Item>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        // A full queue means that nobody reads standard error: nothing more can be done for those lines.
        if self.sender.try_send(Item::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_WAIT);
        }
    }
}

/// What the subscriber writes to; one call is one line.
struct Lines {
    sender: SyncSender<Item>,
}

impl io::Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Item::Line(line.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of the writing thread; ends with the last sender.
fn write_lines(receiver: &Receiver<Item>, out: &mut impl io::Write) {
    while let Ok(item) = receiver.recv() {
        match item {
            Item::Line(line) => {
                if out.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Item::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

/// Formats an event as CONTRACT section 11 wants it, its fields beside the message.
struct JsonLine {
    clock: Clock,
    node_id: Option<NodeId>,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(&self.line(event))
    }
}

impl JsonLine {
    fn line(&self, event: &Event<'_>) -> String {
        let metadata = event.metadata();
        let mut line = Members(String::from("{"));
        line.add("timestamp", &self.clock.timestamp().to_string());
        line.add("level", &metadata.level().as_str().to_ascii_lowercase());
        event.record(&mut line);
        // Many events name the node themselves; a key stands once.
        let named = metadata.fields().field("node_id").is_some();
        if let Some(node_id) = self.node_id.as_ref().filter(|_| !named) {
            line.add("node_id", node_id.as_str());
        }
        line.add("target", metadata.target());
        line.0.push_str("}\n");
        line.0
    }
}

/// Members of a JSON object, in the order in which they come.
struct Members(String);

impl Members {
    fn add(&mut self, name: &str, value: &(impl serde::Serialize + ?Sized)) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Text and numbers can always be written as JSON.
        let json = |value: serde_json::Result<String>| value.unwrap_or_else(|_| "null".to_owned());
        self.0.push_str(&json(serde_json::to_string(name.strip_prefix("r#").unwrap_or(name))));
        self.0.push(':');
        self.0.push_str(&json(serde_json::to_string(value)));
    }
}

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde_json::Value;

    use super::*;

    /// The lines that `emit` logs.
    fn logged(emit: impl FnOnce()) -> Vec<String> {
        let (sender, receiver) = sync_channel(8);
        let format = JsonLine { clock: Clock::start(), node_id: Some(NodeId::new("n1").unwrap()) };
        let layer =
            tracing_subscriber::fmt::layer().with_writer(Arc::new(Lines { sender })).event_format(format);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), emit);
        let mut out = Vec::new();
        write_lines(&receiver, &mut out);
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_one_flat_object_that_begins_with_time_level_and_message() {
        let lines = logged(|| {
            tracing::warn!(r#type = "task_update", subscription = %"tasks", size = 7, "send \"failed\"\n");
        });
        assert!(lines[0].starts_with("{\"timestamp\":\"2"), "{lines:?}");
        assert!(lines[0].contains(r#"Z","level":"warn","message":"send"#), "{lines:?}");
        let line: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(
            (lines.len(), &line["level"], &line["message"]),
            (1, &"warn".into(), &"send \"failed\"\n".into())
        );
        assert_eq!((&line["type"], &line["subscription"]), (&"task_update".into(), &"tasks".into()));
        assert_eq!((&line["size"], &line["node_id"]), (&7.into(), &"n1".into()));
    }

    #[test]
    fn an_event_that_names_the_node_itself_has_the_key_once() {
        let lines = logged(|| tracing::warn!(node_id = %"n1", "ready"));
        assert_eq!(lines[0].matches("\"node_id\"").count(), 1, "{lines:?}");
    }

    #[test]
    fn a_full_queue_drops_and_counts_instead_of_waiting() {
        let (sender, _receiver) = sync_channel(1);
        let lines = Lines { sender };
        let before = log_lines_dropped();
        for _ in 0..3 {
            assert_eq!((&lines).write(b"line\n").unwrap(), 5);
        }
        assert!(log_lines_dropped() >= before + 2);
    }

    #[test]
    fn the_guard_waits_until_the_queue_is_written() {
        let (sender, receiver) = sync_channel(8);
        let writer = std::thread::spawn(move || {
            let mut out = Vec::new();
            write_lines(&receiver, &mut out);
            out
        });
        (&Lines { sender: sender.clone() }).write_all(b"last words\n").unwrap();
        drop(LogGuard { sender });
        assert_eq!(writer.join().unwrap(), b"last words\n");
    }
}
