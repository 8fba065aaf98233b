//! The keys that sign access tokens. A rotation publishes the new key, waits until every node has it,
//! signs with it, and retires the old one when the last token that it signed has expired: at no time is a
//! valid token refused.

use std::collections::BTreeMap;

use hiveops_proto::Timestamp;
use hiveops_proto::access::{ACCESS_TOKEN_MS, KEY_PUBLISH_WAIT_MS, TOKEN_LEEWAY_MS, VerifyingKey};
use hiveops_proto::id::KeyId;
use serde::{Deserialize, Serialize};

use super::outcome::{Refusal, RefusalCode};
use super::secret::Secret;

/// From publishing a key to signing with it, unless somebody wants it otherwise: within this time every node
/// that is not cut off has seen it, also when a new leader's clock is ahead of the last one's by as much as the
/// leeway allows.
pub const PUBLISH_WAIT_MS: u64 = KEY_PUBLISH_WAIT_MS;

/// From the last signature of a key to its end, unless somebody wants it otherwise: what it signed has expired, also for a node whose clock is
/// behind by as much as the leeway allows, and another such time for clocks of replicas.
pub const RETIRE_WAIT_MS: u64 = ACCESS_TOKEN_MS + 2 * TOKEN_LEEWAY_MS;

/// How many keys there can be at once: a rotation every [`PUBLISH_WAIT_MS`] needs more than a dozen of them
/// until the first is retired, and nobody rotates like that.
pub const KEYS_MAX: usize = 8;

/// How long the steps of a rotation take. It travels in the command, so that replicas that were told something
/// else decide alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlap {
    /// From publishing the new key to signing with it.
    pub publish_ms: u64,
    /// From the last signature of the old one to its end.
    pub retire_ms: u64,
}

impl Default for Overlap {
    fn default() -> Self {
        Self { publish_ms: PUBLISH_WAIT_MS, retire_ms: RETIRE_WAIT_MS }
    }
}

impl Overlap {
    /// Not written then, so that a replica of before there was a choice reads the command.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A key pair made outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its name.
    pub kid: KeyId,
    /// The private key in whatever text form the signer reads.
    pub private: Secret,
    /// The public key, base64url without padding.
    pub x: String,
}

/// How a key takes the place of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// With an overlap: no valid token is refused.
    Overlapping,
    /// At once, because an old key is in the wrong hands: everything signed so far is refused.
    Urgent,
}

/// A key that signs, is about to, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// The private key.
    pub private: Secret,
    /// The public key.
    pub x: String,
    /// When it was published.
    pub not_before: Timestamp,
    /// When it begins to sign.
    pub sign_from: Timestamp,
    /// When nothing that it signed is good any more.
    pub retire_after: Option<Timestamp>,
}

/// How far a key has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Nodes know it, and nothing is signed with it yet.
    Published,
    /// It signs.
    Signing,
    /// It signs no more; what it signed is good until it is retired.
    Retiring,
}

/// The public part of a key, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Its name.
    pub kid: KeyId,
    /// The public key.
    pub x: String,
    /// How far it has come.
    pub state: KeyState,
    /// When it was published.
    pub not_before: Timestamp,
    /// When it begins to sign, or began.
    pub sign_from: Timestamp,
    /// When nothing that it signed is good any more; open until another key is to take its place.
    pub retire_after: Option<Timestamp>,
}

/// All keys that have not been retired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct KeySet(BTreeMap<KeyId, SigningKey>);

