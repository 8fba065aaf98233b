//! Texts that must not be seen: private keys, password hashes, digests of refresh tokens. They are in the
//! log and in snapshots, and nowhere else: not in outcomes, not in views, not in `{:?}`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest secret: a PKCS #8 key or an argon2 hash has a few hundred bytes.
pub const SECRET_BYTES_MAX: usize = 1_024;

/// A text that is only shown on purpose.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever has to use it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_sound(&self) -> bool {
        (1..=SECRET_BYTES_MAX).contains(&self.0.len())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The SHA-256 of a refresh token, in 64 lower-case hexadecimal digits. The token itself never gets here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenHash(String);

/// Why a text is not the hash of a token.
#[derive(Debug, thiserror::Error)]
#[error("a token hash is 64 lower-case hexadecimal digits")]
pub struct InvalidTokenHash;

impl TryFrom<String> for TokenHash {
    type Error = InvalidTokenHash;
    fn try_from(text: String) -> Result<Self, InvalidTokenHash> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(hex) { Ok(Self(text)) } else { Err(InvalidTokenHash) }
    }
}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> String {
        hash.0
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_themselves() {
        let hash = TokenHash::try_from("ab".repeat(32)).unwrap();
        assert_eq!(format!("{:?} {hash:?}", Secret::new("hunter2")), "Secret(…) TokenHash(…)");
        assert!(TokenHash::try_from("AB".repeat(32)).is_err());
        assert!(!Secret::new("").is_sound() && !Secret::new("x".repeat(1_025)).is_sound());
    }
}
