//! A replica that is its whole cluster, asked as the API asks it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use hiveops_proto::access::{AccessClaims, ChangedRole, RevokedSubject, Role, User};
use hiveops_proto::control::{DeprecationPolicy, Revision};
use hiveops_proto::id::{ClusterId, UserId};
use hiveops_proto::{Contract, Limits, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::chance::Chance;
use crate::clock::Wall;
use crate::config::{Config, FirstAdmin, Password, Start, TokenTimes};
use crate::raft::Group;
use crate::replica::ask::Ask;
use crate::replica::plane::Plane;
use crate::replica::service::Outside;
use crate::replica::take_part;
use crate::state::{Command, Init, LEASE_MS, NewUser, Outcome, State};
use crate::storage::Directory;
use crate::wire::Link;

const PASSWORD: &str = "correct horse";

struct Alone {
    service: Service,
    _directory: TempDir,
}

impl Alone {
    async fn new() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
        let address = "127.0.0.1:7100";
        let admin =
            FirstAdmin { email: "ada@example.org".to_owned(), password: Password::new(PASSWORD).unwrap() };
        let config = Config {
            id: 1,
            // Nobody listens: a replica that is alone says nothing to others.
            listen: address.parse().unwrap(),
            peers: format!("1={address}").parse().unwrap(),
            routes: None,
            data_dir: kept.path().to_owned(),
            snapshot_entries: 1_000,
            tokens: TokenTimes::default(),
            secret: None,
            first_admin: Some(admin),
            start: Start::new(Limits::default(), BTreeMap::new(), &contract),
        };
        let directory = Directory::open(kept.path(), 1).unwrap();
        let link = Link::new(&config, None).unwrap();
        let plane = Plane::new();
        let machine = Box::new(plane.clone());
        let group = Group::open(1, directory.path(), machine, link.clone(), 1_000).await.unwrap();
        let outside = Outside { chance: Chance::System, wall: Wall::System };
        let service = Service::new(config, address.to_owned(), group, plane, link, directory, outside);
        Self { service, _directory: kept }
    }

    /// Does the work while the replica takes part.
    async fn run(&self, work: impl Future<Output = ()>) {
        tokio::select! {
            ended = take_part(&self.service) => panic!("the replica has ended: {ended:?}"),
            () = work => {}
        }
    }

    async fn ask(&self, ask: Ask) -> Told {
        self.service.ask(ask).await.unwrap()
    }

    async fn log_in(&self, email: &str, password: &str) -> Result<Grant, DenialReason> {
        let (email, password) = (email.to_owned(), Secret::new(password));
        match self.ask(Ask::Login { email, password, address: None }).await {
            Told::LoggedIn(told) => told.map(|grant| *grant).map_err(|denial| denial.reason),
            other => panic!("a login was answered with {other:?}"),
        }
    }

    async fn refresh(&self, token: &str) -> (RefreshOutcome, Option<Grant>) {
        match self.ask(Ask::Refresh { token: Secret::new(token) }).await {
            Told::Refreshed(outcome, grant) => (outcome, grant.map(|grant| *grant)),
            other => panic!("a refresh was answered with {other:?}"),
        }
    }

    async fn log_out(&self, ask: Ask) -> LogoutOutcome {
        match self.ask(ask).await {
            Told::Done => LogoutOutcome::Ended,
            Told::NotLoggedOut(why) => why,
            other => panic!("a logout was answered with {other:?}"),
        }
    }

    async fn add(&self, email: &str) -> UserId {
        let (email, password) = (email.to_owned(), Secret::new(PASSWORD));
        let add = Ask::AddUser {
            request: None,
            email,
            full_name: "Somebody".to_owned(),
            role: Role::Viewer,
            password,
        };
        match self.ask(add).await {
            Told::User(user) => user.id.clone(),
            other => panic!("a new user was answered with {other:?}"),
        }
    }

    /// Waits for the user that the replica was told of.
    async fn ada(&self) -> User {
        let mut changes = self.service.group.changes();
        loop {
            let ada = self.service.plane.read(|state| state.users().next().map(|ada| ada.user.clone()));
            match ada {
                Some(ada) => return ada,
                None => changes.next().await,
            }
        }
    }

    fn revoked(&self) -> Vec<RevokedSubject> {
        let view = self.service.plane.read(|state| state.view()).unwrap();
        view.access.revocations.into_iter().map(|revocation| revocation.subject).collect()
    }

    fn entries(&self) -> u64 {
        self.service.plane.read(|state| state.applied().index)
    }
}