impl KeySet {
    /// Publishes a key and lets it take over; when it begins to sign.
    pub(crate) fn rotate(
        &mut self,
        new: NewKey,
        rotation: Rotation,
        overlap: Overlap,
        now: Timestamp,
    ) -> Result<Timestamp, Refusal> {
        if !new.private.is_sound() || !is_public_key(&new.x) {
            return Err(Refusal::new(RefusalCode::Invalid, "the key is not an Ed25519 key pair"));
        }
        if self.0.contains_key(&new.kid) {
            let reason = format_args!("there is a key `{}` already", new.kid);
            return Err(Refusal::new(RefusalCode::Conflict, reason));
        }
        if rotation == Rotation::Urgent {
            self.0.clear();
        } else if let Some(pending) = self.0.values().find(|key| key.sign_from > now) {
            let reason = format_args!("a rotation is under way until {}", pending.sign_from);
            return Err(Refusal::new(RefusalCode::Conflict, reason));
        } else if self.0.len() >= KEYS_MAX {
            let reason = format_args!("there are {KEYS_MAX} keys; wait until one is retired");
            return Err(Refusal::new(RefusalCode::TooMany, reason));
        }
        let sign_from = if self.0.is_empty() { now } else { now.plus_millis(overlap.publish_ms) };
        let retire_after = sign_from.plus_millis(overlap.retire_ms);
        for key in self.0.values_mut().filter(|key| key.retire_after.is_none()) {
            key.retire_after = Some(retire_after);
        }
        let NewKey { kid, private, x } = new;
        self.0.insert(kid, SigningKey { private, x, not_before: now, sign_from, retire_after: None });
        Ok(sign_from)
    }

    /// The key to sign with.
    pub(crate) fn signing(&self, now: Timestamp) -> Option<(&KeyId, &SigningKey)> {
        let ready = self.0.iter().filter(|(_, key)| key.sign_from <= now);
        ready.max_by_key(|(kid, key)| (key.sign_from, *kid))
    }

    /// The public keys whose signatures are good, oldest first.
    pub(crate) fn verifying(&self, now: Timestamp) -> Vec<VerifyingKey> {
        let good = self.0.iter().filter(|(_, key)| key.retire_after.is_none_or(|end| end > now));
        let mut keys: Vec<VerifyingKey> = good
            .map(|(kid, key)| VerifyingKey {
                kid: kid.clone(),
                x: key.x.clone(),
                not_before: key.not_before,
                retire_after: key.retire_after,
            })
            .collect();
        keys.sort_by(|a, b| (a.not_before, &a.kid).cmp(&(b.not_before, &b.kid)));
        keys
    }

    /// What people may see of the keys, oldest first.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<PublicKey> {
        let signing = self.signing(now).map(|(kid, _)| kid.clone());
        let listed = self.verifying(now).into_iter().filter_map(|key| {
            let VerifyingKey { kid, x, not_before, retire_after } = key;
            let sign_from = self.0.get(&kid)?.sign_from;
            let state = match sign_from > now {
                true => KeyState::Published,
                false if signing.as_ref() == Some(&kid) => KeyState::Signing,
                false => KeyState::Retiring,
            };
            Some(PublicKey { kid, x, state, not_before, sign_from, retire_after })
        });
        listed.collect()
    }

    /// When the next key is retired, if one is to be.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|key| key.retire_after).min()
    }

    /// Forgets retired keys; true if there were any.
    pub(crate) fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.0.len();
        self.0.retain(|_, key| key.retire_after.is_none_or(|end| end > now));
        before != self.0.len()
    }
}

