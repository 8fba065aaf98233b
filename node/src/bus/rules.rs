//! Whether a log may take a publication, and how a repeat is known. Pure; the buses share it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Expect, Publish, PublishError, Repeat, STATE_BYTES_MAX, STATE_KEYS_MAX, Stored};
use crate::log::{CompactedLog, ValueKey};

/// SHA-256, cut to 16 bytes: names of repeats must not collide by chance, not resist an attacker who may
/// publish anyway.
pub(super) type Fingerprint = [u8; 16];

/// The name of a repeat, and what its data must be.
pub(super) fn fingerprints(publish: &Publish) -> Option<(Fingerprint, Fingerprint)> {
    let envelope = &publish.envelope;
    let content = [envelope.message_type.as_str(), "\0", envelope.data.as_str()];
    match &publish.repeat {
        Repeat::Never => None,
        Repeat::Key(key) => Some((fingerprint(&["key\0", key.as_str()]), fingerprint(&content))),
        Repeat::Content => {
            let [kind, zero, text] = content;
            let name = ["content\0", envelope.correlation_id.as_str(), zero, kind, zero, text];
            Some((fingerprint(&name), fingerprint(&content)))
        }
    }
}

fn fingerprint(parts: &[&str]) -> Fingerprint {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    let mut cut = Fingerprint::default();
    cut.copy_from_slice(&hash.finalize()[..16]);
    cut
}

/// The publication that set the key's value, 0 when it has none.
pub(super) fn actual(log: &CompactedLog<Arc<Stored>>, key: Option<&ValueKey>) -> u64 {
    let current = key.and_then(|key| log.latest(key));
    current.filter(|stored| !stored.removes).map_or(0, |stored| stored.seq)
}

/// Whether the condition holds.
pub(super) fn check_expected(expect: Expect, actual: u64) -> Result<(), PublishError> {
    let fits = match expect {
        Expect::Any => true,
        Expect::Absent => actual == 0,
        Expect::Seq(seq) => actual == seq,
    };
    if fits { Ok(()) } else { Err(PublishError::WrongExpected { actual }) }
}

/// Whether the state has room for the publication beside what is `under_way`: keys with the bytes that
/// they will have.
pub(super) fn check_room<'a>(
    log: &CompactedLog<Arc<Stored>>,
    publish: &Publish,
    under_way: impl Iterator<Item = (&'a ValueKey, usize)>,
) -> Result<(), PublishError> {
    let Some(key) = publish.key.as_ref().filter(|_| !publish.removes) else { return Ok(()) };
    let bytes_of = |key: &ValueKey| {
        log.latest(key).filter(|stored| !stored.removes).map(|stored| stored.envelope.data.as_str().len())
    };
    let (mut keys, mut bytes) = (log.live_keys(), log.live_bytes());
    for (other, size) in under_way.filter(|(other, _)| *other != key) {
        let current = bytes_of(other);
        keys += usize::from(current.is_none());
        bytes += size.saturating_sub(current.unwrap_or(0));
    }
    let current = bytes_of(key);
    let wanted_keys = keys + usize::from(current.is_none());
    let wanted_bytes = bytes - current.unwrap_or(0) + publish.envelope.data.as_str().len();
    if wanted_keys <= STATE_KEYS_MAX && wanted_bytes <= STATE_BYTES_MAX {
        return Ok(());
    }
    Err(PublishError::StateFull { keys: log.live_keys(), bytes: log.live_bytes() })
}
