//! Reasons for which something that operators see is dropped: closed sets, which are labels of metrics.

/// Why a span did not reach a receiver of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanDropped {
    /// Too many were waiting already.
    QueueFull,
    /// The receiver could not be reached, or refused it.
    ExportFailed,
    /// The receiver did not answer in time.
    Timeout,
    /// The node stopped first.
    Shutdown,
}

impl SpanDropped {
    pub(crate) const ALL: [Self; 4] = [Self::QueueFull, Self::ExportFailed, Self::Timeout, Self::Shutdown];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::ExportFailed => "export_failed",
            Self::Timeout => "timeout",
            Self::Shutdown => "shutdown",
        }
    }
}
