//! Logins. A login is a family of refresh tokens of which only the newest is good: each use replaces it,
//! and a use of one that was replaced means that it was copied, which ends the family. Only hashes are kept.

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::Timestamp;
use hiveops_proto::access::LOGIN_IDLE_MS;
use hiveops_proto::id::{FamilyId, UserId};
use serde::{Deserialize, Serialize, Serializer};

use super::expiring::Expiring;
use super::outcome::{Refusal, RefusalCode};
use super::secret::{Secret, TokenHash};

/// How long the token before the newest is still taken: requests that run in parallel, or whose answer was
/// lost, carry it in good faith.
pub const GRACE_MS: u64 = 10 * 1_000;

/// How long a login lasts without being used.
pub const IDLE_MS: u64 = LOGIN_IDLE_MS;

/// How long a login lasts at most.
pub const LOGIN_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// How many logins a user can have; the one that ends first makes room.
pub const FAMILIES_PER_USER_MAX: usize = 32;

/// How many logins there can be. It bounds the snapshot to some 30 MiB.
pub const FAMILIES_MAX: usize = 100_000;

/// A login to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewFamily {
    /// Its name; the first part of each of its refresh tokens.
    pub id: FamilyId,
    /// Whose it is.
    pub user: UserId,
    /// Random; see [`Family::seed`].
    pub seed: Secret,
    /// The first refresh token.
    pub token: TokenHash,
}

/// One login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// Whose it is.
    pub user: UserId,
    /// The key of the HMAC-SHA-256 that makes the token which replaces a presented one, so that requests that run
    /// in parallel all arrive at, and answer, the same new token; and of the mark by which the leader knows a token
    /// of the login, however old.
    pub seed: Secret,
    current: TokenHash,
    /// The token before, and when it was replaced.
    parent: Option<(TokenHash, Timestamp)>,
    /// When the login ends however it is used.
    ends: Timestamp,
}

/// What using a refresh token led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refreshed {
    /// The new token is the newest now.
    Rotated,
    /// The token was replaced a moment ago by somebody who used it at the same time; what that one got is
    /// the newest, and stays it.
    InGrace,
    /// The token was replaced long ago: somebody copied it. The login has ended.
    Reused,
}

/// All logins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Expiring<FamilyId, Family>")]
pub(crate) struct Families {
    families: Expiring<FamilyId, Family>,
    /// Not written, because it follows from the families.
    by_user: BTreeMap<UserId, BTreeSet<FamilyId>>,
}

impl Families {
    pub(crate) fn get(&self, family: &FamilyId) -> Option<&Family> {
        self.families.get(family)
    }

    /// Begins a login; the older one that made room for it, if one had to.
    pub(crate) fn open(&mut self, new: NewFamily, now: Timestamp) -> Result<Option<FamilyId>, Refusal> {
        let NewFamily { id, user, seed, token } = new;
        if !seed.is_sound() {
            return Err(Refusal::new(RefusalCode::Invalid, "the seed of the login is not one"));
        }
        if self.families.get(&id).is_some() {
            let reason = format_args!("there is a login `{id}` already");
            return Err(Refusal::new(RefusalCode::Conflict, reason));
        }
        let has_max = self.by_user.get(&user).is_some_and(|of| of.len() >= FAMILIES_PER_USER_MAX);
        let evicted = if has_max { self.first_to_end(&user) } else { None };
        if evicted.is_none() && self.families.len() >= FAMILIES_MAX {
            let reason = format_args!("there are {FAMILIES_MAX} logins, and there can be no more");
            return Err(Refusal::new(RefusalCode::TooMany, reason));
        }
        if let Some(evicted) = &evicted {
            self.remove(evicted);
        }
        self.by_user.entry(user.clone()).or_default().insert(id.clone());
        let family = Family { user, seed, current: token, parent: None, ends: now.plus_millis(LOGIN_MS) };
        self.families.insert(id, family, now.plus_millis(IDLE_MS));
        Ok(evicted)
    }

    /// Uses a refresh token.
    pub(crate) fn refresh(
        &mut self,
        id: &FamilyId,
        presented: &TokenHash,
        next: TokenHash,
        now: Timestamp,
    ) -> Result<Refreshed, Refusal> {
        let Some(family) = self.families.get(id) else { return Err(no_login(id)) };
        if &family.current == presented {
            let mut family = family.clone();
            family.parent = Some((std::mem::replace(&mut family.current, next), now));
            let until = now.plus_millis(IDLE_MS).min(family.ends);
            self.families.insert(id.clone(), family, until);
            return Ok(Refreshed::Rotated);
        }
        match &family.parent {
            Some((parent, replaced)) if parent == presented && now <= replaced.plus_millis(GRACE_MS) => {
                Ok(Refreshed::InGrace)
            }
            // An older token. One that never was has no business here: the leader tells the two apart by the mark
            // of the token, of which there is only the hash here.
            _ => {
                self.remove(id);
                Ok(Refreshed::Reused)
            }
        }
    }

    /// Ends a login; whose it was, if there was one.
    pub(crate) fn remove(&mut self, id: &FamilyId) -> Option<UserId> {
        let family = self.families.remove(id)?;
        self.unlist(id, &family.user);
        Some(family.user)
    }

