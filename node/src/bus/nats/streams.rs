//! The streams of a deployment: made when they are missing, checked when they are there, never changed
//! silently. And the life of a log, which every node reads from its stream alike.

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use hiveops_proto::{Epoch, SubscriptionName};
use sha2::{Digest, Sha256};

use super::LinkError;
use super::names::Names;
use crate::bus::DUPLICATE_WINDOW;

/// Messages of one key that the server keeps: a node that is behind by fewer gets them all, and the state
/// is among them always.
const PER_KEY: i64 = 8;

/// Bytes of one log at most: `PER_KEY` times the largest state with its envelopes, and as much again for
/// occurrences. A stream that is full refuses, and loses nothing.
const LOG_BYTES_MAX: i64 = 1024 * 1024 * 1024;

/// What outside publishers have handed in and no node has taken yet, in bytes and in time.
const IN_BYTES_MAX: i64 = 256 * 1024 * 1024;
const IN_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Longer than anything waits for a probe.
const PROBE_AGE_MAX: Duration = Duration::from_secs(60);

/// Counts the lives of a log within one stream: the server lost a tail that nodes had seen.
const GENERATION: &str = "hiveops-generation";

/// The log of one subscription.
pub(super) fn log(names: &Names, name: &SubscriptionName, replicas: u8) -> Config {
    Config {
        name: names.log_stream(name),
        subjects: vec![names.log_subjects(name)],
        retention: RetentionPolicy::Limits,
        max_messages_per_subject: PER_KEY,
        max_bytes: LOG_BYTES_MAX,
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW,
        storage: StorageType::File,
        num_replicas: usize::from(replicas),
        allow_rollup: true,
        allow_direct: true,
        allow_message_ttl: true,
        republish: Some(Republish {
            source: names.log_subjects(name),
            destination: names.live_subjects(name),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// What probes go through: stored and repeated like a log, and gone soon.
pub(super) fn probe(names: &Names, replicas: u8) -> Config {
    Config {
        name: names.probe_stream(),
        subjects: vec![names.probe_subjects()],
        max_messages_per_subject: 1,
        max_age: PROBE_AGE_MAX,
        storage: StorageType::File,
        num_replicas: usize::from(replicas),
        republish: Some(Republish {
            source: names.probe_subjects(),
            destination: names.probe_live("{{wildcard(1)}}"),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// What outside publishers hand in: each message goes to one node, and again until one acknowledges it.
pub(super) fn incoming(names: &Names, replicas: u8) -> Config {
    Config {
        name: names.in_stream(),
        subjects: vec![names.in_subjects()],
        retention: RetentionPolicy::WorkQueue,
        max_bytes: IN_BYTES_MAX,
        max_age: IN_AGE_MAX,
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW,
        storage: StorageType::File,
        num_replicas: usize::from(replicas),
        ..Config::default()
    }
}

/// Makes the stream when it is missing; an error when it is there and is another one.
pub(super) async fn ensure(context: &Context, wanted: &Config) -> Result<Stream, LinkError> {
    let stream = match context.get_stream(&wanted.name).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                make(context, wanted).await?
            }
            GetStreamErrorKind::JetStream(error) => return Err(refused(&error)),
            _ => return Err(LinkError::broker("streams cannot be read", error)),
        },
    };
    let differences = differences(wanted, &stream.cached_info().config);
    if differences.is_empty() {
        return Ok(stream);
    }
    let detail = format!(
        "stream `{}` is there with other settings: {}; remove it, change it with the nats command, or \
         choose another HIVEOPS_NAMESPACE",
        wanted.name,
        differences.join(", ")
    );
    Err(LinkError::Permanent(detail))
}

async fn make(context: &Context, wanted: &Config) -> Result<Stream, LinkError> {
    match context.create_stream(wanted.clone()).await {
        Ok(stream) => {
            tracing::info!(stream = wanted.name, "stream made");
            Ok(stream)
        }
        Err(error) => match error.kind() {
            // Another node was faster; what it made is checked like any other.
            CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                let found = context.get_stream(&wanted.name).await;
                found.map_err(|error| LinkError::broker("streams cannot be read", error))
            }
            CreateStreamErrorKind::JetStream(error) => Err(refused(&error)),
            _ => Err(LinkError::broker("a stream cannot be made", error)),
        },
    }
}

/// What the server says no to will not be better a second later, unless it is still starting.
fn refused(error: &async_nats::jetstream::Error) -> LinkError {
    let text = format!("the NATS server refuses a stream: {error} (HIVEOPS_BUS)");
    match error.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            LinkError::Permanent(format!("{text}; start it with JetStream (-js)"))
        }
        ErrorCode::STREAM_SUBJECT_OVERLAP => LinkError::Permanent(text),
        _ => LinkError::Broker(text),
    }
}

/// The settings that a log depends on, and how they differ.
fn differences(wanted: &Config, found: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |name: &str, wanted: String, found: String| {
        if wanted != found {
            differences.push(format!("{name} is {found}, not {wanted}"));
        }
    };
    let republish = |config: &Config| match &config.republish {
        Some(republish) => format!("{} to {}", republish.source, republish.destination),
        None => "none".to_owned(),
    };
    compare("subjects", wanted.subjects.join(" "), found.subjects.join(" "));
    compare("retention", format!("{:?}", wanted.retention), format!("{:?}", found.retention));
    compare("discard", format!("{:?}", wanted.discard), format!("{:?}", found.discard));
    compare(
        "max_msgs_per_subject",
        bound(wanted.max_messages_per_subject),
        bound(found.max_messages_per_subject),
    );
    compare("max_bytes", bound(wanted.max_bytes), bound(found.max_bytes));
    compare("max_msgs", bound(wanted.max_messages), bound(found.max_messages));
    compare("max_age", format!("{:?}", wanted.max_age), format!("{:?}", found.max_age));
    compare("storage", format!("{:?}", wanted.storage), format!("{:?}", found.storage));
    compare("allow_rollup_hdrs", wanted.allow_rollup.to_string(), found.allow_rollup.to_string());
    compare("allow_msg_ttl", wanted.allow_message_ttl.to_string(), found.allow_message_ttl.to_string());
    compare("republish", republish(wanted), republish(found));
    if wanted.duplicate_window != Duration::ZERO {
        let window = |config: &Config| format!("{:?}", config.duplicate_window);
        compare("duplicate_window", window(wanted), window(found));
    }
    differences
}

/// NATS writes 0 or -1 for no bound.
fn bound(value: i64) -> String {
    if value <= 0 { "none".to_owned() } else { value.to_string() }
}

/// The life of a log: the stream's creation and its generation, so that all nodes name it alike.
pub(super) fn epoch(info: &Info) -> Epoch {
    epoch_of(info, generation(info))
}

/// The life of the same stream with another count.
pub(super) fn epoch_of(info: &Info, generation: u64) -> Epoch {
    let mut hash = Sha256::new();
    hash.update(info.created.unix_timestamp_nanos().to_be_bytes());
    hash.update(generation.to_be_bytes());
    let mut bits = [0; 8];
    bits.copy_from_slice(&hash.finalize()[..8]);
    Epoch::from_bits(u64::from_be_bytes(bits))
}

/// How many lives the stream counts before this one.
pub(super) fn generation(info: &Info) -> u64 {
    info.config.metadata.get(GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Begins a new life of the log, unless another node has already begun one since `seen`. Its count is beyond
/// `highest`, which a node has seen: an older disk must not bring back a life that is over.
pub(super) async fn renew(context: &Context, seen: &Info, highest: u64) -> Result<Info, LinkError> {
    let failed = |error| LinkError::broker("a log cannot be renewed", error);
    let stream = context.get_stream(&seen.config.name).await;
    let now =
        stream.map_err(|error| LinkError::broker("streams cannot be read", error))?.cached_info().clone();
    if generation(&now) > highest.max(generation(seen)) {
        return Ok(now);
    }
    let mut config = now.config.clone();
    config.metadata.insert(GENERATION.to_owned(), (highest.max(generation(&now)) + 1).to_string());
    context.update_stream(&config).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_that_a_log_depends_on_is_compared() {
        let names = Names::new("default");
        let wanted = log(&names, &SubscriptionName::new("tasks").unwrap(), 1);
        assert!(differences(&wanted, &wanted).is_empty());
        let other = Config { max_messages_per_subject: -1, max_messages: 7, ..wanted.clone() };
        let found = differences(&wanted, &other);
        assert_eq!(found, ["max_msgs_per_subject is none, not 8", "max_msgs is 7, not none"]);
        let other = Config { republish: None, num_replicas: 3, ..wanted.clone() };
        assert_eq!(differences(&wanted, &other).len(), 1, "replicas are the operator's to change");
    }
}
