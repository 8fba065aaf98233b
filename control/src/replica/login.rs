//! Logins, as the leader decides on them: it has the throttle and the queue of hashes, it reads what a quorum
//! confirms, and what it grants is in the log first.
//!
//! A token is signed for what the state says at one moment after that: the login is there, its user may come
//! in. Whatever ends the login later raises the user's generation or revokes the login, and so ends the token.

use std::time::Duration;

use hiveops_proto::auth::{Grant, PASSWORD_BYTES_MAX, TOKEN_TYPE};
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::{FamilyId, TokenId};
use tokio::time::{Instant, timeout_at};

use super::ask::{Asked, DECISION, Refused, Told, no_quorum};
use super::service::Service;
use crate::auth::{self, Denial, DenialReason, Issue, LogoutOutcome, RefreshOutcome, RefreshToken, seed_of};
use crate::raft::Standing;
use crate::state::{Account, Action, NewFamily, Refreshed, Reply, Secret};

/// Left of the patience when a hash is there, so that a decision can follow.
const HASHED_BEFORE: Duration = DECISION;

impl Service {
    /// Checks a password and begins a login.
    pub(super) async fn log_in(
        &self,
        standing: &Standing,
        email: &str,
        password: Secret,
        address: Option<&str>,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        let denied = |denial: Denial| Ok(Told::LoggedIn(Err(denial)));
        if password.reveal().len() > PASSWORD_BYTES_MAX {
            return denied(DenialReason::PasswordTooLong.into());
        }
        if let Err(denial) = self.auth.admit(email, address, self.now(standing)) {
            return denied(denial);
        }
        self.group.catch_up(decision(deadline)).await?;
        let account = self.plane.read(|state| state.user_by_email(email).cloned());
        let checked = self.check(account, password, deadline).await;
        let account = match checked {
            Ok(account) => account,
            Err(reason) => return denied(reason.into()),
        };
        let family = FamilyId::new(&self.chance.name().to_string()).map_err(internal)?;
        let seed = seed_of(self.chance.bytes().map_err(internal)?);
        let token = RefreshToken::first(family.clone(), self.chance.bytes().map_err(internal)?, &seed);
        let Account { user, generation, .. } = account;
        let new = NewFamily { id: family, user: user.id, seed, token: token.hash() };
        let action = Action::OpenFamily { family: new, generation };
        match self.decide(standing, None, action, decision(deadline)).await {
            Ok(_) => {}
            Err(Asked::Refused(refused)) if refused.kind == ProblemKind::Forbidden => {
                return denied(DenialReason::Changed.into());
            }
            Err(asked) => return Err(asked),
        }
        match self.grant(standing, &token)? {
            Some(grant) => Ok(Told::LoggedIn(Ok(Box::new(grant)))),
            None => denied(DenialReason::Changed.into()),
        }
    }

    /// One comparison whoever it is.
    async fn check(
        &self,
        account: Option<Account>,
        password: Secret,
        deadline: Instant,
    ) -> Result<Account, DenialReason> {
        let hash = account.as_ref().map(|account| account.password_hash.clone());
        let compared = self.auth.hashing.matches(password, hash);
        let matches = match timeout_at(deadline - HASHED_BEFORE, compared).await {
            Ok(Ok(matches)) => matches,
            Ok(Err(auth::Busy)) | Err(_) => return Err(DenialReason::Busy),
        };
        match account {
            None => Err(DenialReason::UnknownUser),
            Some(account) if !account.user.is_active => Err(DenialReason::Disabled),
            Some(_) if !matches => Err(DenialReason::WrongPassword),
            Some(account) => Ok(account),
        }
    }

    /// Replaces a refresh token.
    pub(super) async fn refresh(
        &self,
        standing: &Standing,
        token: &Secret,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        let nothing = |outcome| Ok(Told::Refreshed(outcome, None));
        let Some(token) = RefreshToken::parse(token.reveal()) else {
            return nothing(RefreshOutcome::Invalid);
        };
        let Some(seed) = self.seed_for(&token, deadline).await? else {
            return nothing(RefreshOutcome::Invalid);
        };
        let next = token.successor(&seed);
        let (family, presented) = (token.family().clone(), token.hash());
        let action = Action::RefreshFamily { family, presented, next: next.hash() };
        let decided = match self.decide(standing, None, action, deadline).await {
            Ok(Told::Decided(decided)) => decided,
            Err(Asked::Refused(refused)) if refused.kind == ProblemKind::NotFound => {
                return nothing(RefreshOutcome::Invalid);
            }
            Ok(other) => return Err(internal(format!("a refresh was answered with {other:?}"))),
            Err(asked) => return Err(asked),
        };
        let outcome = match decided.reply {
            Reply::Refreshed { refreshed: Refreshed::Rotated, .. } => RefreshOutcome::Rotated,
            Reply::Refreshed { refreshed: Refreshed::InGrace, .. } => RefreshOutcome::InGrace,
            Reply::Refreshed { refreshed: Refreshed::Reused, user } => {
                // Who asked may be a thief and is told nothing; somebody has to ask the owner.
                tracing::warn!(
                    user = %user,
                    family = %token.family(),
                    "login ended, a refresh token of it was used again"
                );
                return nothing(RefreshOutcome::Reused);
            }
            other => return Err(internal(format!("a refresh was answered with {other:?}"))),
        };
        match self.grant(standing, &next)? {
            Some(grant) => Ok(Told::Refreshed(outcome, Some(Box::new(grant)))),
            None => nothing(RefreshOutcome::Invalid),
        }
    }

