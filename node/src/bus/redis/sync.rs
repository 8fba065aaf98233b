//! Reads what is left of a log, and finds whether it goes on where the node knew it.

use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::Epoch;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};

use super::continuity::{Found, Known};
use super::fault::Fault;
use super::names::Names;
use super::record;
use super::script;
use super::server::{OPEN_TIMEOUT, ask};
use crate::bus::Stored;
use crate::bus::counts::{Counts, count};
use crate::catalog::SubId;
use crate::telemetry::Chain;

/// For everything that is left of a log, which may be a hundred megabytes.
const SYNC_TIMEOUT: Duration = Duration::from_secs(15);

/// A log as the server has it.
pub(super) struct Synced {
    pub(super) found: Found,
    pub(super) run: String,
    pub(super) left: Left,
}

/// What of it came with the answer.
pub(super) enum Left {
    /// What follows the known head: seqs and records.
    Rest(Vec<(u64, String)>),
    /// Everything.
    All { entries: Vec<(u64, String)>, last: Option<(u64, String)> },
    /// Nothing: the rest was asked for, and is not there any more.
    Nothing,
}

/// Asks for what follows `known`.
pub(super) async fn sync(
    connection: &MultiplexedConnection,
    names: &Names,
    known: Option<&Known>,
    this_run: (&str, bool),
    fresh: &Epoch,
    wanted: Wanted<'_>,
) -> Result<Synced, Fault> {
    let (run, promoted) = this_run;
    let mut command = redis::cmd("EVALSHA");
    command.arg(script::SYNC.hash()).arg(5).arg(&names.meta).arg(&names.state).arg(&names.log);
    command.arg(&names.occurrences).arg(&names.removals);
    command.arg(known.map_or("-", |known| known.epoch.as_str())).arg(known.map_or(0, |known| known.head));
    command.arg(fresh.as_str()).arg(run);
    if let Wanted::RestFromMark { say, mark } = wanted {
        command.arg(say).arg(&names.live).arg(mark);
    }
    let answer: Vec<Value> = ask(connection, "sync", &command, SYNC_TIMEOUT).await?;
    parse(answer, run, promoted)?.ok_or(Fault::Answer { command: "sync" })
}

/// What is wanted of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// The rest, or else everything.
    All,
    /// The rest, and a mark among what is said on the channel: what comes after it is not in the rest.
    RestFromMark { say: &'a str, mark: &'a str },
}

/// Says that the log goes on at this server, in `epoch`; false when it is not as it was found any more.
pub(super) async fn settle(
    connection: &MultiplexedConnection,
    names: &Names,
    seen: (&Epoch, &str),
    run: &str,
    epoch: &Epoch,
    say: &str,
) -> Result<bool, Fault> {
    let (epoch_seen, run_seen) = seen;
    let mut command = redis::cmd("EVALSHA");
    command.arg(script::SETTLE.hash()).arg(5).arg(&names.meta).arg(&names.state).arg(&names.log);
    command.arg(&names.occurrences).arg(&names.removals);
    command.arg(epoch_seen.as_str()).arg(run_seen).arg(run).arg(epoch.as_str()).arg(say).arg(&names.live);
    ask(connection, "settle", &command, OPEN_TIMEOUT).await
}

fn parse(answer: Vec<Value>, run: &str, promoted: bool) -> Result<Option<Synced>, Fault> {
    let mut parts = answer.into_iter();
    let head = parts.by_ref().take(6).map(String::from_redis_value).collect::<Result<Vec<_>, _>>();
    let Ok(head) = head.map(<[String; 6]>::try_from) else { return Ok(None) };
    let Ok([epoch, seq, floor, writer, at_known, kind]) = head else { return Ok(None) };
    let (Ok(seq), Ok(floor)) = (seq.parse(), floor.parse()) else { return Ok(None) };
    let left = match (kind.as_str(), parts.len()) {
        ("rest", 1) => parts.next().and_then(entries).map(Left::Rest),
        ("all", 4) => all(parts),
        ("far", 0) => Some(Left::Nothing),
        _ => None,
    };
    let Some(left) = left else { return Ok(None) };
    let found = Found {
        epoch: Epoch::new(&epoch)?,
        head: seq,
        floor,
        run: writer.clone(),
        written_here: writer == run,
        promoted,
        at_known: (!at_known.is_empty()).then_some(at_known),
        has_rest: matches!(left, Left::Rest(_)),
    };
    Ok(Some(Synced { found, run: writer, left }))
}

