//! Every threshold of the contract: one table, from which the configuration, the `limits` endpoint, the
//! control plane and the documentation are made.

use serde::{Deserialize, Serialize};

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSpec {
    /// The name in `limits`, on the command line (with dashes) and at control.
    pub name: &'static str,
    /// The unit of the value.
    pub unit: &'static str,
    /// The value when nobody says otherwise.
    pub default: u64,
    /// The least value that makes sense.
    pub min: u64,
    /// The greatest value that makes sense.
    pub max: u64,
    /// What it bounds and what happens beyond it.
    pub doc: &'static str,
}

/// Why a set of limits cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLimit {
    /// There is no limit of that name.
    #[error("unknown limit `{name}`")]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// The value lies outside the table's bounds.
    #[error("{name} must be between {min} and {max} {unit}, not {value}")]
    OutOfRange {
        /// The limit.
        name: &'static str,
        /// The value that was given.
        value: u64,
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
        /// The unit of the three.
        unit: &'static str,
    },
    /// Two limits contradict each other.
    #[error("{name} ({value}) must not be below {other} ({other_value})")]
    Below {
        /// The limit that is too small.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The limit that it must reach.
        other: &'static str,
        /// That one's value.
        other_value: u64,
    },
}

/// Declares [`Limits`] and its table together, so that neither can lack a member of the other.
macro_rules! limits {
    ($($name:ident: $default:literal, $min:literal ..= $max:literal, $unit:literal, $doc:literal;)+) => {
        /// The thresholds in force. Each field's meaning is in [`Limits::TABLE`].
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits { $(#[doc = $doc] pub $name: u64,)+ }

        impl Limits {
            /// The table: a row for each field, in the order of the contract.
            pub const TABLE: &'static [LimitSpec] = &[$(LimitSpec {
                name: stringify!($name), unit: $unit, default: $default, min: $min, max: $max, doc: $doc,
            },)+];

            /// The value of the limit called `name`.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name { $(stringify!($name) => Some(self.$name),)+ _ => None }
            }

            /// Gives the limit called `name` a value within the table's bounds. [`Limits::check`] then
            /// says whether the whole fits together.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), InvalidLimit> {
                let spec = Self::spec(name).ok_or_else(|| InvalidLimit::Unknown { name: name.to_owned() })?;
                if !(spec.min..=spec.max).contains(&value) {
                    let LimitSpec { name, min, max, unit, .. } = *spec;
                    return Err(InvalidLimit::OutOfRange { name, value, min, max, unit });
                }
                match name { $(stringify!($name) => self.$name = value,)+ _ => {} }
                Ok(())
            }
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }
    };
}

