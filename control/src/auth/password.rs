//! A password that keeps the rules. Length is the only one: others make people choose worse ones.

use std::fmt;

use hiveops_proto::auth::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN};

/// A password that somebody may have.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a text is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes")]
pub struct WrongLength;

impl Password {
    /// Takes a text if it keeps the rules.
    pub fn new(text: impl Into<String>) -> Result<Self, WrongLength> {
        let text = text.into();
        match text.len() {
            PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX => Ok(Self(text)),
            _ => Err(WrongLength),
        }
    }

    /// The text, for whoever hashes it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_length_is_judged() {
        for (bytes, is_good) in [(0, false), (7, false), (8, true), (1_024, true), (1_025, false)] {
            assert_eq!(Password::new("x".repeat(bytes)).is_ok(), is_good, "{bytes}");
        }
        assert!(Password::new("ää ää").is_ok(), "bytes are counted");
        assert_eq!(format!("{:?}", Password::new("hunter22").unwrap()), "Password(…)");
    }
}
