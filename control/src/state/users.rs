//! Users, their roles and password hashes. A change that ends credentials raises the user's generation;
//! tokens carry it, so that nodes can tell older ones without comparing clocks.

use std::collections::BTreeMap;

use hiveops_proto::Timestamp;
use hiveops_proto::access::{Role, User};
use hiveops_proto::id::UserId;
use serde::{Deserialize, Serialize};

use super::outcome::{Refusal, RefusalCode};
use super::secret::Secret;

/// How many users there can be; nobody is ever removed, so that ids keep their meaning in logs.
pub const USERS_MAX: usize = 10_000;

/// Longest email address that mail systems carry.
const EMAIL_BYTES_MAX: usize = 254;

/// Longest name for people.
const NAME_BYTES_MAX: usize = 200;

/// A user to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The name for good.
    pub id: UserId,
    /// The name to log in with; case does not matter.
    pub email: String,
    /// The name for people.
    pub full_name: String,
    /// What the user may do.
    pub role: Role,
    /// The argon2id hash in its PHC form.
    pub password_hash: Secret,
}

/// What the plane knows of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What the user may see of it.
    pub user: User,
    /// The argon2id hash in its PHC form.
    pub password_hash: Secret,
    /// Access tokens of a lower one are no longer good; their claim is called `gen`.
    pub generation: u64,
}

/// What a change of a user means for the credentials that the user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Nothing.
    Stay,
    /// Access tokens are to be made anew, with another role; the logins stay.
    Renew,
    /// The logins end.
    End,
}

/// All users.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Users {
    by_id: BTreeMap<UserId, Account>,
    /// By email in lower case.
    ids: BTreeMap<String, UserId>,
}

impl Users {
    pub(crate) fn get(&self, id: &UserId) -> Option<&Account> {
        self.by_id.get(id)
    }

    pub(crate) fn by_email(&self, email: &str) -> Option<&Account> {
        self.by_id.get(self.ids.get(&email.to_lowercase())?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Account> {
        self.by_id.values()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn account(&self, id: &UserId) -> Result<&Account, Refusal> {
        self.get(id)
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format_args!("there is no user `{id}`")))
    }

    pub(crate) fn add(&mut self, new: NewUser, now: Timestamp) -> Result<(), Refusal> {
        let email = new.email.to_lowercase();
        let conflict = |reason: String| Err(Refusal::new(RefusalCode::Conflict, reason));
        new.check()?;
        if self.by_id.contains_key(&new.id) {
            return conflict(format!("there is a user `{}` already", new.id));
        }
        if self.ids.contains_key(&email) {
            return conflict(format!("there is a user with the email `{email}` already"));
        }
        if self.by_id.len() >= USERS_MAX {
            let reason = format_args!("there are {USERS_MAX} users, and there can be no more");
            return Err(Refusal::new(RefusalCode::TooMany, reason));
        }
        let NewUser { id, full_name, role, password_hash, .. } = new;
        let user = User {
            id: id.clone(),
            email: email.clone(),
            full_name,
            role,
            is_active: true,
            created_at: now,
            last_login: None,
        };
        self.ids.insert(email, id.clone());
        self.by_id.insert(id, Account { user, password_hash, generation: 0 });
        Ok(())
    }

    pub(crate) fn set_role(&mut self, id: &UserId, role: Role) -> Result<Credentials, Refusal> {
        let account = self.account(id)?;
        if account.user.role == role {
            return Ok(Credentials::Stay);
        }
        self.keep_one_admin(id)?;
        self.change(id, |account| account.user.role = role)?;
        Ok(Credentials::Renew)
    }

    pub(crate) fn enable(&mut self, id: &UserId) -> Result<bool, Refusal> {
        let was = self.account(id)?.user.is_active;
        self.edit(id, |account| account.user.is_active = true)?;
        Ok(!was)
    }

    pub(crate) fn disable(&mut self, id: &UserId) -> Result<Credentials, Refusal> {
        if !self.account(id)?.user.is_active {
            return Ok(Credentials::Stay);
        }
        self.keep_one_admin(id)?;
        self.change(id, |account| account.user.is_active = false)?;
        Ok(Credentials::End)
    }

    pub(crate) fn set_password(&mut self, id: &UserId, hash: Secret) -> Result<Credentials, Refusal> {
        if !hash.is_sound() {
            return Err(Refusal::new(RefusalCode::Invalid, "the password hash is not one"));
        }
        self.change(id, |account| account.password_hash = hash)?;
        Ok(Credentials::End)
    }

    /// Makes all access tokens of the user old; the generation that is good now.
    pub(crate) fn renew(&mut self, id: &UserId) -> Result<u64, Refusal> {
        self.change(id, |_| {})
    }

    pub(crate) fn logged_in(&mut self, id: &UserId, now: Timestamp) -> Result<(), Refusal> {
        self.edit(id, |account| account.user.last_login = Some(now))
    }

    fn change(&mut self, id: &UserId, edit: impl FnOnce(&mut Account)) -> Result<u64, Refusal> {
        let mut generation = 0;
        self.edit(id, |account| {
            edit(account);
            account.generation += 1;
            generation = account.generation;
        })?;
        Ok(generation)
    }

    fn edit(&mut self, id: &UserId, edit: impl FnOnce(&mut Account)) -> Result<(), Refusal> {
        self.account(id)?;
        if let Some(account) = self.by_id.get_mut(id) {
            edit(account);
        }
        Ok(())
    }

    /// Refuses to take away the last one who could give it back.
    fn keep_one_admin(&self, id: &UserId) -> Result<(), Refusal> {
        let is_admin = |account: &&Account| account.user.is_active && account.user.role == Role::SuperAdmin;
        let mut admins = self.iter().filter(is_admin);
        match (admins.next(), admins.next()) {
            (Some(only), None) if &only.user.id == id => {
                let reason = format_args!("`{}` is the only active super_admin", only.user.email);
                Err(Refusal::new(RefusalCode::Conflict, reason))
            }
            _ => Ok(()),
        }
    }
}

impl NewUser {
    fn check(&self) -> Result<(), Refusal> {
        let mut reasons = Vec::new();
        if !is_email(&self.email) {
            reasons.push(format!("the email must be an address of at most {EMAIL_BYTES_MAX} bytes"));
        }
        let name = &self.full_name;
        if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            reasons.push(format!("the name must be 1 to {NAME_BYTES_MAX} bytes of text"));
        }
        if !self.password_hash.is_sound() {
            reasons.push("the password hash is not one".to_owned());
        }
        if reasons.is_empty() { Ok(()) } else { Err(Refusal { code: RefusalCode::Invalid, reasons }) }
    }
}

