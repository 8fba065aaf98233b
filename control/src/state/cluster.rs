//! What there is once the cluster has been made, and which part of it each action concerns. The parts know
//! nothing of each other; what one change means for another part is said here.

use hiveops_proto::Timestamp;
use hiveops_proto::access::Role;
use hiveops_proto::control::{AccessView, ControlView, Revision};
use hiveops_proto::id::{ClusterId, FamilyId, TokenId, UserId};
use serde::{Deserialize, Serialize};

use super::command::{Action, Init};
use super::contract::Registry;
use super::families::{Families, NewFamily, Refreshed, no_login};
use super::keys::KeySet;
use super::leases::Leases;
use super::limits::Thresholds;
use super::outcome::{Refusal, RefusalCode, Reply};
use super::revocations::Revocations;
use super::secret::TokenHash;
use super::users::{Credentials, NewUser, Users};

/// What there is once the cluster has been made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Cluster {
    pub(super) id: ClusterId,
    /// The place in the log of the last command that changed the view.
    pub(super) revision: Revision,
    pub(super) thresholds: Thresholds,
    pub(super) registry: Registry,
    pub(super) keys: KeySet,
    pub(super) users: Users,
    pub(super) families: Families,
    pub(super) revocations: Revocations,
    pub(super) leases: Leases,
}

/// What a command changed, and what to say about it.
pub(super) struct Effect {
    pub(super) changed: Changed,
    pub(super) reply: Reply,
}

/// How far a change is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// It was like that already.
    Nothing,
    /// Only control knows.
    Inside,
    /// What nodes see is different.
    View,
}

type Decision = Result<Effect, Refusal>;

impl Cluster {
    pub(super) fn new(revision: Revision, init: Init, now: Timestamp) -> Result<Self, Refusal> {
        Ok(Self {
            id: init.cluster_id,
            revision,
            thresholds: Thresholds::new(init.limits, &init.sources)?,
            registry: Registry::new(init.contract, init.deprecation_policy, init.schema_digest, now)?,
            keys: KeySet::default(),
            users: Users::default(),
            families: Families::default(),
            revocations: Revocations::default(),
            leases: Leases::new(init.lease_ms)?,
        })
    }

    pub(super) fn view(&self, now: Timestamp) -> ControlView {
        ControlView {
            revision: self.revision,
            limits: self.thresholds.limits.clone(),
            sources: self.thresholds.sources.clone(),
            contract: self.registry.view(),
            access: AccessView {
                cluster_id: Some(self.id.clone()),
                keys: self.keys.verifying(now),
                revocations: self.revocations.view(),
            },
        }
    }

