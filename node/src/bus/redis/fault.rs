//! Why a connection is given up, and what the errors of single calls mean for it.

use std::time::Duration;

use hiveops_proto::id::InvalidId;
use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::record::Unreadable;
use crate::config::Address;

/// Why a link begins anew. None of them is final.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("cannot reach {address}")]
    Reach {
        address: Address,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} refuses the connection")]
    Open {
        address: Address,
        #[source]
        source: RedisError,
    },
    #[error("no answer within {within:?}")]
    Silent { within: Duration },
    #[error("{command} failed")]
    Command {
        command: &'static str,
        #[source]
        source: RedisError,
    },
    #[error("{command} answered something else than it does in Redis 7")]
    Answer { command: &'static str },
    #[error("no server says where the log is")]
    Nowhere,
    #[error("the server is not the master")]
    NotMaster,
    #[error("the server has version {version}, 7.0 or later is needed")]
    Version { version: String },
    #[error("the connection was closed")]
    Closed,
    #[error("the slot of the log has moved")]
    Moved,
    #[error("more came than could be taken")]
    Lagged,
    #[error("another node has the lease")]
    Lease,
    #[error("publication {expected} did not come, but {got}")]
    Gap { expected: u64, got: u64 },
    #[error("the log has another epoch")]
    Epoch,
    #[error("the log changes faster than it is read")]
    Outrun,
    #[error("something that is no publication is in the log")]
    Unreadable(#[from] Unreadable),
    #[error("something that is no epoch is in the log")]
    Id(#[from] InvalidId),
    #[error("a call was not answered: {reason}")]
    Call { reason: String },
}

/// Why a single call has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Not in time. It may still be carried out, until its deadline.
    TimedOut,
    /// The server says no, and would say so again.
    Refused(String),
    /// This connection is of no use any more.
    Broken(String),
}

impl Trouble {
    /// What the error means. Whatever is not known to be a plain refusal ends the connection: a new one
    /// costs little, and a wrong one delivers answers to the wrong calls.
    pub(super) fn of(error: &RedisError) -> Self {
        use ServerErrorKind::{ExecAbort, NoPerm, ResponseError};
        let refusal = match error.kind() {
            // An answer with a code that the library does not know, such as OOM or MISCONF.
            ErrorKind::Extension => true,
            ErrorKind::Server(kind) => matches!(kind, ResponseError | ExecAbort | NoPerm),
            _ => false,
        };
        if refusal { Self::Refused(error.to_string()) } else { Self::Broken(error.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn a_refusal_keeps_the_connection_and_a_wrong_server_does_not() {
        for line in
            ["OOM command not allowed", "MISCONF no disk", "NOREPLICAS x", "ERR something", "NOPERM x"]
        {
            assert!(matches!(Trouble::of(&error(line)), Trouble::Refused(_)), "{line}");
        }
        let broken = [
            "READONLY x",
            "MOVED 1 a:1",
            "ASK 1 a:1",
            "TRYAGAIN x",
            "CLUSTERDOWN x",
            "LOADING x",
            "MASTERDOWN x",
        ];
        for line in broken {
            assert!(matches!(Trouble::of(&error(line)), Trouble::Broken(_)), "{line}");
        }
        let lost = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(matches!(Trouble::of(&lost), Trouble::Broken(_)));
    }
}