    /// Ends a login; it is no error when there is none.
    pub(super) async fn log_out(
        &self,
        standing: &Standing,
        family: FamilyId,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        let is_known = || self.plane.read(|state| state.family(&family).is_some());
        if !is_known() {
            self.group.catch_up(deadline).await?;
            // Whoever makes names up writes nothing into the log.
            if !is_known() {
                return Ok(Told::NotLoggedOut(LogoutOutcome::NoLogin));
            }
        }
        match self.decide(standing, None, Action::RevokeFamily { family }, deadline).await {
            Err(Asked::Refused(refused)) if refused.kind == ProblemKind::NotFound => {
                Ok(Told::NotLoggedOut(LogoutOutcome::NoLogin))
            }
            decided => decided.map(|_| Told::Done),
        }
    }

    /// The same by a refresh token. One that is none of the login's ends nothing, and is not told so.
    pub(super) async fn log_out_by(
        &self,
        standing: &Standing,
        token: &Secret,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        let Some(token) = RefreshToken::parse(token.reveal()) else {
            return Ok(Told::NotLoggedOut(LogoutOutcome::Invalid));
        };
        if self.seed_for(&token, deadline).await?.is_some() {
            return self.log_out(standing, token.family().clone(), deadline).await;
        }
        let is_there = self.plane.read(|state| state.family(token.family()).is_some());
        let why = if is_there { LogoutOutcome::Invalid } else { LogoutOutcome::NoLogin };
        Ok(Told::NotLoggedOut(why))
    }

    /// The seed of the login that a token was given out in; nothing when a quorum knows of no such login, or the
    /// token is none of it. So whoever makes tokens up, or knows only the name of a login, writes nothing into the
    /// log and ends nobody's login.
    async fn seed_for(&self, token: &RefreshToken, deadline: Instant) -> Result<Option<Secret>, Asked> {
        let known =
            || self.plane.read(|state| state.family(token.family()).map(|family| family.seed.clone()));
        let seed = match known() {
            Some(seed) => Some(seed),
            None => {
                self.group.catch_up(deadline).await?;
                known()
            }
        };
        // A login keeps its seed: what the token is not by the one that is known, it is by none.
        Ok(seed.filter(|seed| token.is_of(seed)))
    }

    /// What the owner of a refresh token gets; nothing when the login, or its user's being let in, has ended.
    fn grant(&self, standing: &Standing, token: &RefreshToken) -> Result<Option<Grant>, Asked> {
        let now = self.now(standing);
        let issue = self.plane.read(|state| {
            let account = state.user(&state.family(token.family())?.user)?;
            if !account.user.is_active {
                return None;
            }
            let signing = state.signing_key(now).map(|(kid, key)| (kid.clone(), key.private.clone()));
            Some((state.cluster_id()?.clone(), account.clone(), signing))
        });
        let Some((cluster, account, signing)) = issue else { return Ok(None) };
        let Some((kid, private)) = signing else {
            return Err(no_quorum("the cluster has no signing key yet").into());
        };
        let user = account.user.clone();
        let good_seconds = self.config.tokens.access_seconds;
        let issue = Issue { cluster, account, family: token.family().clone(), kid, private, good_seconds };
        let jti = TokenId::new(&self.chance.name().to_string()).map_err(internal)?;
        let access_token = auth::sign(&issue, jti, now).map_err(internal)?;
        Ok(Some(Grant {
            access_token,
            refresh_token: token.text(),
            token_type: TOKEN_TYPE.to_owned(),
            expires_in: good_seconds,
            user,
        }))
    }
}

/// A decision is made or refused as quickly as any other, however patient the asker is.
pub(super) fn decision(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + DECISION)
}

pub(super) fn internal(error: impl ToString) -> Asked {
    Refused::new(ProblemKind::Internal, error.to_string()).into()
}

#[cfg(test)]
mod tests;