    /// Lets go of what has ended by itself; true if nodes saw it.
    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        self.families.expire(now);
        self.leases.expire(now);
        let keys = self.keys.expire(now);
        self.revocations.expire(now) || keys
    }

    /// When something that nodes see ends by itself, if nothing happens before.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.keys.next_end().into_iter().chain(self.revocations.next_end()).min()
    }

    pub(super) fn decide(&mut self, action: Action, now: Timestamp) -> Decision {
        match action {
            Action::Init(init) => self.init_again(&init),
            Action::SetLimits { patch } => {
                let changes = self.thresholds.set(&patch)?;
                self.leases.limits_changed(&self.thresholds.limits);
                Ok(Effect::view_if(!changes.is_empty(), Reply::Limits(changes)))
            }
            Action::PushContract(push) => {
                let pushed = self.registry.push(*push, now)?;
                let changed = pushed.version != pushed.previous;
                Ok(Effect::view_if(changed, Reply::Contract(Box::new(pushed))))
            }
            Action::SupportContract { versions, policy } => {
                Ok(Effect::view_if(self.registry.support(versions, policy)?, Reply::Empty))
            }
            Action::RotateKey { key, rotation, overlap } => {
                let kid = key.kid.clone();
                let sign_from = self.keys.rotate(key, rotation, overlap, now)?;
                Ok(Effect::view(Reply::Rotation { kid, sign_from }))
            }
            // The time of the command has done it already.
            Action::Tick => Ok(Effect::nothing()),
            Action::AddUser(new) => self.add_user(*new, now),
            Action::BootstrapAdmin(_) if !self.users.is_empty() => Ok(Effect::nothing()),
            Action::BootstrapAdmin(new) => self.add_user(NewUser { role: Role::SuperAdmin, ..*new }, now),
            Action::SetRole { user, role, narrows } => {
                let credentials = self.users.set_role(&user, role)?;
                match credentials {
                    Credentials::Renew if !narrows => self.end_access_tokens(&user, now),
                    credentials => self.credentials(&user, credentials, now),
                }
            }
            Action::EnableUser { user } => Ok(Effect::inside_if(self.users.enable(&user)?)),
            Action::DisableUser { user } => {
                let credentials = self.users.disable(&user)?;
                self.credentials(&user, credentials, now)
            }
            Action::SetPassword { user, password_hash } => {
                let credentials = self.users.set_password(&user, password_hash)?;
                self.credentials(&user, credentials, now)
            }
            Action::OpenFamily { family, generation } => self.open_family(family, generation, now),
            Action::RefreshFamily { family, presented, next } => self.refresh(&family, &presented, next, now),
            Action::RevokeFamily { family } => {
                let user = self.families.remove(&family).ok_or_else(|| no_login(&family))?;
                self.revoke_family(family, &user, now)?;
                Ok(Effect::view(Reply::Empty))
            }
            Action::RevokeToken { jti, user } => self.revoke_token(jti, &user, now),
            Action::RevokeUser { user } => {
                self.users.renew(&user)?;
                self.credentials(&user, Credentials::End, now)
            }
            Action::RenewLease(ask) => {
                let grant = self.leases.renew(*ask, &self.thresholds.limits, now)?;
                Ok(Effect { changed: Changed::Inside, reply: Reply::Lease(grant) })
            }
            Action::EndLease { node, incarnation } => {
                Ok(Effect::inside_if(self.leases.end(&node, incarnation)))
            }
        }
    }

    fn init_again(&self, init: &Init) -> Decision {
        if init.cluster_id == self.id {
            return Ok(Effect::nothing());
        }
        let reason = format_args!("this is cluster `{}`, not `{}`", self.id, init.cluster_id);
        Err(Refusal::new(RefusalCode::OtherCluster, reason))
    }

    fn add_user(&mut self, new: NewUser, now: Timestamp) -> Decision {
        self.users.add(new, now)?;
        Ok(Effect::inside_if(true))
    }

    /// What the change of a user means for the credentials that are out there.
    fn credentials(&mut self, user: &UserId, credentials: Credentials, now: Timestamp) -> Decision {
        let account = self.users.account(user)?;
        let (generation, role) = (account.generation, account.user.role);
        match credentials {
            Credentials::Stay => return Ok(Effect::nothing()),
            Credentials::Renew => self.revocations.role(user.clone(), generation, role, now),
            Credentials::End => {
                self.families.remove_user(user);
                self.revocations.user(user.clone(), generation, now);
            }
        }
        Ok(Effect::view(Reply::Empty))
    }

    /// What another role meant before sessions could go on with it: logins stay, access tokens and sockets do not.
    fn end_access_tokens(&mut self, user: &UserId, now: Timestamp) -> Decision {
        let generation = self.users.account(user)?.generation;
        self.revocations.user(user.clone(), generation, now);
        Ok(Effect::view(Reply::Empty))
    }

    fn open_family(&mut self, family: NewFamily, generation: u64, now: Timestamp) -> Decision {
        let user = family.user.clone();
        let account = self.users.account(&user)?;
        if !account.user.is_active || account.generation != generation {
            return Err(denied());
        }
        let evicted = self.families.open(family, now)?;
        self.users.logged_in(&user, now)?;
        match evicted {
            Some(evicted) => {
                self.revoke_family(evicted, &user, now)?;
                Ok(Effect::view(Reply::Empty))
            }
            None => Ok(Effect::inside_if(true)),
        }
    }

    fn refresh(
        &mut self,
        family: &FamilyId,
        presented: &TokenHash,
        next: TokenHash,
        now: Timestamp,
    ) -> Decision {
        let user = self.families.get(family).ok_or_else(|| no_login(family))?.user.clone();
        // A user who may not come in has no logins: disabling ended them.
        let refreshed = self.families.refresh(family, presented, next, now)?;
        let changed = match refreshed {
            Refreshed::Rotated => Changed::Inside,
            Refreshed::InGrace => Changed::Nothing,
            Refreshed::Reused => {
                self.revoke_family(family.clone(), &user, now)?;
                Changed::View
            }
        };
        Ok(Effect { changed, reply: Reply::Refreshed { user, refreshed } })
    }

    fn revoke_token(&mut self, jti: TokenId, user: &UserId, now: Timestamp) -> Decision {
        self.users.account(user)?;
        if !self.revocations.has_room() {
            self.revoke_all_tokens(user, now)?;
            return Ok(Effect::view(Reply::Empty));
        }
        Ok(Effect::view_if(self.revocations.token(jti, now), Reply::Empty))
    }

    /// Revokes the access tokens of a login that has ended.
    fn revoke_family(&mut self, family: FamilyId, user: &UserId, now: Timestamp) -> Result<(), Refusal> {
        if self.revocations.has_room() {
            self.revocations.family(family, now);
            return Ok(());
        }
        self.revoke_all_tokens(user, now)
    }

    /// When there is no room for single tokens; the user's other logins have to refresh.
    fn revoke_all_tokens(&mut self, user: &UserId, now: Timestamp) -> Result<(), Refusal> {
        let generation = self.users.renew(user)?;
        self.revocations.user(user.clone(), generation, now);
        Ok(())
    }
}

impl Effect {
    pub(super) fn nothing() -> Self {
        Self { changed: Changed::Nothing, reply: Reply::Empty }
    }

    pub(super) fn view(reply: Reply) -> Self {
        Self { changed: Changed::View, reply }
    }

    /// A change of the view, or none.
    fn view_if(changed: bool, reply: Reply) -> Self {
        Self { changed: if changed { Changed::View } else { Changed::Nothing }, reply }
    }

    /// A change that only control knows of, or none.
    fn inside_if(changed: bool) -> Self {
        Self { changed: if changed { Changed::Inside } else { Changed::Nothing }, reply: Reply::Empty }
    }
}

fn denied() -> Refusal {
    let reason = "the user may not log in, or was changed while the credentials were checked";
    Refusal::new(RefusalCode::Denied, reason)
}
