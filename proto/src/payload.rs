//! The `data` of a publication: one JSON object, kept as the text it arrived in.
//!
//! A payload is parsed once, where it enters; from there its text is spliced into frames. Parsing and
//! writing it again would cost fifty times as much per publication and could change numbers on the way.

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::id::Key;

/// A JSON object as text, cheap to clone.
#[derive(Debug, Clone)]
pub struct Payload(Arc<RawValue>);

/// Why a text is not a payload.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPayload {
    /// The text is not JSON.
    #[error("data is not valid JSON")]
    Syntax(#[source] serde_json::Error),
    /// The text is JSON, but not an object.
    #[error("data must be a JSON object")]
    NotAnObject,
    /// The member that names the key holds something that cannot be one.
    #[error("data.{member} must be text of 1 to 256 bytes without control characters, or an integer")]
    Key {
        /// The member that the contract names.
        member: String,
    },
    /// `deleted` is the mark of a removal and nothing else.
    #[error("data.deleted must be true or false")]
    Deleted,
}

/// What the log needs to know of an update's payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOf {
    /// The key, or `None` when the object does not name one.
    pub key: Option<Key>,
    /// Whether the payload removes the key.
    pub deleted: bool,
}

impl Payload {
    /// Checks that `text` is one JSON object.
    pub fn parse(text: &str) -> Result<Self, InvalidPayload> {
        let raw: Box<RawValue> = serde_json::from_str(text).map_err(InvalidPayload::Syntax)?;
        Self::from_raw(raw)
    }

    /// The JSON of `value`, which must be an object.
    pub fn from_value<T: Serialize>(value: &T) -> Result<Self, InvalidPayload> {
        Self::from_raw(serde_json::value::to_raw_value(value).map_err(InvalidPayload::Syntax)?)
    }

    fn from_raw(raw: Box<RawValue>) -> Result<Self, InvalidPayload> {
        if raw.get().starts_with('{') { Ok(Self(raw.into())) } else { Err(InvalidPayload::NotAnObject) }
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Reads the object as a `T`.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }

    /// Finds the key under `member`, and whether the object removes it.
    pub fn key(&self, member: &str) -> Result<KeyOf, InvalidPayload> {
        let members: HashMap<std::borrow::Cow<'_, str>, &RawValue> =
            self.read().map_err(InvalidPayload::Syntax)?;
        let key = match members.get(member) {
            None => None,
            Some(raw) => {
                Some(key_text(raw).ok_or_else(|| InvalidPayload::Key { member: member.to_owned() })?)
            }
        };
        let deleted = match members.get("deleted").map(|raw| raw.get()) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(InvalidPayload::Deleted),
        };
        Ok(KeyOf { key, deleted })
    }
}

fn key_text(raw: &RawValue) -> Option<Key> {
    let text = raw.get();
    if text.starts_with('"') {
        Key::new(&serde_json::from_str::<String>(text).ok()?).ok()
    } else {
        text.parse::<i64>().ok().and_then(|number| Key::new(&number.to_string()).ok())
    }
}

/// Payloads are equal when their texts are: two spellings of one object are two payloads.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_raw(Box::<RawValue>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_of_an_object_and_nothing_else() {
        let payload = Payload::parse(r#" {"n": 1.50, "n2": 12345678901234567890} "#).unwrap();
        assert_eq!(payload.as_str(), r#"{"n": 1.50, "n2": 12345678901234567890}"#);
        for bad in ["[]", "1", "null", "\"{}\"", "", "{", "{} {}"] {
            assert!(Payload::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn finds_the_key_and_the_removal() {
        let key = |text: &str| Payload::parse(text).unwrap().key("id");
        assert_eq!(key(r#"{"id":"t\u0031"}"#).unwrap().key.unwrap().as_str(), "t1");
        assert_eq!(key(r#"{"id":7,"deleted":true}"#).unwrap().key.unwrap().as_str(), "7");
        assert_eq!(key(r#"{"name":"x"}"#).unwrap(), KeyOf { key: None, deleted: false });
        assert!(key(r#"{"id":"t1","deleted":true}"#).unwrap().deleted);
        for bad in [r#"{"id":""}"#, r#"{"id":1.5}"#, r#"{"id":{}}"#, r#"{"deleted":1}"#] {
            assert!(key(bad).is_err(), "{bad} was accepted");
        }
    }
}