fn claims(grant: &Grant) -> AccessClaims {
    let payload = grant.access_token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn whoever_logs_in_costs_one_comparison_and_only_the_right_password_opens() {
    let alone = Alone::new().await;
    alone
        .run(async {
            let ada = alone.ada().await;
            assert_eq!(ada.role, Role::SuperAdmin);
            let compared = || alone.service.auth.hashing.comparisons();
            let grant = alone.log_in("ADA@example.org", PASSWORD).await.unwrap();
            assert_eq!((compared(), &grant.user.id), (1, &ada.id));
            assert!(grant.user.last_login.is_some());
            let claims = claims(&grant);
            assert_eq!((claims.sub, claims.role, claims.generation), (ada.id, Role::SuperAdmin, 0));
            assert_eq!(claims.exp - claims.iat, grant.expires_in);
            let denied = alone.log_in("ada@example.org", "wrong horse").await.unwrap_err();
            assert_eq!((denied, compared()), (DenialReason::WrongPassword, 2));
            let denied = alone.log_in("eve@example.org", PASSWORD).await.unwrap_err();
            assert_eq!((denied, compared()), (DenialReason::UnknownUser, 3));
            let bob = alone.add("bob@example.org").await;
            alone.service.propose(None, Action::DisableUser { user: bob.clone() }).await.unwrap();
            let denied = alone.log_in("bob@example.org", PASSWORD).await.unwrap_err();
            assert_eq!((denied, compared()), (DenialReason::Disabled, 4));
            let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
            let denied = alone.log_in("ada@example.org", &long).await.unwrap_err();
            assert_eq!((denied, compared()), (DenialReason::PasswordTooLong, 4));
        })
        .await;
}

#[tokio::test]
async fn a_try_that_is_one_too_many_is_not_even_compared() {
    let alone = Alone::new().await;
    alone
        .run(async {
            alone.ada().await;
            // Tries of a time to come, so that none is given back while the test runs.
            let later = alone.service.now(&alone.service.group.standing()).plus_millis(3_600_000);
            while alone.service.auth.admit("eve@example.org", None, later).is_ok() {}
            let entries = alone.entries();
            assert_eq!(alone.log_in("eve@example.org", "x").await, Err(DenialReason::AccountThrottled));
            assert_eq!((alone.service.auth.hashing.comparisons(), alone.entries()), (0, entries));
            assert!(alone.log_in("ada@example.org", PASSWORD).await.is_ok(), "others are not held up");
        })
        .await;
}

#[tokio::test]
async fn fifty_refreshes_at_once_give_one_lineage_and_a_second_use_later_ends_it() {
    let alone = Alone::new().await;
    alone
        .run(async {
            alone.ada().await;
            let first = alone.log_in("ada@example.org", PASSWORD).await.unwrap();
            let all = join_all((0..50).map(|_| alone.refresh(&first.refresh_token))).await;
            let rotated = all.iter().filter(|(outcome, _)| *outcome == RefreshOutcome::Rotated).count();
            let in_grace = all.iter().filter(|(outcome, _)| *outcome == RefreshOutcome::InGrace).count();
            assert_eq!((rotated, in_grace), (1, 49));
            let grants: Vec<&Grant> = all.iter().map(|(_, grant)| grant.as_ref().unwrap()).collect();
            let second = &grants[0].refresh_token;
            assert_ne!(second, &first.refresh_token);
            assert!(grants.iter().all(|grant| &grant.refresh_token == second), "there is one successor");
            let mut jtis: Vec<String> = grants.iter().map(|grant| claims(grant).jti.to_string()).collect();
            jtis.sort_unstable();
            jtis.dedup();
            assert_eq!(jtis.len(), 50, "each access token is its own");

            let (outcome, third) = alone.refresh(second).await;
            let third = third.unwrap();
            assert_eq!((outcome, alone.revoked()), (RefreshOutcome::Rotated, vec![]));
            let (outcome, grant) = alone.refresh(&first.refresh_token).await;
            assert_eq!((outcome, grant), (RefreshOutcome::Reused, None));
            let family = claims(&first).sid;
            assert_eq!(alone.revoked(), [RevokedSubject::Family { family }]);
            let (outcome, _) = alone.refresh(&third.refresh_token).await;
            assert_eq!(outcome, RefreshOutcome::Invalid, "also the newest token is worth nothing");
        })
        .await;
}

#[tokio::test]
async fn a_token_that_nobody_was_given_writes_nothing_into_the_log() {
    let alone = Alone::new().await;
    alone
        .run(async {
            alone.ada().await;
            let entries = alone.entries();
            let made_up =
                RefreshToken::first(FamilyId::new("made-up").unwrap(), [1; 32], &seed_of([2; 32])).text();
            for token in ["", "nonsense", &made_up] {
                assert_eq!(alone.refresh(token).await, (RefreshOutcome::Invalid, None), "{token}");
            }
            let family = FamilyId::new("made-up").unwrap();
            assert_eq!(alone.log_out(Ask::Logout { family }).await, LogoutOutcome::NoLogin);
            let by = Ask::LogoutBy { token: Secret::new(&made_up) };
            assert_eq!(alone.log_out(by).await, LogoutOutcome::NoLogin);
            assert_eq!(alone.entries(), entries);
        })
        .await;
}

fn apply(state: &mut State, action: Action) -> Reply {
    let revision = Revision { term: 1, index: state.applied().index + 1 };
    let at = Timestamp::default().plus_millis(revision.index * 60_000);
    match state.apply(revision, Command::new(at, None, action)) {
        Outcome::Done { reply, .. } => reply,
        Outcome::Refused(refusal) => panic!("refused: {refusal}"),
    }
}

/// As the leader uses a token: by its mark it is the login's, and then the log decides.
fn used(state: &mut State, token: &RefreshToken) -> (Refreshed, RefreshToken) {
    let family = token.family().clone();
    let seed = state.family(&family).unwrap().seed.clone();
    assert!(token.is_of(&seed), "the login's own token is not known");
    let next = token.successor(&seed);
    let action = Action::RefreshFamily { family, presented: token.hash(), next: next.hash() };
    match apply(state, action) {
        Reply::Refreshed { refreshed, .. } => (refreshed, next),
        other => panic!("a refresh was answered with {other:?}"),
    }
}

/// A thief refreshes on and on; then the owner comes back with the token that was stolen.
#[test]
fn the_first_token_ends_its_login_also_after_thousands_of_uses() {
    let mut state = State::new();
    let init = Init {
        cluster_id: ClusterId::new("c1").unwrap(),
        limits: Limits::default(),
        sources: BTreeMap::new(),
        contract: hiveops_proto::CONTRACT.to_owned(),
        deprecation_policy: DeprecationPolicy::default(),
        schema_digest: "sha256:00".to_owned(),
        lease_ms: LEASE_MS,
    };
    apply(&mut state, Action::Init(Box::new(init)));
    let (user, id) = (UserId::new("u1").unwrap(), FamilyId::new("f1").unwrap());
    let (email, full_name) = ("ada@example.org".to_owned(), "Ada".to_owned());
    let password_hash = Secret::new("$argon2id$");
    let new = NewUser { id: user.clone(), email, full_name, role: Role::Viewer, password_hash };
    apply(&mut state, Action::AddUser(Box::new(new)));
    let seed = seed_of([1; 32]);
    let first = RefreshToken::first(id.clone(), [2; 32], &seed);
    let family = NewFamily { id: id.clone(), user, seed, token: first.hash() };
    apply(&mut state, Action::OpenFamily { family, generation: 0 });
    let mut newest = first.clone();
    for number in 0..6_000 {
        let (refreshed, next) = used(&mut state, &newest);
        assert_eq!(refreshed, Refreshed::Rotated, "use {number}");
        newest = next;
    }
    assert_eq!(used(&mut state, &first).0, Refreshed::Reused);
    assert!(state.family(&id).is_none());
}

/// The name of a login is in its access tokens, and in logs.
#[tokio::test]
async fn whoever_knows_only_the_name_of_a_login_ends_nothing() {
    let alone = Alone::new().await;
    alone
        .run(async {
            alone.ada().await;
            let grant = alone.log_in("ada@example.org", PASSWORD).await.unwrap();
            let forged = RefreshToken::first(claims(&grant).sid, [1; 32], &seed_of([2; 32])).text();
            let entries = alone.entries();
            assert_eq!(alone.refresh(&forged).await, (RefreshOutcome::Invalid, None));
            let by = |token: &str| Ask::LogoutBy { token: Secret::new(token) };
            for token in [forged.as_str(), "nonsense"] {
                assert_eq!(alone.log_out(by(token)).await, LogoutOutcome::Invalid);
            }
            assert_eq!((alone.entries(), alone.revoked()), (entries, vec![]));
            let (_, second) = alone.refresh(&grant.refresh_token).await;
            let (_, third) = alone.refresh(&second.unwrap().refresh_token).await;
            // One that was replaced long ago is the login's own all the same.
            assert_eq!(alone.log_out(by(&grant.refresh_token)).await, LogoutOutcome::Ended);
            assert_eq!(alone.revoked(), [RevokedSubject::Family { family: claims(&grant).sid }]);
            assert_eq!(alone.refresh(&third.unwrap().refresh_token).await, (RefreshOutcome::Invalid, None));
        })
        .await;
}

#[tokio::test]
async fn logging_out_ends_the_login_and_its_access_tokens_and_can_be_repeated() {
    let alone = Alone::new().await;
    alone
        .run(async {
            alone.ada().await;
            let grant = alone.log_in("ada@example.org", PASSWORD).await.unwrap();
            let family = claims(&grant).sid;
            for outcome in [LogoutOutcome::Ended, LogoutOutcome::NoLogin] {
                let family = family.clone();
                assert_eq!(alone.log_out(Ask::Logout { family }).await, outcome);
            }
            assert_eq!(alone.revoked(), [RevokedSubject::Family { family }]);
            assert_eq!(alone.refresh(&grant.refresh_token).await, (RefreshOutcome::Invalid, None));
        })
        .await;
}

#[tokio::test]
async fn what_is_done_to_a_user_ends_logins_or_is_in_the_next_token() {
    let alone = Alone::new().await;
    alone
        .run(async {
            alone.ada().await;
            let bob = alone.add("bob@example.org").await;
            let grant = alone.log_in("bob@example.org", PASSWORD).await.unwrap();
            let promoted = Action::SetRole { user: bob.clone(), role: Role::Operator, narrows: true };
            alone.service.propose(None, promoted).await.unwrap();
            let (_, renewed) = alone.refresh(&grant.refresh_token).await;
            let renewed = renewed.unwrap();
            let claims = claims(&renewed);
            assert_eq!(
                (claims.role, claims.generation, renewed.user.role),
                (Role::Operator, 1, Role::Operator)
            );
            let changed_role = Some(ChangedRole { role: Role::Operator, since_generation: 0 });
            let below = RevokedSubject::User { user: bob.clone(), below_generation: 1, changed_role };
            assert_eq!(alone.revoked(), [below]);

            let password = Secret::new("another horse");
            alone.ask(Ask::SetPassword { request: None, user: bob.clone(), password }).await;
            assert_eq!(alone.refresh(&renewed.refresh_token).await.0, RefreshOutcome::Invalid);
            let denied = alone.log_in("bob@example.org", PASSWORD).await;
            assert_eq!(denied, Err(DenialReason::WrongPassword));
            let again = alone.log_in("bob@example.org", "another horse").await.unwrap();
            alone.service.propose(None, Action::DisableUser { user: bob }).await.unwrap();
            assert_eq!(alone.refresh(&again.refresh_token).await.0, RefreshOutcome::Invalid);
        })
        .await;
}
