//! How large the parts of an agent or a task may be. A value must fit a publication with room to spare, and
//! ten thousand of them the state. Pure.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Names and titles: a line on a screen.
pub(super) const NAME_BYTES: RangeInclusive<usize> = 1..=512;
/// Words such as the type of an agent.
pub(super) const WORD_BYTES: RangeInclusive<usize> = 1..=64;
/// Descriptions: some pages of text.
pub(super) const TEXT_BYTES: RangeInclusive<usize> = 0..=16_384;
/// Capabilities of one agent.
pub(super) const CAPABILITIES_MAX: usize = 64;
/// Metrics and metadata: members, and bytes as JSON.
pub(super) const MAP_MEMBERS_MAX: usize = 64;
pub(super) const MAP_BYTES_MAX: usize = 16_384;
/// Leases: from what a loop can keep to what a person calls a day.
pub(super) const LEASE_SECONDS: RangeInclusive<u64> = 1..=86_400;

/// A member of a request that is larger, smaller or other than it may be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must {rule}")]
pub(crate) struct OutOfBounds {
    pub(crate) field: &'static str,
    pub(crate) rule: String,
}

fn refuse<T>(field: &'static str, rule: impl Into<String>) -> Result<T, OutOfBounds> {
    Err(OutOfBounds { field, rule: rule.into() })
}

/// One line of text.
pub(super) fn line(
    field: &'static str,
    text: &str,
    bytes: &RangeInclusive<usize>,
) -> Result<(), OutOfBounds> {
    if text.chars().any(char::is_control) {
        return refuse(field, "be one line without control characters");
    }
    self::text(field, text, bytes)
}

/// Text of any number of lines.
pub(super) fn text(
    field: &'static str,
    text: &str,
    bytes: &RangeInclusive<usize>,
) -> Result<(), OutOfBounds> {
    if bytes.contains(&text.len()) {
        return Ok(());
    }
    refuse(field, format!("have {} to {} bytes", bytes.start(), bytes.end()))
}

pub(super) fn capabilities(list: &[String]) -> Result<(), OutOfBounds> {
    const FIELD: &str = "capabilities";
    if list.len() > CAPABILITIES_MAX {
        return refuse(FIELD, format!("have at most {CAPABILITIES_MAX} entries"));
    }
    list.iter().try_for_each(|word| line(FIELD, word, &WORD_BYTES))
}

pub(super) fn map(field: &'static str, map: &Map<String, Value>) -> Result<(), OutOfBounds> {
    if map.len() > MAP_MEMBERS_MAX {
        return refuse(field, format!("have at most {MAP_MEMBERS_MAX} members"));
    }
    let fits = serde_json::to_string(map).is_ok_and(|json| json.len() <= MAP_BYTES_MAX);
    if fits { Ok(()) } else { refuse(field, format!("have at most {MAP_BYTES_MAX} bytes as JSON")) }
}

pub(super) fn lease(seconds: Option<u64>) -> Result<(), OutOfBounds> {
    if seconds.is_none_or(|seconds| LEASE_SECONDS.contains(&seconds)) {
        return Ok(());
    }
    let (min, max) = (LEASE_SECONDS.start(), LEASE_SECONDS.end());
    refuse("lease_seconds", format!("be from {min} to {max}"))
}

/// Statuses that are a node's to give.
pub(super) fn status(status: Option<hiveops_proto::board::AgentStatus>) -> Result<(), OutOfBounds> {
    match status {
        Some(hiveops_proto::board::AgentStatus::Stale) => {
            refuse("status", "not be `stale`: a node sets that when a lease runs out")
        }
        _ => Ok(()),
    }
}