fn all(mut parts: impl Iterator<Item = Value>) -> Option<Left> {
    let values = Vec::<String>::from_redis_value(parts.next()?).ok()?;
    let values = values.into_iter().map(|value| {
        let mut fields = value.splitn(3, ' ');
        Some((fields.next()?.parse().ok()?, fields.nth(1)?.to_owned()))
    });
    let mut all: Vec<(u64, String)> = values.collect::<Option<_>>()?;
    all.extend(entries(parts.next()?)?);
    all.extend(entries(parts.next()?)?);
    Some(Left::All { entries: all, last: entries(parts.next()?)?.pop() })
}

/// Entries of a stream as `XRANGE` gives them: the seq is what comes first in `<seq>-0`, and last in
/// `<ms>-<seq>`, which no 0 is.
fn entries(value: Value) -> Option<Vec<(u64, String)>> {
    let Value::Array(entries) = value else { return None };
    let entries = entries.into_iter().map(|entry| {
        let (id, [_, record]) = <(String, [String; 2])>::from_redis_value(entry).ok()?;
        let (first, second) = id.split_once('-')?;
        let seq = if second == "0" { first } else { second };
        Some((seq.parse().ok()?, record))
    });
    entries.collect()
}

/// The publications among what is left. What cannot be read, or has a place beyond the head, is left out: a node that stood still because of
/// one of them would help nobody.
pub(super) fn readable(
    sub: SubId,
    (epoch, head): (&Epoch, u64),
    left: &[(u64, String)],
    counts: &Counts,
) -> Vec<Arc<Stored>> {
    let (in_log, beyond): (Vec<_>, Vec<_>) = left.iter().partition(|(seq, _)| *seq <= head);
    for _ in beyond {
        count(&counts.bad_entries);
    }
    let read = in_log.into_iter().filter_map(|(seq, text)| match record::read(sub, epoch, *seq, text) {
        Ok(stored) => Some(stored),
        Err(error) => {
            count(&counts.bad_entries);
            tracing::error!(seq, error = %Chain(&error), "publication cannot be read and is left out");
            None
        }
    });
    record::in_order(read.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(id: &str, record: &str) -> Value {
        Value::Array(vec![text(id), Value::Array(vec![text("r"), text(record)])])
    }

    fn answer(kind: &str, more: Vec<Value>) -> Option<Synced> {
        let head = ["00ff", "12", "3", "run-1", "", kind].map(text);
        parse(head.into_iter().chain(more).collect(), "run-1", false).unwrap()
    }

    #[test]
    fn both_forms_of_what_is_left_are_read() {
        let synced = answer("rest", vec![Value::Array(vec![entry("12-0", "oX")])]).unwrap();
        assert!(matches!(synced.left, Left::Rest(rest) if rest == [(12, "oX".to_owned())]));
        assert!(synced.found.written_here && synced.found.has_rest && synced.found.at_known.is_none());
        let lists = vec![
            Value::Array(vec![text("9 2 va b\n{}")]),
            Value::Array(vec![entry("170000-12", "o\n{}")]),
            Value::Array(Vec::new()),
            Value::Array(vec![entry("12-0", "o\n{}")]),
        ];
        let Left::All { entries, last } = answer("all", lists).unwrap().left else { panic!("not all") };
        assert_eq!(entries, [(9, "va b\n{}".to_owned()), (12, "o\n{}".to_owned())]);
        assert_eq!(last.unwrap().0, 12);
    }

    #[test]
    fn another_answer_is_none() {
        assert!(answer("rest", Vec::new()).is_none() && answer("x", Vec::new()).is_none());
        assert!(answer("all", vec![Value::Nil; 4]).is_none());
        assert!(answer("far", Vec::new()).is_some());
    }
}
