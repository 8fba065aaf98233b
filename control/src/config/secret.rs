//! A text that is never shown.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// The cluster's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// A shorter one could be guessed.
const MIN_CHARS: usize = 16;

impl Secret {
    /// Takes a secret into custody, if it is one.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.chars().count() < MIN_CHARS {
            return Err("is shorter than 16 characters");
        }
        // It travels in a header.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has characters other than visible ASCII");
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for those who have to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that depends on the length only.
    pub fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
