//! Digests of the two published documents, so that a node, a client and `hiveops contract` can tell
//! whether they speak of the same ones. They say nothing about which is newer; the version does.

use sha2::{Digest as _, Sha256};

use crate::{CONTRACT, WS_SCHEMA};

/// `sha256:` and the digest of [`WS_SCHEMA`], as the contract endpoint shows it.
pub fn schema_digest() -> String {
    digest(WS_SCHEMA)
}

/// `sha256:` and the digest of [`CONTRACT`].
pub fn contract_digest() -> String {
    digest(CONTRACT)
}

/// `sha256:` and the digest of a published document, in lower case.
pub fn digest(text: &str) -> String {
    let hex: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_usual_one_in_lower_case() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(""), empty);
    }
}