/// Whether a text can be somebody's email address.
pub(crate) fn is_email(text: &str) -> bool {
    let is_plain = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let has_parts = text
        .split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
    is_plain && has_parts && text.len() <= EMAIL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn new(name: &str, role: Role) -> NewUser {
        NewUser {
            id: id(name),
            email: format!("{name}@Example.org"),
            full_name: name.to_owned(),
            role,
            password_hash: Secret::new("$argon2id$…"),
        }
    }

    fn two() -> Users {
        let mut users = Users::default();
        users.add(new("ada", Role::SuperAdmin), Timestamp::default()).unwrap();
        users.add(new("bob", Role::Viewer), Timestamp::default()).unwrap();
        users
    }

    #[test]
    fn an_email_is_one_users_whatever_its_case() {
        let mut users = two();
        let twin = NewUser { email: "ADA@example.org".to_owned(), ..new("eve", Role::Viewer) };
        assert_eq!(users.add(twin, Timestamp::default()).unwrap_err().code, RefusalCode::Conflict);
        assert!(users.add(new("ada", Role::Viewer), Timestamp::default()).is_err());
        assert_eq!(users.by_email("aDa@eXample.ORG").unwrap().user.id, id("ada"));
    }

    #[test]
    fn nonsense_is_named_together() {
        let bad = NewUser {
            email: "no address".to_owned(),
            full_name: " ".to_owned(),
            password_hash: Secret::new(""),
            ..new("eve", Role::Viewer)
        };
        let refusal = two().add(bad, Timestamp::default()).unwrap_err();
        assert_eq!(refusal.reasons.len(), 3, "{refusal}");
    }

    #[test]
    fn what_ends_credentials_raises_the_generation() {
        let mut users = two();
        let bob = id("bob");
        assert_eq!(users.set_role(&bob, Role::Viewer).unwrap(), Credentials::Stay);
        assert_eq!(users.set_role(&bob, Role::Operator).unwrap(), Credentials::Renew);
        assert_eq!(users.set_password(&bob, Secret::new("$argon2id$")).unwrap(), Credentials::End);
        assert_eq!(users.disable(&bob).unwrap(), Credentials::End);
        assert_eq!(users.disable(&bob).unwrap(), Credentials::Stay);
        assert!(users.enable(&bob).unwrap());
        assert_eq!(users.get(&bob).unwrap().generation, 3);
        assert_eq!(users.disable(&id("nobody")).unwrap_err().code, RefusalCode::NotFound);
    }

    #[test]
    fn the_last_admin_stays_one() {
        let mut users = two();
        let ada = id("ada");
        assert_eq!(users.disable(&ada).unwrap_err().code, RefusalCode::Conflict);
        assert_eq!(users.set_role(&ada, Role::Viewer).unwrap_err().code, RefusalCode::Conflict);
        users.set_role(&id("bob"), Role::SuperAdmin).unwrap();
        assert!(users.disable(&ada).is_ok());
        assert!(users.disable(&id("bob")).is_err());
    }
}
