//! Identifiers that arrive from outside: each is a type of its own, checked once where it enters.

use std::sync::Arc;

/// Why a text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidId {
    /// The kind of identifier, as the wire calls it.
    pub what: &'static str,
    /// The rule that the text breaks.
    pub rule: &'static str,
}

/// Declares one identifier: a shared string that can only be made through its rule.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $accepts:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The rule, in words that finish the sentence "must be …".
            pub const RULE: &'static str = $rule;

            /// Checks `text` against the rule.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                let accepts: fn(&str) -> bool = $accepts;
                if accepts(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId { what: $what, rule: $rule })
                }
            }

            /// The text as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), &self.0)
            }
        }
    };
}
pub(crate) use identifier;

/// True for 1 to `max` characters of the set that ids may use on the wire, in headers, logs and subjects.
fn is_token(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

identifier! {
    /// Follows one cause from its publisher to every delivery. Ours are UUIDv7.
    CorrelationId, "correlation_id", "1 to 128 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 128)
}

identifier! {
    /// Names one accepted WebSocket; the client may wish for one when it connects.
    ConnectionId, "connection_id", "1 to 128 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 128)
}

identifier! {
    /// Names one edge node.
    NodeId, "node_id", "1 to 64 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 64)
}

identifier! {
    /// One life of a subscription's log. Opaque: two epochs are equal or they are not.
    Epoch, "epoch", "1 to 32 characters of a-z 0-9",
    |text| (1..=32).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

identifier! {
    /// The key whose whole value an update carries; any text that is neither empty nor unbounded.
    Key, "key", "1 to 256 bytes of text without control characters",
    |text| (1..=256).contains(&text.len()) && !text.chars().any(char::is_control)
}

identifier! {
    /// A publisher's own name for one publication: repeating it does not publish twice.
    IdempotencyKey, "Idempotency-Key", "1 to 255 visible ASCII characters",
    |text| (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

identifier! {
    /// Names one HiveOps cluster: a replica or a node of another one is recognised by it.
    ClusterId, "cluster_id", "1 to 64 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 64)
}

identifier! {
    /// Names one user, for good; the `sub` of access tokens.
    UserId, "user_id", "1 to 64 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 64)
}

identifier! {
    /// Names one login and all refresh tokens that came from it; the `sid` of access tokens.
    FamilyId, "family_id", "1 to 64 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 64)
}

identifier! {
    /// Names one access token; its `jti`.
    TokenId, "jti", "1 to 64 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 64)
}

identifier! {
    /// Names one signing key; the `kid` of access tokens.
    KeyId, "kid", "1 to 64 characters of A-Z a-z 0-9 . _ : -",
    |text| is_token(text, 64)
}

impl From<uuid::Uuid> for CorrelationId {
    fn from(id: uuid::Uuid) -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut buffer)))
    }
}

impl From<uuid::Uuid> for ConnectionId {
    fn from(id: uuid::Uuid) -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut buffer)))
    }
}

impl Epoch {
    /// The epoch whose wire form is `bits` in 16 lower-case hexadecimal digits.
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("{bits:016x}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correlation_id_has_1_to_128_characters_of_the_set() {
        for good in ["a", "A-Z.a_z:0-9", &"x".repeat(128)] {
            assert_eq!(CorrelationId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "ä", "a/b", "a\n", &"x".repeat(129)] {
            assert!(CorrelationId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn made_ids_satisfy_the_rule_of_accepted_ones() {
        let id = uuid::Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);
        let made = CorrelationId::from(id);
        assert_eq!(CorrelationId::new(made.as_str()).unwrap(), made);
        assert_eq!(Epoch::new(Epoch::from_bits(u64::MAX).as_str()).unwrap().as_str(), "f".repeat(16));
    }

    #[test]
    fn a_key_is_bounded_text_without_control_characters() {
        assert!(Key::new("tâche 1/2 > x").is_ok());
        assert!(Key::new("").is_err() && Key::new("a\u{7}").is_err() && Key::new(&"k".repeat(257)).is_err());
    }
}
