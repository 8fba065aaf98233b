//! The registry of contract versions: what a push must look like, which version is in force, and which
//! ones clients may ask for. It only ever goes forward: to go back, push the old text as a new version.

mod classify;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::Timestamp;
use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::{ContractView, DeprecationPolicy};
use hiveops_proto::{Contract, contract};
use serde::{Deserialize, Serialize};

pub use classify::{Change, Classification, Level, classify};

use super::outcome::{Refusal, RefusalCode};

/// Largest contract document: what 64 subscriptions with detailed schemas need, ten times over.
pub const CONTRACT_BYTES_MAX: usize = 512 * 1024;

/// Longest migration note.
pub const NOTE_BYTES_MAX: usize = 8 * 1024;

/// How many versions are kept; the oldest that is not supported makes room.
const VERSIONS_MAX: usize = 32;

/// How many versions may be supported at once; the rest of [`VERSIONS_MAX`] is history.
pub const SUPPORTED_MAX: usize = 16;

/// How many changes an answer names; there can be thousands.
const CHANGES_TOLD_MAX: usize = 100;

/// How many of them a refusal names: enough to begin with.
const CHANGES_REFUSED_MAX: usize = 10;

/// Longest word and longest sentence of the policy; every view carries them.
const POLICY_BYTES_MAX: usize = 64;
const NOTICE_BYTES_MAX: usize = 1_024;

/// A contract version on its way into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// The document, as text: its JSON numbers need not survive being read and written again.
    pub document: String,
    /// What its author takes the change for: required for a major one, and may be more than a comparison
    /// can see (a change of meaning), never less.
    pub label: Option<Level>,
    /// What somebody who used the version before has to do: required for a major change.
    pub migration_note: Option<String>,
    /// The versions that clients may ask for from then on; by default the ones so far, and this.
    pub supported: Option<BTreeSet<ContractVersion>>,
}

/// What a push does, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The version that is in force then.
    pub version: ContractVersion,
    /// Which was before.
    pub previous: ContractVersion,
    /// The digest of the document in force.
    pub digest: String,
    /// How far the two are apart.
    pub level: Level,
    /// Where, at most the first hundred places.
    pub changes: Vec<Change>,
    /// How many places there are.
    pub changes_total: usize,
}

/// All versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    active: ContractVersion,
    versions: BTreeMap<ContractVersion, Published>,
    supported: BTreeSet<ContractVersion>,
    policy: DeprecationPolicy,
    /// Of the schema of frames; it is a part of the binary and not of the contract document.
    schema_digest: String,
}

/// One version, as it was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The document, to the byte.
    pub document: String,
    /// `sha256:` and its digest.
    pub digest: String,
    /// When it came into force.
    pub at: Timestamp,
    /// How far it went from the version before; nothing for the first.
    pub level: Option<Level>,
    /// What somebody who used the version before has to do.
    pub migration_note: Option<String>,
}

impl Registry {
    pub(crate) fn new(
        document: String,
        policy: DeprecationPolicy,
        schema_digest: String,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let contract = read(&document)?;
        let digest = hiveops_proto::digest(&document);
        let first = Published { document, digest, at: now, level: None, migration_note: None };
        let active = contract.version;
        let (versions, supported) = (BTreeMap::from([(active, first)]), BTreeSet::from([active]));
        Ok(Self { active, versions, supported, policy, schema_digest })
    }

    pub(crate) fn view(&self) -> ContractView {
        ContractView {
            current: self.contract(),
            supported_versions: self.supported.iter().copied().collect(),
            deprecation_policy: self.policy.clone(),
            schema_digest: self.schema_digest.clone(),
            contract_digest: Some(self.active().1.digest.clone()),
        }
    }

    pub(crate) fn versions(&self) -> &BTreeMap<ContractVersion, Published> {
        &self.versions
    }

    pub(crate) fn active(&self) -> (ContractVersion, &Published) {
        (self.active, self.versions.get(&self.active).expect("the version in force is never forgotten"))
    }

