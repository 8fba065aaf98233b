//! Credentials that ended before their time. Each is kept until what it revokes has expired by itself, so
//! the list stays short; nodes get it whole.

use hiveops_proto::Timestamp;
use hiveops_proto::access::{
    ACCESS_TOKEN_MS, ChangedRole, Revocation, RevokedSubject, Role, TOKEN_LEEWAY_MS,
};
use hiveops_proto::id::{FamilyId, TokenId, UserId};
use serde::{Deserialize, Serialize};

use super::expiring::Expiring;

/// How long a revocation matters: the longest that a token issued just now is taken, and the leeway once
/// more for the clock of the replica that issued it.
pub const REVOKED_MS: u64 = ACCESS_TOKEN_MS + 2 * TOKEN_LEEWAY_MS;

/// How many single tokens and logins may be revoked at once. Beyond it all tokens of the user are, which
/// needs one entry per user and costs the user's other logins a refresh.
pub const SINGLE_MAX: usize = 10_000;

/// What is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revocations {
    tokens: Expiring<TokenId, ()>,
    families: Expiring<FamilyId, ()>,
    users: Expiring<UserId, u64>,
    /// Of those users of whom nothing but the role has changed.
    #[serde(default)]
    roles: Expiring<UserId, ChangedRole>,
}

impl Revocations {
    /// Whether there is room for another token or login.
    pub(crate) fn has_room(&self) -> bool {
        self.tokens.len() + self.families.len() < SINGLE_MAX
    }

    /// True if the token was not revoked before.
    pub(crate) fn token(&mut self, jti: TokenId, now: Timestamp) -> bool {
        let is_new = self.tokens.get(&jti).is_none();
        self.tokens.insert(jti, (), now.plus_millis(REVOKED_MS));
        is_new
    }

    pub(crate) fn family(&mut self, family: FamilyId, now: Timestamp) {
        self.families.insert(family, (), now.plus_millis(REVOKED_MS));
    }

    pub(crate) fn user(&mut self, user: UserId, below_generation: u64, now: Timestamp) {
        self.roles.remove(&user);
        self.users.insert(user, below_generation, now.plus_millis(REVOKED_MS));
    }

    /// Access tokens have to be made anew, but whoever has one of just before has lost no more than the role.
    pub(crate) fn role(&mut self, user: UserId, below_generation: u64, role: Role, now: Timestamp) {
        // One role after the other is still nothing but the role.
        let since_generation = match self.roles.get(&user) {
            Some(changed) => changed.since_generation,
            None => below_generation.saturating_sub(1),
        };
        let until = now.plus_millis(REVOKED_MS);
        self.roles.insert(user.clone(), ChangedRole { role, since_generation }, until);
        self.users.insert(user, below_generation, until);
    }

    /// Forgets what has expired by itself; true if there was any.
    pub(crate) fn expire(&mut self, now: Timestamp) -> bool {
        let tokens = self.tokens.expire(now).len();
        self.roles.expire(now);
        tokens + self.families.expire(now).len() + self.users.expire(now).len() > 0
    }

    /// When the next one can be forgotten.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        let ends = [self.tokens.first_end(), self.families.first_end(), self.users.first_end()];
        ends.into_iter().flatten().min()
    }

    pub(crate) fn view(&self) -> Vec<Revocation> {
        let tokens = self.tokens.iter().map(|(jti, (), until)| Revocation {
            subject: RevokedSubject::Token { jti: jti.clone() },
            until,
        });
        let families = self.families.iter().map(|(family, (), until)| Revocation {
            subject: RevokedSubject::Family { family: family.clone() },
            until,
        });
        let users = self.users.iter().map(|(user, below, until)| Revocation {
            subject: RevokedSubject::User {
                user: user.clone(),
                below_generation: *below,
                changed_role: self.roles.get(user).cloned(),
            },
            until,
        });
        tokens.chain(families).chain(users).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_ends_when_nothing_it_revokes_can_be_good() {
        let mut revocations = Revocations::default();
        let start = Timestamp::from_millis(5);
        revocations.token(TokenId::new("j1").unwrap(), start);
        revocations.user(UserId::new("u1").unwrap(), 3, start.plus_millis(1));
        assert!(!revocations.expire(start.plus_millis(REVOKED_MS - 1)));
        assert!(revocations.expire(start.plus_millis(REVOKED_MS)));
        let left = revocations.view();
        assert_eq!(left.len(), 1);
        assert!(matches!(left[0].subject, RevokedSubject::User { below_generation: 3, .. }));
    }
}