limits! {
    rate_limit_tokens_per_second: 20, 1..=100_000, "messages/s",
        "Inbound messages a connection may send per second; what is over is dropped and told once per cooldown.";
    rate_limit_burst_capacity: 40, 1..=1_000_000, "messages",
        "Inbound messages a connection may send at once.";
    rate_limit_notify_cooldown_seconds: 5, 1..=3_600, "s",
        "Least time between two `rate_limited` errors to one connection.";
    rate_limit_abuse_seconds: 60, 1..=3_600, "s",
        "Consecutive seconds with drops after which the connection is closed with 1008.";
    max_inbound_message_bytes: 65_536, 128..=16_777_216, "bytes",
        "Largest message that is read; a larger one is dropped with `message_too_large`.";
    max_inbound_hard_bytes: 262_144, 128..=67_108_864, "bytes",
        "Largest frame or message a connection survives; beyond it is closed with 1009.";
    max_subscriptions_per_connection: 10, 1..=64, "subscriptions",
        "Subscriptions of one connection; those that fit, in sorted order, are joined.";
    idle_disconnect_seconds: 600, 1..=86_400, "s",
        "Time without a client message after which a connection is closed with 4408.";
    protocol_ping_seconds: 25, 1..=3_600, "s",
        "Time between two protocol pings to one connection.";
    protocol_pong_timeout_seconds: 10, 1..=3_600, "s",
        "Time within which a ping must be answered, else the connection is closed with 4408.";
    heartbeat_silence_seconds: 25, 1..=3_600, "s",
        "Silence on a connection after which a `heartbeat` frame shows the heads.";
    outbox_frames_max: 256, 8..=65_536, "frames",
        "Frames that may wait for one connection.";
    outbox_bytes_max: 1_048_576, 65_536..=268_435_456, "bytes",
        "Bytes that may wait for one connection.";
    backpressure_disconnect_threshold: 5, 1..=1_000, "failures",
        "Send failures in a row after which a connection is closed with 1013.";
    handshake_timeout_seconds: 5, 1..=120, "s",
        "Time within which a request's head must arrive and an upgrade complete.";
    max_connections_per_node: 100_000, 1..=10_000_000, "connections",
        "WebSocket connections of one node, and no more than its file limit less 256; beyond it 503.";
    max_connections_per_address: 0, 0..=10_000_000, "connections",
        "WebSocket connections of one client address on one node; 0 is no limit; beyond it 503.";
    handshake_rate_per_second: 0, 0..=1_000_000, "handshakes/s",
        "WebSocket handshakes a node accepts per second; 0 is no limit; beyond it 503.";
    max_connections_total: 0, 0..=100_000_000, "connections",
        "WebSocket connections of the whole cluster; 0 is no limit; beyond it closed with 1013.";
    max_connections_per_user: 0, 0..=1_000_000, "connections",
        "WebSocket connections of one user in the whole cluster; 0 is no limit; beyond it closed with 4403.";
    max_publication_bytes: 65_536, 128..=1_048_576, "bytes",
        "Largest `data` of a publication; beyond it 413.";
    auth_outage_grace_seconds: 3_600, 0..=86_400, "s",
        "How long a socket with an expired token is kept while the control plane cannot be asked.";
}

impl Limits {
    /// The table's row for `name`.
    pub fn spec(name: &str) -> Option<&'static LimitSpec> {
        Self::TABLE.iter().find(|spec| spec.name == name)
    }

    /// Checks each value against the table and the values against each other; all mistakes at once.
    pub fn check(&self) -> Result<(), Vec<InvalidLimit>> {
        let mut mistakes = Vec::new();
        for spec in Self::TABLE {
            let mut scratch = Self::default();
            if let Some(Err(mistake)) = self.get(spec.name).map(|value| scratch.set(spec.name, value)) {
                mistakes.push(mistake);
            }
        }
        let mut at_least = |name, value, other, other_value| {
            if value < other_value {
                mistakes.push(InvalidLimit::Below { name, value, other, other_value });
            }
        };
        at_least(
            "rate_limit_burst_capacity",
            self.rate_limit_burst_capacity,
            "rate_limit_tokens_per_second",
            self.rate_limit_tokens_per_second,
        );
        at_least(
            "max_inbound_hard_bytes",
            self.max_inbound_hard_bytes,
            "max_inbound_message_bytes",
            self.max_inbound_message_bytes,
        );
        at_least(
            "outbox_bytes_max",
            self.outbox_bytes_max,
            "max_publication_bytes",
            self.max_publication_bytes,
        );
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_their_own_check() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn every_row_can_be_read_and_written_by_name() {
        let mut limits = Limits::default();
        for spec in Limits::TABLE {
            assert_eq!(limits.get(spec.name), Some(spec.default), "{}", spec.name);
            limits.set(spec.name, spec.max).unwrap();
            assert_eq!(limits.get(spec.name), Some(spec.max), "{}", spec.name);
            assert!(limits.set(spec.name, spec.max + 1).is_err(), "{}", spec.name);
        }
        assert!(limits.set("nonsense", 1).is_err());
    }

    #[test]
    fn contradictions_are_named_together() {
        let limits = Limits {
            rate_limit_burst_capacity: 5,
            max_inbound_hard_bytes: 1_000,
            idle_disconnect_seconds: 0,
            ..Limits::default()
        };
        let mistakes = limits.check().unwrap_err();
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(
            mistakes.iter().any(|m| m.to_string().contains("must not be below rate_limit_tokens_per_second"))
        );
    }
}
