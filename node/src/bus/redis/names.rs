//! Names of keys and channels. Everything that one script touches has the same hash tag, so that a Redis
//! Cluster keeps it together.

use hiveops_proto::SubscriptionName;

/// Slots of a Redis Cluster.
pub(super) const SLOTS: u16 = 16_384;

/// The names of one log.
#[derive(Debug, Clone)]
pub(super) struct Names {
    tag: String,
    /// Hash: epoch, seq, floor, run, keys, bytes, …
    pub(super) meta: String,
    /// Hash: type and key → seq, size, record.
    pub(super) state: String,
    /// Stream `<seq>-0`: the last publications of all kinds.
    pub(super) log: String,
    /// Stream `<ms>-<seq>`: occurrences.
    pub(super) occurrences: String,
    /// Stream `<ms>-<seq>`: removals.
    pub(super) removals: String,
    /// What a probe writes.
    pub(super) probe: String,
    /// Where every publication is said as it is stored.
    pub(super) live: String,
}

impl Names {
    /// The names of a subscription's log.
    pub(super) fn of_log(namespace: &str, subscription: &SubscriptionName, database: u8) -> Self {
        Self::with_tag(format!("{{{namespace}:{subscription}}}"), "live", database)
    }

    /// The names of what nodes say to each other. It has no log, only a channel and a probe.
    pub(super) fn of_notices(namespace: &str, database: u8) -> Self {
        Self::with_tag(format!("{{{namespace}}}"), "n", database)
    }

    fn with_tag(tag: String, channel: &str, database: u8) -> Self {
        let key = |name: &str| format!("hiveops:{tag}:{name}");
        // Databases share their channels.
        let live = match database {
            0 => key(channel),
            other => format!("{}:{other}", key(channel)),
        };
        Self {
            meta: key("meta"),
            state: key("state"),
            log: key("log"),
            occurrences: key("occ"),
            removals: key("del"),
            probe: key("probe"),
            live,
            tag,
        }
    }

    /// Remembers a publication so that a repeat is known.
    pub(super) fn repeat(&self, name: &str) -> String {
        format!("hiveops:{}:rep:{name}", self.tag)
    }

    /// The slot of all of it.
    pub(super) fn slot(&self) -> u16 {
        slot(self.tag.trim_start_matches('{').trim_end_matches('}'))
    }
}

/// The key that the node holds which takes in what publishers send without asking a node, and its slot.
pub(super) fn intake_lease(namespace: &str) -> (String, u16) {
    (format!("hiveops:{{{namespace}}}:intake"), slot(namespace))
}

/// The channel of envelopes for one subscription (CONTRACT section 12).
pub(super) fn envelopes(namespace: &str, subscription: &SubscriptionName) -> String {
    format!("hiveops:{namespace}:u:{subscription}")
}

/// The slot of a hash tag: CRC-16/XMODEM, as the specification of Redis Cluster wants it.
fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From `CLUSTER KEYSLOT`.
        assert_eq!([slot("123456789"), slot("foo"), slot("default:agents")], [12_739, 12_182, 15_577]);
    }

    #[test]
    fn databases_do_not_share_their_channels() {
        let name = SubscriptionName::new("agents").unwrap();
        let (zero, one) = (Names::of_log("x", &name, 0), Names::of_log("x", &name, 1));
        assert_eq!(
            (zero.live.as_str(), zero.meta.as_str()),
            ("hiveops:{x:agents}:live", "hiveops:{x:agents}:meta")
        );
        assert_ne!(zero.live, one.live);
        assert_eq!(zero.slot(), one.slot());
    }
}
