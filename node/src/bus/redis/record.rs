//! A publication as Redis keeps it, and the messages of a log's channel. Pure.
//!
//! A record is `<kind><key>\n<envelope>`: the scripts move it about and never look into it. A key has no
//! control characters, so the first line end is ours.

use std::collections::HashMap;
use std::sync::Arc;

use hiveops_proto::id::InvalidId;
use hiveops_proto::{Envelope, Epoch, Key};

use crate::bus::{Publish, Stored};
use crate::catalog::SubId;
use crate::log::{Entry, ValueKey};

/// What a record is to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Occurrence,
    Value,
    Removal,
}

impl Kind {
    pub(super) fn of(publish: &Publish) -> Self {
        match (&publish.key, publish.removes) {
            (None, _) => Self::Occurrence,
            (Some(_), false) => Self::Value,
            (Some(_), true) => Self::Removal,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Occurrence => "o",
            Self::Value => "v",
            Self::Removal => "d",
        }
    }
}

/// Why something that Redis has is no publication.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it has not the form `{form}`")]
    Form { form: &'static str },
    #[error("its envelope cannot be read")]
    Envelope(#[source] serde_json::Error),
    #[error(transparent)]
    Id(#[from] InvalidId),
}

const RECORD: Unreadable = Unreadable::Form { form: "<kind><key>\\n<envelope>" };

/// The record of a publication.
pub(super) fn write(publish: &Publish) -> Result<String, serde_json::Error> {
    let key = publish.key.as_ref().map_or("", |value| value.key.as_str());
    let mut record = format!("{}{key}\n", Kind::of(publish).as_str());
    record.push_str(&serde_json::to_string(&publish.envelope)?);
    Ok(record)
}

/// The field of the state that a publication sets or removes; empty for an occurrence.
pub(super) fn field(publish: &Publish) -> String {
    publish.key.as_ref().map_or_else(String::new, |value| format!("{}\0{}", value.message_type, value.key))
}

/// A record with its place in the log.
pub(super) fn read(sub: SubId, epoch: &Epoch, seq: u64, record: &str) -> Result<Arc<Stored>, Unreadable> {
    let (head, envelope) = record.split_once('\n').ok_or(RECORD)?;
    let envelope: Envelope = serde_json::from_str(envelope).map_err(Unreadable::Envelope)?;
    let value = |key: &str| -> Result<_, Unreadable> {
        Ok(Some(ValueKey { message_type: envelope.message_type.clone(), key: Key::new(key)? }))
    };
    let (key, removes) = match head.split_at_checked(1).ok_or(RECORD)? {
        ("o", "") => (None, false),
        ("v", key) => (value(key)?, false),
        ("d", key) => (value(key)?, true),
        _ => return Err(RECORD),
    };
    Ok(Arc::new(Stored { sub, epoch: epoch.clone(), seq, key, removes, envelope }))
}

/// What is said on a log's channel.
#[derive(Debug, PartialEq)]
pub(super) enum Said<'a> {
    /// A publication was stored.
    Stored { epoch: &'a str, seq: u64, record: &'a str },
    /// Somebody's probe, and where the log ended when it passed.
    Probe { origin: &'a str, nonce: u64, epoch: &'a str, head: u64 },
    /// The log has a new epoch.
    Renewed { epoch: &'a str },
    /// Somebody has read the log at this point.
    Mark { mark: &'a str },
}

impl<'a> Said<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Unreadable> {
        const FORM: Unreadable = Unreadable::Form { form: "S, P, R or M and its fields" };
        let number = |text: &str| text.parse().map_err(|_| FORM);
        let (kind, rest) = text.split_once(' ').ok_or(FORM)?;
        match kind {
            "S" => {
                let mut parts = rest.splitn(3, ' ');
                let (Some(epoch), Some(seq), Some(record)) = (parts.next(), parts.next(), parts.next())
                else {
                    return Err(FORM);
                };
                Ok(Self::Stored { epoch, seq: number(seq)?, record })
            }
            "P" => {
                let parts: Vec<&str> = rest.splitn(4, ' ').collect();
                let [origin, nonce, epoch, head] = parts[..] else { return Err(FORM) };
                Ok(Self::Probe { origin, nonce: number(nonce)?, epoch, head: number(head)? })
            }
            "R" => Ok(Self::Renewed { epoch: rest }),
            "M" => Ok(Self::Mark { mark: rest }),
            _ => Err(FORM),
        }
    }
}

/// Brings everything that is left of a log into its order, without what was superseded: a removal stays in
/// Redis for its time even when the key has come back.
pub(super) fn in_order(mut entries: Vec<Arc<Stored>>) -> Vec<Arc<Stored>> {
    entries.sort_by_key(Entry::seq);
    let mut latest = HashMap::new();
    for stored in &entries {
        if let Some(key) = &stored.key {
            latest.insert(key.clone(), stored.seq);
        }
    }
    entries.retain(|stored| stored.key.as_ref().is_none_or(|key| latest.get(key) == Some(&stored.seq)));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::conformance::{occurrence, removal, update};

    fn stored(publish: &Publish, seq: u64) -> Arc<Stored> {
        read(publish.sub, &Epoch::from_bits(1), seq, &write(publish).unwrap()).unwrap()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for publish in [update(0, "a b", 1), removal(1, "ä"), occurrence(0, 2)] {
            let stored = stored(&publish, 7);
            assert_eq!((stored.sub, stored.seq, &stored.key), (publish.sub, 7, &publish.key));
            assert_eq!((stored.removes, &stored.envelope), (publish.removes, &publish.envelope));
        }
        assert_eq!(field(&update(0, "a", 1)), "some_update\0a");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let good = write(&occurrence(0, 1)).unwrap();
        let (sub, epoch) = (occurrence(0, 1).sub, Epoch::from_bits(1));
        let bad =
            ["", "o", "o\n", "o\n{}", "\n{}", &good.replacen('o', "ox", 1), &good.replacen('o', "x", 1)];
        for bad in bad {
            assert!(read(sub, &epoch, 1, bad).is_err(), "{bad:?}");
        }
        assert!(read(sub, &epoch, 1, &good.replacen('o', "v", 1)).is_err(), "a value has a key");
    }

    #[test]
    fn what_is_said_is_parsed() {
        let said = Said::parse("S 00ff 12 va\n{\"x\": 1}").unwrap();
        assert_eq!(said, Said::Stored { epoch: "00ff", seq: 12, record: "va\n{\"x\": 1}" });
        let said = Said::parse("P n1 4 00ff 12").unwrap();
        assert_eq!(said, Said::Probe { origin: "n1", nonce: 4, epoch: "00ff", head: 12 });
        assert_eq!(Said::parse("R 00ff").unwrap(), Said::Renewed { epoch: "00ff" });
        assert_eq!(Said::parse("M x").unwrap(), Said::Mark { mark: "x" });
        for bad in ["", "S", "S a", "S a b c", "S a 1", "P a b c", "P a 1 c", "X a", "P a 1 c d"] {
            assert!(Said::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_was_superseded_is_left_out() {
        let all = [
            stored(&update(0, "b", 1), 9),
            stored(&occurrence(0, 1), 4),
            stored(&removal(0, "a"), 7),
            stored(&removal(0, "a"), 3),
            stored(&removal(0, "b"), 5),
        ];
        let seqs: Vec<u64> = in_order(all.to_vec()).iter().map(Entry::seq).collect();
        assert_eq!(seqs, [4, 7, 9]);
    }
}