/// 32 bytes are 43 characters of base64url.
fn is_public_key(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000).plus_millis(ms)
    }

    fn key(number: usize) -> NewKey {
        let kid = KeyId::new(&format!("k{number}")).unwrap();
        NewKey { kid, private: Secret::new("private"), x: "A".repeat(43) }
    }

    fn signer(keys: &KeySet, ms: u64) -> String {
        keys.signing(at(ms)).unwrap().0.to_string()
    }

    #[test]
    fn the_first_key_signs_at_once_and_the_next_after_the_wait() {
        let mut keys = KeySet::default();
        assert!(keys.signing(at(0)).is_none());
        assert_eq!(keys.rotate(key(1), Rotation::Overlapping, Overlap::default(), at(0)).unwrap(), at(0));
        let from = keys.rotate(key(2), Rotation::Overlapping, Overlap::default(), at(10)).unwrap();
        assert_eq!(from, at(10 + PUBLISH_WAIT_MS));
        assert_eq!(signer(&keys, 9 + PUBLISH_WAIT_MS), "k1");
        assert_eq!(signer(&keys, 10 + PUBLISH_WAIT_MS), "k2");
        let end = 10 + PUBLISH_WAIT_MS + RETIRE_WAIT_MS;
        assert_eq!(keys.verifying(at(end - 1)).len(), 2);
        assert!(keys.expire(at(end)));
        assert_eq!(keys.verifying(at(end))[0].kid.as_str(), "k2");
    }

    #[test]
    fn a_key_is_published_then_signs_then_retires() {
        let mut keys = KeySet::default();
        keys.rotate(key(1), Rotation::Overlapping, Overlap::default(), at(0)).unwrap();
        assert_eq!(keys.next_end(), None, "the only key has no end");
        keys.rotate(key(2), Rotation::Overlapping, Overlap::default(), at(10)).unwrap();
        let states = |ms| -> Vec<KeyState> { keys.list(at(ms)).iter().map(|key| key.state).collect() };
        assert_eq!(states(9 + PUBLISH_WAIT_MS), [KeyState::Signing, KeyState::Published]);
        assert_eq!(states(10 + PUBLISH_WAIT_MS), [KeyState::Retiring, KeyState::Signing]);
        let end = 10 + PUBLISH_WAIT_MS + RETIRE_WAIT_MS;
        assert_eq!(states(end), [KeyState::Signing]);
        assert_eq!(keys.next_end(), Some(at(end)));
    }

    #[test]
    fn the_steps_take_as_long_as_the_command_says() {
        let mut keys = KeySet::default();
        let overlap = Overlap { publish_ms: 7, retire_ms: 20 };
        keys.rotate(key(1), Rotation::Overlapping, overlap, at(0)).unwrap();
        assert_eq!(keys.rotate(key(2), Rotation::Overlapping, overlap, at(10)).unwrap(), at(17));
        assert_eq!((signer(&keys, 16), signer(&keys, 17)), ("k1".to_owned(), "k2".to_owned()));
        assert_eq!((keys.verifying(at(36)).len(), keys.verifying(at(37)).len()), (2, 1));
    }

    #[test]
    fn one_rotation_at_a_time_and_not_too_many_keys() {
        let mut keys = KeySet::default();
        keys.rotate(key(0), Rotation::Overlapping, Overlap::default(), at(0)).unwrap();
        keys.rotate(key(1), Rotation::Overlapping, Overlap::default(), at(0)).unwrap();
        let refusal = keys.rotate(key(2), Rotation::Overlapping, Overlap::default(), at(1)).unwrap_err();
        assert!(refusal.to_string().contains("a rotation is under way until"), "{refusal}");
        for number in 2..KEYS_MAX {
            keys.rotate(
                key(number),
                Rotation::Overlapping,
                Overlap::default(),
                at(number as u64 * PUBLISH_WAIT_MS),
            )
            .unwrap();
        }
        let now = at(KEYS_MAX as u64 * PUBLISH_WAIT_MS);
        assert_eq!(
            keys.rotate(key(99), Rotation::Overlapping, Overlap::default(), now).unwrap_err().code,
            RefusalCode::TooMany
        );
        assert_eq!(
            keys.rotate(key(1), Rotation::Overlapping, Overlap::default(), now).unwrap_err().code,
            RefusalCode::Conflict
        );
    }

    #[test]
    fn an_urgent_rotation_leaves_nothing_of_the_old_keys() {
        let mut keys = KeySet::default();
        keys.rotate(key(1), Rotation::Overlapping, Overlap::default(), at(0)).unwrap();
        keys.rotate(key(2), Rotation::Overlapping, Overlap::default(), at(0)).unwrap();
        keys.rotate(key(3), Rotation::Urgent, Overlap::default(), at(1)).unwrap();
        assert_eq!(signer(&keys, 1), "k3");
        assert_eq!(keys.verifying(at(1)).len(), 1);
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let bad = NewKey { x: "A".repeat(42), ..key(1) };
        let refusal =
            KeySet::default().rotate(bad, Rotation::Overlapping, Overlap::default(), at(0)).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Invalid);
    }

    /// 0 to `max`, and often one of the two.
    fn edges(max: u64) -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(max), 0..=max]
    }

    proptest! {
        // Cheap, and what matters are seconds within minutes.
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        /// Nodes see a view late, by less than the wait, and their clocks are off by up to the leeway.
        #[test]
        fn no_valid_token_is_refused_during_rotations(
            waits in prop::collection::vec(0_u64..3 * PUBLISH_WAIT_MS, 1..12),
            issued in 0_u64..20 * PUBLISH_WAIT_MS,
            age in prop_oneof![
                0..=PUBLISH_WAIT_MS,
                0..=ACCESS_TOKEN_MS + TOKEN_LEEWAY_MS,
                ACCESS_TOKEN_MS..=ACCESS_TOKEN_MS + TOKEN_LEEWAY_MS,
            ],
            lag in 0_u64..PUBLISH_WAIT_MS,
            skew in 0_u64..=TOKEN_LEEWAY_MS,
        ) {
            // The states of the key set, each from a time on.
            let mut keys = KeySet::default();
            keys.rotate(key(0), Rotation::Overlapping, Overlap::default(), at(0)).unwrap();
            let mut history = vec![(0, keys.clone())];
            let mut now = 0;
            for (number, wait) in waits.into_iter().enumerate() {
                now += wait;
                keys.expire(at(now));
                // One that comes too early is refused, and nothing changes.
                let _ = keys.rotate(key(number + 1), Rotation::Overlapping, Overlap::default(), at(now));
                history.push((now, keys.clone()));
            }
            let as_of = |ms: u64| &history.iter().rev().find(|(from, _)| *from <= ms).unwrap().1;
            let kid = as_of(issued).signing(at(issued)).unwrap().0.clone();
            let presented = issued + age;
            let seen = as_of(presented.saturating_sub(lag));
            for node_clock in [presented + skew, presented.saturating_sub(skew)] {
                let good = seen.verifying(at(node_clock));
                prop_assert!(good.iter().any(|key| key.kid == kid), "{kid} is not among {good:?}");
            }
        }

        /// The same when leaders follow each other and no two clocks, of leaders or nodes, differ by more than
        /// the leeway. What is left of the wait is what a node may be behind.
        #[test]
        fn no_valid_token_is_refused_when_leaders_with_other_clocks_take_over(
            leads in prop::collection::vec((0_u64..3 * PUBLISH_WAIT_MS, edges(TOKEN_LEEWAY_MS), any::<bool>()), 1..16),
            near in any::<prop::sample::Index>(),
            after in 0_u64..2 * PUBLISH_WAIT_MS,
            age in prop_oneof![edges(TOKEN_LEEWAY_MS), ACCESS_TOKEN_MS..=ACCESS_TOKEN_MS + 2 * TOKEN_LEEWAY_MS],
            lag in edges(PUBLISH_WAIT_MS - TOKEN_LEEWAY_MS - 1),
            node_ahead in edges(TOKEN_LEEWAY_MS),
        ) {
            // By real time: from when on a leader's clock runs from what, and the keys then.
            let mut keys = KeySet::default();
            keys.rotate(key(0), Rotation::Overlapping, Overlap::default(), at(0)).unwrap();
            let mut history = vec![(0, 0, keys.clone())];
            let (mut real, mut reached) = (0, 0);
            for (number, (wait, ahead, rotates)) in leads.into_iter().enumerate() {
                real += wait;
                // As the clock of a term does: on from what earlier commands carried.
                reached = u64::max(real + ahead, reached);
                keys.expire(at(reached));
                if rotates {
                    let _ = keys.rotate(key(number + 1), Rotation::Overlapping, Overlap::default(), at(reached));
                }
                history.push((real, reached, keys.clone()));
            }
            // Tokens are most in danger soon after somebody took over.
            let issued = history[near.index(history.len())].0 + after;
            let led = |ms: u64| history.iter().rev().find(|(from, ..)| *from <= ms).unwrap();
            let plane = |ms: u64| { let (from, clock, _) = led(ms); clock + (ms - from) };
            let kid = led(issued).2.signing(at(plane(issued))).unwrap().0.clone();
            let presented = issued + age;
            let node = presented + node_ahead;
            if node < plane(issued) + ACCESS_TOKEN_MS + TOKEN_LEEWAY_MS {
                let seen = presented.saturating_sub(lag);
                let mut view = led(seen).2.clone();
                view.expire(at(plane(seen)));
                let good = view.verifying(at(node));
                prop_assert!(good.iter().any(|key| key.kid == kid), "{kid} is not among {good:?}");
            }
        }
    }
}