    /// What the push would do, or every reason why it cannot be.
    pub(crate) fn preview(&self, push: &Push) -> Result<Pushed, Refusal> {
        let next = read(&push.document)?;
        let now = self.contract();
        let Classification { level, mut changes } = classify(&now, &next);
        changes.sort_by_key(|change| std::cmp::Reverse(change.level));
        let digest = hiveops_proto::digest(&push.document);
        if next.version != now.version || digest != self.active().1.digest {
            let claimed = level.max(push.label.unwrap_or(level));
            let mut reasons = self.label_reasons(push, level, &changes);
            reasons.extend(self.version_reasons(claimed, next.version, &digest));
            reasons.extend(self.support_reasons(push.supported.as_ref(), next.version));
            if !reasons.is_empty() {
                return Err(Refusal { code: RefusalCode::Invalid, reasons });
            }
        }
        let changes_total = changes.len();
        changes.truncate(CHANGES_TOLD_MAX);
        Ok(Pushed { version: next.version, previous: now.version, digest, level, changes, changes_total })
    }

    /// Puts a version in force. Pushing what is in force already changes nothing.
    pub(crate) fn push(&mut self, push: Push, now: Timestamp) -> Result<Pushed, Refusal> {
        let pushed = self.preview(&push)?;
        if pushed.version == pushed.previous {
            return Ok(pushed);
        }
        let Push { document, label, migration_note, supported } = push;
        let level = Some(pushed.level.max(label.unwrap_or(pushed.level)));
        let published = Published { document, digest: pushed.digest.clone(), at: now, level, migration_note };
        self.versions.insert(pushed.version, published);
        self.active = pushed.version;
        if let Some(supported) = supported {
            self.supported = supported;
        }
        self.supported.insert(pushed.version);
        while self.supported.len() > SUPPORTED_MAX {
            self.supported.pop_first();
        }
        self.forget();
        Ok(pushed)
    }

    /// Changes which versions clients may ask for, or what they are told; true if that is different now.
    pub(crate) fn support(
        &mut self,
        supported: Option<BTreeSet<ContractVersion>>,
        policy: Option<DeprecationPolicy>,
    ) -> Result<bool, Refusal> {
        let mut reasons = self.support_reasons(supported.as_ref(), self.active);
        if let Some(DeprecationPolicy { policy, notice }) = &policy {
            if !(1..=POLICY_BYTES_MAX).contains(&policy.len()) {
                reasons.push(format!("a policy has 1 to {POLICY_BYTES_MAX} bytes"));
            }
            if notice.len() > NOTICE_BYTES_MAX {
                reasons.push(format!("a notice has at most {NOTICE_BYTES_MAX} bytes"));
            }
        }
        if !reasons.is_empty() {
            return Err(Refusal { code: RefusalCode::Invalid, reasons });
        }
        let before = (self.supported.clone(), self.policy.clone());
        if let Some(supported) = supported {
            self.supported = supported;
        }
        if let Some(policy) = policy {
            self.policy = policy;
        }
        Ok(before != (self.supported.clone(), self.policy.clone()))
    }

    fn contract(&self) -> Contract {
        Contract::parse(&self.active().1.document).expect("it was parsed when it was pushed")
    }

    /// `changes` are in the order of how far they go, the farthest first.
    fn label_reasons(&self, push: &Push, level: Level, changes: &[Change]) -> Vec<String> {
        let mut reasons = Vec::new();
        match push.label {
            None if level == Level::Major => {
                let places = places(changes, level);
                reasons.push(format!("this is a major change and must be labelled as one ({places})"));
            }
            Some(label) if label < level => {
                let (label, places, level) = (word(label), places(changes, level), word(level));
                reasons.push(format!("it is labelled {label}, but it is a {level} change ({places})"));
            }
            _ => {}
        }
        let note = push.migration_note.as_deref().map(str::trim).unwrap_or_default();
        if level.max(push.label.unwrap_or(level)) == Level::Major && note.is_empty() {
            reasons.push("a major change needs a migration note".to_owned());
        }
        if note.len() > NOTE_BYTES_MAX {
            reasons.push(format!("a migration note has at most {NOTE_BYTES_MAX} bytes"));
        }
        reasons
    }

