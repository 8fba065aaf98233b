//! A publication as a call of the script that stores it, and what its answers mean. Pure.

use hiveops_proto::Epoch;
use redis::{Cmd, FromRedisValue, Value};

use super::names::Names;
use super::record::{self, Kind};
use super::script;
use crate::bus::rules::{self, Fingerprint};
use crate::bus::{
    Ack, CALL_TIMEOUT, DUPLICATE_WINDOW, Expect, Publish, PublishError, STATE_BYTES_MAX, STATE_KEYS_MAX,
};

/// One publication, to be sent as often as it takes: the server knows it by its `name` and stores it once.
pub(super) struct Call {
    name: String,
    repeat_key: String,
    data: String,
    window_ms: u128,
    kind: Kind,
    field: String,
    size: usize,
    expect: String,
    record: String,
}

/// How and where a call is sent this time.
pub(super) struct Sending<'a> {
    pub(super) names: &'a Names,
    pub(super) run: &'a str,
    /// In the server's time; after it the script does nothing.
    pub(super) deadline_ms: i64,
    /// For a log that there is not yet.
    pub(super) epoch: &'a Epoch,
    pub(super) say: &'static str,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Stored(Ack),
    Refused(PublishError),
    /// It was too late by the server's clock, and is not stored.
    Expired,
    /// The server must first be found to have the whole log; it is not stored.
    Unsettled,
}

impl Call {
    /// `name` is of this call alone, in the whole cluster.
    pub(super) fn new(names: &Names, publish: &Publish, name: String) -> Result<Self, serde_json::Error> {
        let fingerprints = rules::fingerprints(publish);
        let (repeat_key, data, window) = match fingerprints {
            Some((repeat, data)) => (names.repeat(&hex(&repeat)), hex(&data), DUPLICATE_WINDOW),
            // So that it can be sent again all the same.
            None => (names.repeat(&name), "-".to_owned(), CALL_TIMEOUT * 2),
        };
        let expect = match publish.expect {
            Expect::Any => "any".to_owned(),
            Expect::Absent => "0".to_owned(),
            Expect::Seq(seq) => seq.to_string(),
        };
        Ok(Self {
            repeat_key,
            data,
            window_ms: window.as_millis(),
            kind: Kind::of(publish),
            field: record::field(publish),
            size: publish.envelope.data.as_str().len(),
            expect,
            record: record::write(publish)?,
            name,
        })
    }

    pub(super) fn command(&self, sending: &Sending<'_>) -> Cmd {
        let names = sending.names;
        let mut command = redis::cmd("EVALSHA");
        command.arg(script::PUBLISH.hash()).arg(6);
        command.arg(&names.meta).arg(&names.state).arg(&names.log);
        command.arg(&names.occurrences).arg(&names.removals).arg(&self.repeat_key);
        command.arg(&self.name).arg(sending.run).arg(sending.deadline_ms).arg(sending.epoch.as_str());
        command.arg(sending.say).arg(&names.live);
        command.arg(&self.data).arg(self.window_ms.to_string());
        command.arg(self.kind.as_str()).arg(&self.field).arg(self.size).arg(&self.expect).arg(&self.record);
        command.arg(STATE_KEYS_MAX).arg(STATE_BYTES_MAX);
        command
    }

    /// `None` when it is no answer to this call.
    pub(super) fn read(&self, value: Value) -> Option<Answer> {
        let parts = Vec::<String>::from_redis_value(value).ok()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let stored = |epoch: &str, seq: &str, duplicate| {
            Some(Answer::Stored(Ack { epoch: Epoch::new(epoch).ok()?, seq: seq.parse().ok()?, duplicate }))
        };
        let [name, answer, rest @ ..] = &parts[..] else { return None };
        if *name != self.name {
            return None;
        }
        match (*answer, rest) {
            ("stored", [epoch, seq]) => stored(epoch, seq, false),
            ("repeat", [epoch, seq]) => stored(epoch, seq, true),
            ("conflict", [seq]) => {
                Some(Answer::Refused(PublishError::IdempotencyConflict { seq: seq.parse().ok()? }))
            }
            ("changed", [actual]) => {
                Some(Answer::Refused(PublishError::WrongExpected { actual: actual.parse().ok()? }))
            }
            ("full", [keys, bytes]) => {
                let (keys, bytes) = (keys.parse().ok()?, bytes.parse().ok()?);
                Some(Answer::Refused(PublishError::StateFull { keys, bytes }))
            }
            ("expired", []) => Some(Answer::Expired),
            ("unsettled", []) => Some(Answer::Unsettled),
            _ => None,
        }
    }
}

fn hex(fingerprint: &Fingerprint) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{names, update, with_key};

    fn call(publish: &Publish) -> Call {
        Call::new(&Names::of_log("x", &names()[0], 0), publish, "n-1".to_owned()).unwrap()
    }

    fn read(parts: &[&str]) -> Option<Answer> {
        let parts = parts.iter().map(|part| Value::BulkString(part.as_bytes().to_vec())).collect();
        call(&update(0, "a", 1)).read(Value::Array(parts))
    }

    #[test]
    fn an_answer_to_another_call_is_none() {
        let ack = Ack { epoch: Epoch::new("e").unwrap(), seq: 7, duplicate: true };
        assert_eq!(read(&["n-1", "repeat", "e", "7"]), Some(Answer::Stored(ack)));
        assert_eq!(read(&["n-2", "repeat", "e", "7"]), None);
        let full = PublishError::StateFull { keys: 1, bytes: 2 };
        assert_eq!(read(&["n-1", "full", "1", "2"]), Some(Answer::Refused(full)));
        for bad in
            [&["n-1"][..], &["n-1", "stored", "e"], &["n-1", "stored", "e", "x"], &["n-1", "expired", "1"]]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert_eq!(call(&update(0, "a", 1)).read(Value::Okay), None);
    }

    #[test]
    fn what_has_no_repeat_is_known_by_its_call() {
        let (never, keyed) = (call(&update(0, "a", 1)), call(&with_key("k", update(0, "a", 1))));
        assert_eq!(never.repeat_key, "hiveops:{x:agents}:rep:n-1");
        assert_eq!((never.window_ms, keyed.window_ms), (10_000, 120_000));
        assert_ne!(never.repeat_key, keyed.repeat_key);
    }
}
