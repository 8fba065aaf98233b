//! Users, as far as only the leader can look after them: it makes ids and hashes, so that no password is in
//! the log or on the way between replicas for longer than it takes to hash it.

use hiveops_proto::access::Role;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::{IdempotencyKey, UserId};
use tokio::time::{Instant, timeout_at};

use super::ask::{Asked, Refused, Told};
use super::login::{decision, internal};
use super::service::Service;
use crate::auth::{Busy, NotHashed, Password};
use crate::config::FirstAdmin;
use crate::raft::Standing;
use crate::state::{Account, Action, NewUser, Secret, State};

/// A user to be made.
#[derive(Debug)]
pub(super) struct NewAccount {
    pub(super) email: String,
    pub(super) full_name: String,
    pub(super) role: Role,
    pub(super) password: Secret,
}

impl Service {
    pub(super) async fn add_user(
        &self,
        standing: &Standing,
        request: Option<IdempotencyKey>,
        new: NewAccount,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        let NewAccount { email, full_name, role, password } = new;
        let password_hash = self.hash(&password, deadline).await?;
        let new = NewUser { id: self.new_user_id()?, email, full_name, role, password_hash };
        let email = new.email.clone();
        let action = Action::AddUser(Box::new(new));
        self.decide(standing, request, action, decision(deadline)).await?;
        // A repeated request finds who was made the first time.
        self.told_user(|state| state.user_by_email(&email))
    }

    pub(super) async fn set_password(
        &self,
        standing: &Standing,
        request: Option<IdempotencyKey>,
        user: UserId,
        password: Secret,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        let password_hash = self.hash(&password, deadline).await?;
        let action = Action::SetPassword { user: user.clone(), password_hash };
        self.decide(standing, request, action, decision(deadline)).await?;
        self.told_user(|state| state.user(&user))
    }

    pub(super) async fn user(&self, id: &UserId, deadline: Instant) -> Result<Told, Asked> {
        self.group.catch_up(deadline).await?;
        self.told_user(|state| state.user(id))
    }

    pub(super) async fn users(&self, deadline: Instant) -> Result<Told, Asked> {
        self.group.catch_up(deadline).await?;
        Ok(Told::Users(self.plane.read(|state| state.users().map(|account| account.user.clone()).collect())))
    }

    /// Makes the first user; nothing happens if there is one.
    pub(super) async fn make_first_admin(&self, admin: &FirstAdmin) -> Result<(), Refused> {
        let refused = |asked: Asked| match asked {
            Asked::Refused(refused) => refused,
            Asked::NotLeader => Refused::new(ProblemKind::NoQuorum, "this replica does not lead any more"),
        };
        let salt = self.chance.bytes().map_err(|error| refused(internal(error)))?;
        let hashed = self.auth.hashing.hash(admin.password.clone(), salt).await;
        let new = NewUser {
            id: self.new_user_id().map_err(refused)?,
            email: admin.email.clone(),
            full_name: admin.email.clone(),
            role: Role::SuperAdmin,
            password_hash: hashed.map_err(|error| refused(not_hashed(&error)))?,
        };
        self.propose_unnamed(Action::BootstrapAdmin(Box::new(new))).await.map(|_| ())
    }

    async fn hash(&self, password: &Secret, deadline: Instant) -> Result<Secret, Asked> {
        let password = Password::new(password.reveal());
        let password = password.map_err(|error| Refused::new(ProblemKind::InvalidData, error.to_string()))?;
        let salt = self.chance.bytes().map_err(internal)?;
        let hashed = timeout_at(deadline, self.auth.hashing.hash(password, salt)).await;
        hashed.unwrap_or(Err(NotHashed::Busy(Busy))).map_err(|error| not_hashed(&error))
    }

    fn new_user_id(&self) -> Result<UserId, Asked> {
        UserId::new(&self.chance.name().to_string()).map_err(internal)
    }

    fn told_user(&self, find: impl FnOnce(&State) -> Option<&Account>) -> Result<Told, Asked> {
        let user = self.plane.read(|state| find(state).map(|account| account.user.clone()));
        let absent = || Refused::new(ProblemKind::NotFound, "there is no such user");
        Ok(Told::User(Box::new(user.ok_or_else(absent)?)))
    }
}

fn not_hashed(error: &NotHashed) -> Asked {
    let kind = match error {
        NotHashed::Busy(_) => ProblemKind::Busy,
        NotHashed::Library(_) => ProblemKind::Internal,
    };
    Refused::new(kind, error.to_string()).into()
}