    fn version_reasons(&self, level: Level, next: ContractVersion, digest: &str) -> Vec<String> {
        let ContractVersion { major, minor, patch } = self.active;
        let mut reasons = Vec::new();
        if let Some(published) = self.versions.get(&next)
            && published.digest != digest
        {
            let there = &published.digest;
            reasons.push(format!(
                "there is a version {next} already, and it is another document ({there}, this one {digest})"
            ));
        }
        let wanted = match level {
            Level::Same => {
                reasons.push(format!("nothing is different from {}", self.active));
                return reasons;
            }
            Level::Patch => patch.checked_add(1).map(|patch| ContractVersion { major, minor, patch }),
            Level::Minor => minor.checked_add(1).map(|minor| ContractVersion { major, minor, patch: 0 }),
            Level::Major => major.checked_add(1).map(|major| ContractVersion { major, minor: 0, patch: 0 }),
        };
        match wanted {
            Some(wanted) if wanted == next => {}
            Some(wanted) => {
                let (level, active) = (word(level), self.active);
                reasons.push(format!("after {active}, a {level} change is version {wanted}, not {next}"));
            }
            None => reasons.push(format!("there is no version after {}", self.active)),
        }
        reasons
    }

    fn support_reasons(
        &self,
        supported: Option<&BTreeSet<ContractVersion>>,
        in_force: ContractVersion,
    ) -> Vec<String> {
        let Some(supported) = supported else { return Vec::new() };
        let mut reasons = Vec::new();
        if !supported.contains(&in_force) {
            reasons.push(format!("{in_force} is in force and must be supported"));
        }
        if supported.len() > SUPPORTED_MAX {
            reasons.push(format!("at most {SUPPORTED_MAX} versions can be supported"));
        }
        for version in supported {
            if *version != in_force && !self.versions.contains_key(version) {
                reasons.push(format!("there is no version {version}"));
            }
        }
        reasons
    }

    fn forget(&mut self) {
        while self.versions.len() > VERSIONS_MAX {
            let oldest = self.versions.keys().find(|version| !self.supported.contains(version)).copied();
            let Some(oldest) = oldest else { return };
            self.versions.remove(&oldest);
        }
    }
}

/// Reads a document, and makes sure that every node can compile it.
fn read(document: &str) -> Result<Contract, Refusal> {
    let invalid = |reason: String| Refusal::new(RefusalCode::Invalid, reason);
    if document.len() > CONTRACT_BYTES_MAX {
        return Err(invalid(format!("a contract has at most {CONTRACT_BYTES_MAX} bytes")));
    }
    let contract = Contract::parse(document).map_err(|error| match &error {
        contract::InvalidContract::Syntax(cause) => invalid(format!("{error}: {cause}")),
        _ => invalid(error.to_string()),
    })?;
    let messages = contract.subscriptions.iter().flat_map(|subscription| &subscription.messages);
    let faults = messages.filter_map(|message| {
        let fault = jsonschema::draft202012::new(&message.data).err()?;
        let name = &message.message_type;
        Some(format!("the data schema of message type `{name}` is not a valid JSON Schema: {fault}"))
    });
    let reasons: Vec<String> = faults.collect();
    if reasons.is_empty() { Ok(contract) } else { Err(Refusal { code: RefusalCode::Invalid, reasons }) }
}

/// The places that make a change as far as it is, for a refusal.
fn places(changes: &[Change], level: Level) -> String {
    let so_far = changes.iter().filter(|change| change.level == level);
    let mut named: Vec<String> = so_far
        .clone()
        .take(CHANGES_REFUSED_MAX)
        .map(|change| format!("{}: {}", change.path, change.what))
        .collect();
    let more = so_far.count() - named.len();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.join("; ")
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Same => "void",
        Level::Patch => "patch",
        Level::Minor => "minor",
        Level::Major => "major",
    }
}

#[cfg(test)]
mod tests;
