//! Reads what a stream holds from a sequence on, and finds from where on the log is whole.

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;
use hiveops_proto::{Epoch, SubscriptionName, Timestamp};

use super::LinkError;
use super::entry::{self, BadEntry, Entry, Raw};
use super::names::Names;
use crate::catalog::SubId;
use crate::log::KEPT_MS;

/// Messages asked for at a time.
const BATCH: usize = 500;

/// Clocks of nodes and servers may differ by this much: what is nearly old enough to have expired is
/// treated as if things had expired beside it.
const CLOCKS_APART_MS: u64 = 60_000;

/// Which log is read.
pub(super) struct Source<'a> {
    pub(super) names: &'a Names,
    pub(super) sub: SubId,
    pub(super) name: &'a SubscriptionName,
    pub(super) epoch: &'a Epoch,
}

/// What a stream held.
#[derive(Default)]
pub(super) struct Read {
    pub(super) entries: Vec<Entry>,
    /// Sequence and time of every message, publications or not.
    pub(super) present: Vec<(u64, Timestamp)>,
    /// Messages that are no publications.
    pub(super) bad: Vec<(u64, BadEntry)>,
}

/// Everything from `first` on that is there now.
pub(super) async fn read(stream: &Stream, source: &Source<'_>, first: u64) -> Result<Read, LinkError> {
    let config = pull::Config {
        deliver_policy: match first {
            0 | 1 => DeliverPolicy::All,
            start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
        },
        ack_policy: AckPolicy::None,
        memory_storage: true,
        // A node that dies while it reads leaves nothing behind for long.
        inactive_threshold: std::time::Duration::from_secs(30),
        ..pull::Config::default()
    };
    let failed = |error: async_nats::Error| LinkError::Broker(format!("a log cannot be read: {error}"));
    let consumer = stream.create_consumer(config).await.map_err(|error| failed(error.into()))?;
    let mut read = Read::default();
    let mut pending = consumer.cached_info().num_pending;
    while pending > 0 {
        let batch = consumer.fetch().max_messages(BATCH).messages().await;
        let mut batch = batch.map_err(|error| failed(error.into()))?;
        let mut empty = true;
        while let Some(message) = batch.next().await {
            let message = message.map_err(failed)?;
            let info = message.info().map_err(failed)?;
            empty = false;
            pending = info.pending;
            let number = read.present.len() as u64 + 1;
            if info.consumer_sequence != number {
                return Err(LinkError::Broker("a part of a log was lost on its way".to_owned()));
            }
            let at = millis(info.published.unix_timestamp_nanos());
            let raw = Raw {
                subject: message.subject.as_str(),
                headers: message.headers.as_ref(),
                payload: &message.payload,
                seq: info.stream_sequence,
                at,
            };
            read.present.push((raw.seq, at));
            match entry::decode(source.names, source.sub, source.name, source.epoch, &raw) {
                Ok(entry) => read.entries.push(entry),
                Err(bad) => read.bad.push((raw.seq, bad)),
            }
        }
        if empty {
            // What was pending has expired meanwhile.
            break;
        }
    }
    // The server forgets it by itself as well.
    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
    Ok(read)
}

/// The least position from which everything that matters is there.
///
/// What is missing was overwritten, which nobody misses, or it has expired, and that only what is old
/// enough has. A hole before the first message that is too young for that may be either.
pub(super) fn floor(present: &[(u64, Timestamp)], last_seq: u64, created: Timestamp, now: Timestamp) -> u64 {
    let may_have_expired = |at: Timestamp| now.millis_since(at) + CLOCKS_APART_MS >= KEPT_MS;
    if !may_have_expired(created) {
        return 0;
    }
    let young = present.iter().position(|(_, at)| !may_have_expired(*at));
    let until = young.map_or(last_seq + 1, |index| present[index].0);
    let old = &present[..young.unwrap_or(present.len())];
    let mut floor = 0;
    let mut next = 1;
    for seq in old.iter().map(|(seq, _)| *seq).chain([until]) {
        if seq > next {
            floor = seq - 1;
        }
        next = seq + 1;
    }
    floor
}

pub(super) fn millis(nanos: i128) -> Timestamp {
    Timestamp::from_millis(i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 10 * KEPT_MS;

    fn found(present: &[(u64, u64)], last_seq: u64, created: u64) -> u64 {
        let at = |ms: u64| Timestamp::from_millis(i64::try_from(ms).unwrap());
        let present: Vec<_> = present.iter().map(|(seq, ms)| (*seq, at(*ms))).collect();
        floor(&present, last_seq, at(created), at(NOW))
    }

    #[test]
    fn in_a_young_log_every_hole_was_overwritten() {
        assert_eq!(found(&[(5, NOW), (9, NOW)], 9, NOW - 1_000), 0);
        assert_eq!(found(&[], 9, NOW - KEPT_MS / 2), 0);
    }

    #[test]
    fn in_an_old_log_a_hole_before_what_is_young_may_have_expired() {
        let (old, young) = (0, NOW - 1_000);
        assert_eq!(found(&[(1, old), (2, old), (3, young), (7, young)], 7, 0), 0, "no hole among the old");
        assert_eq!(found(&[(1, old), (4, old), (5, young)], 5, 0), 3);
        assert_eq!(found(&[(1, old), (5, young), (8, young)], 8, 0), 4, "the hole ends where it is young");
        assert_eq!(found(&[(5, young)], 5, 0), 4);
        assert_eq!(found(&[(1, old)], 9, 0), 9, "what was last is gone");
        assert_eq!(found(&[], 9, 0), 9);
        assert_eq!(found(&[], 0, 0), 0);
    }

    #[test]
    fn clocks_that_differ_make_the_log_whole_later_and_never_sooner() {
        let nearly = NOW - KEPT_MS + CLOCKS_APART_MS;
        assert_eq!(found(&[(5, nearly)], 5, 0), 4);
        assert_eq!(found(&[(5, nearly), (9, NOW)], 9, 0), 8, "nearly old counts as old");
    }
}
