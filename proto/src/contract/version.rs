//! `MAJOR.MINOR.PATCH` of the contract.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a contract version; ordered as semantic versions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContractVersion {
    /// Changes that break a client.
    pub major: u32,
    /// Additions.
    pub minor: u32,
    /// Clarifications.
    pub patch: u32,
}

/// Why a text is not a contract version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("contract_version must be MAJOR.MINOR.PATCH")]
pub struct InvalidVersion;

impl std::str::FromStr for ContractVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let number = |part: Option<&str>| {
            part.filter(|p| p.len() == 1 || !p.starts_with('0'))
                .filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|p| p.parse().ok())
                .ok_or(InvalidVersion)
        };
        let mut parts = text.split('.');
        let version =
            Self { major: number(parts.next())?, minor: number(parts.next())?, patch: number(parts.next())? };
        if parts.next().is_none() { Ok(version) } else { Err(InvalidVersion) }
    }
}

impl fmt::Display for ContractVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl TryFrom<String> for ContractVersion {
    type Error = InvalidVersion;
    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<ContractVersion> for String {
    fn from(version: ContractVersion) -> String {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_not_by_text() {
        let version = |text: &str| text.parse::<ContractVersion>().unwrap();
        assert!(version("1.10.0") > version("1.9.9"));
        assert_eq!(version("1.0.0").to_string(), "1.0.0");
        for bad in ["", "1", "1.0", "1.0.0.0", "1.0.x", "01.0.0", "+1.0.0", "1..0", "v1.0.0"] {
            assert!(bad.parse::<ContractVersion>().is_err(), "{bad:?} was accepted");
        }
    }
}
