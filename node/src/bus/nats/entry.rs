//! One message of a log, as NATS keeps it: the envelope as payload, what the server must know as headers.

use std::sync::Arc;

use async_nats::HeaderMap;
use hiveops_proto::{Envelope, Epoch, Timestamp};

use super::names::Names;
use crate::bus::mirror::Seen;
use crate::bus::rules::{self, Fingerprint};
use crate::bus::{Publish, Stored};
use crate::catalog::SubId;
use crate::log::{KEPT_MS, ValueKey};

const MESSAGE_ID: &str = "Nats-Msg-Id";
const TTL: &str = "Nats-TTL";
const ROLLUP: &str = "Nats-Rollup";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const SUBJECT: &str = "Nats-Subject";
const SEQUENCE: &str = "Nats-Sequence";
const TIME: &str = "Nats-Time-Stamp";
/// Marks the removal of a key.
const REMOVES: &str = "Hiveops-Removes";
/// The fingerprint of type and data, by which a repeat is told from a conflict.
const DATA: &str = "Hiveops-Data";
const CORRELATION_ID: &str = "X-Correlation-ID";
const TRACEPARENT: &str = "traceparent";

/// Bytes of a message at most that a node takes for one of a log: the largest publication and its envelope.
pub(super) const BYTES_MAX: usize = 2 * 1024 * 1024;

/// A message on its way to the server.
pub(super) struct Outgoing {
    pub(super) subject: String,
    pub(super) headers: HeaderMap,
    pub(super) payload: Vec<u8>,
}

/// A message of a log, with the sequence and the time that the server gave it.
pub(super) struct Raw<'a> {
    pub(super) subject: &'a str,
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) payload: &'a [u8],
    pub(super) seq: u64,
    pub(super) at: Timestamp,
}

/// A message that is a publication.
pub(super) struct Entry {
    pub(super) stored: Arc<Stored>,
    pub(super) repeat: Option<(Fingerprint, Seen)>,
}

/// Why a message of a log is no publication. Somebody else wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadEntry {
    #[error("too_large")]
    TooLarge,
    #[error("subject")]
    Subject,
    #[error("envelope")]
    Envelope,
}

/// Writes a publication. `latest` is the last message of its key, which must still be that.
pub(super) fn encode(
    names: &Names,
    publish: &Publish,
    latest: u64,
    unique: &str,
) -> Result<Outgoing, serde_json::Error> {
    let envelope = &publish.envelope;
    let mut headers = HeaderMap::new();
    headers.insert(CORRELATION_ID, envelope.correlation_id.as_str());
    if let Some(traceparent) = &envelope.traceparent {
        headers.insert(TRACEPARENT, traceparent.as_str());
    }
    if let Some((name, data)) = rules::fingerprints(publish) {
        headers.insert(MESSAGE_ID, hex(name).as_str());
        headers.insert(DATA, hex(data).as_str());
    }
    let subject = match &publish.key {
        Some(key) => {
            headers.insert(EXPECTED, latest.to_string().as_str());
            names.value(&envelope.subscription, key)
        }
        None => names.occurrence(&envelope.subscription, &envelope.message_type, unique),
    };
    if publish.key.is_none() || publish.removes {
        headers.insert(TTL, format!("{}s", KEPT_MS / 1_000).as_str());
    }
    if publish.removes {
        headers.insert(REMOVES, "1");
        // Whatever the key had before goes with it: it must not come back when the removal expires.
        headers.insert(ROLLUP, "sub");
    }
    Ok(Outgoing { subject, headers, payload: serde_json::to_vec(envelope)? })
}

/// Reads a message of the log of `sub`.
pub(super) fn decode(
    names: &Names,
    sub: SubId,
    name: &hiveops_proto::SubscriptionName,
    epoch: &Epoch,
    raw: &Raw<'_>,
) -> Result<Entry, BadEntry> {
    if raw.payload.len() > BYTES_MAX {
        return Err(BadEntry::TooLarge);
    }
    let place = names.place(name, raw.subject).ok_or(BadEntry::Subject)?;
    let envelope: Envelope = serde_json::from_slice(raw.payload).map_err(|_| BadEntry::Envelope)?;
    if envelope.message_type != place.message_type || envelope.subscription != *name {
        return Err(BadEntry::Envelope);
    }
    let header = |name: &str| raw.headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
    let removes = header(REMOVES).is_some() && place.key.is_some();
    let repeat = header(MESSAGE_ID).and_then(unhex).zip(header(DATA).and_then(unhex));
    let message_type = place.message_type;
    let key = place.key.map(|key| ValueKey { message_type, key });
    let stored = Stored { sub, epoch: epoch.clone(), seq: raw.seq, key, removes, envelope };
    let repeat = repeat.map(|(name, data)| (name, Seen { seq: raw.seq, data, at: raw.at }));
    Ok(Entry { stored: Arc::new(stored), repeat })
}

/// What the server says about a message that it repeats: subject, sequence and time.
pub(super) fn republished(headers: &HeaderMap) -> Option<(&str, u64, Timestamp)> {
    let text = |name: &str| headers.get(name).map(|value| value.as_str());
    let seq = text(SEQUENCE)?.parse().ok()?;
    Some((text(SUBJECT)?, seq, Timestamp::parse(text(TIME)?).ok()?))
}

fn hex(fingerprint: Fingerprint) -> String {
    format!("{:032x}", u128::from_be_bytes(fingerprint))
}

fn unhex(text: &str) -> Option<Fingerprint> {
    let fits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if fits { u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes) } else { None }
}