    /// Ends all logins of a user.
    pub(crate) fn remove_user(&mut self, user: &UserId) {
        for id in self.by_user.remove(user).unwrap_or_default() {
            self.families.remove(&id);
        }
    }

    pub(crate) fn expire(&mut self, now: Timestamp) {
        for (id, family) in self.families.expire(now) {
            self.unlist(&id, &family.user);
        }
    }

    fn first_to_end(&self, user: &UserId) -> Option<FamilyId> {
        let ids = self.by_user.get(user)?;
        ids.iter().min_by_key(|id| (self.families.until(id), *id)).cloned()
    }

    fn unlist(&mut self, id: &FamilyId, user: &UserId) {
        if let Some(ids) = self.by_user.get_mut(user) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_user.remove(user);
            }
        }
    }
}

impl From<Expiring<FamilyId, Family>> for Families {
    fn from(families: Expiring<FamilyId, Family>) -> Self {
        let mut by_user: BTreeMap<UserId, BTreeSet<FamilyId>> = BTreeMap::new();
        for (id, family, _) in families.iter() {
            by_user.entry(family.user.clone()).or_default().insert(id.clone());
        }
        Self { families, by_user }
    }
}

impl Serialize for Families {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.families.serialize(serializer)
    }
}

pub(crate) fn no_login(id: &FamilyId) -> Refusal {
    Refusal::new(RefusalCode::NotFound, format_args!("there is no login `{id}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::default().plus_millis(ms)
    }

    fn id(name: &str) -> FamilyId {
        FamilyId::new(name).unwrap()
    }

    fn ada() -> UserId {
        UserId::new("ada").unwrap()
    }

    fn hash(number: u64) -> TokenHash {
        TokenHash::try_from(format!("{number:064x}")).unwrap()
    }

    fn new(name: &str) -> NewFamily {
        NewFamily { id: id(name), user: ada(), seed: Secret::new("seed"), token: hash(0) }
    }

    fn one() -> Families {
        let mut families = Families::default();
        families.open(new("f"), at(0)).unwrap();
        families
    }

    #[test]
    fn each_use_replaces_the_token() {
        let mut families = one();
        for number in 0..5 {
            let refreshed = families.refresh(&id("f"), &hash(number), hash(number + 1), at(number));
            assert_eq!(refreshed.unwrap(), Refreshed::Rotated);
        }
    }

    #[test]
    fn fifty_at_once_make_one_lineage() {
        let mut families = one();
        let mut seen = Vec::new();
        for number in 0..50 {
            seen.push(families.refresh(&id("f"), &hash(0), hash(100 + number), at(number)).unwrap());
        }
        assert_eq!(seen.iter().filter(|refreshed| **refreshed == Refreshed::Rotated).count(), 1);
        assert!(seen[1..].iter().all(|refreshed| *refreshed == Refreshed::InGrace));
        assert_eq!(families.refresh(&id("f"), &hash(100), hash(7), at(60)).unwrap(), Refreshed::Rotated);
    }

    #[test]
    fn an_old_token_ends_the_family() {
        for (presented, ms) in [(0, 2 + GRACE_MS), (0, 3), (99, 3)] {
            let mut families = one();
            families.refresh(&id("f"), &hash(0), hash(1), at(1)).unwrap();
            if ms == 3 {
                families.refresh(&id("f"), &hash(1), hash(2), at(2)).unwrap();
            }
            let refreshed = families.refresh(&id("f"), &hash(presented), hash(5), at(ms)).unwrap();
            assert_eq!(refreshed, Refreshed::Reused, "{presented} at {ms}");
            assert!(families.get(&id("f")).is_none());
            assert_eq!(
                families.refresh(&id("f"), &hash(1), hash(6), at(ms)).unwrap_err().code,
                RefusalCode::NotFound
            );
        }
    }

    #[test]
    fn the_grace_includes_its_last_millisecond() {
        let mut families = one();
        families.refresh(&id("f"), &hash(0), hash(1), at(1)).unwrap();
        assert_eq!(
            families.refresh(&id("f"), &hash(0), hash(2), at(1 + GRACE_MS)).unwrap(),
            Refreshed::InGrace
        );
    }

    #[test]
    fn a_login_ends_when_it_is_not_used_and_at_the_latest_after_thirty_days() {
        let mut families = one();
        families.refresh(&id("f"), &hash(0), hash(1), at(IDLE_MS - 1)).unwrap();
        families.expire(at(IDLE_MS));
        for (number, day) in (8..30).step_by(5).enumerate() {
            let number = number as u64 + 1;
            let now = at(day * 24 * 3_600 * 1_000);
            families.expire(now);
            families.refresh(&id("f"), &hash(number), hash(number + 1), now).unwrap();
        }
        families.expire(at(LOGIN_MS - 1));
        assert!(families.get(&id("f")).is_some());
        families.expire(at(LOGIN_MS));
        assert_eq!(families, Families::default());
    }

    #[test]
    fn a_user_with_too_many_logins_loses_the_one_that_ends_first() {
        let mut families = one();
        for number in 1..FAMILIES_PER_USER_MAX as u64 {
            let made = families.open(new(&format!("f{number}")), at(number)).unwrap();
            assert_eq!(made, None);
        }
        assert_eq!(families.open(new("late"), at(99)).unwrap(), Some(id("f")));
        families.remove_user(&ada());
        assert_eq!(families, Families::default());
    }
}
