//! Clients of the cluster: they write with idempotency keys and repeat what was not answered, read what is
//! agreed on, and hold streams of views.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hiveops_proto::access::Role;
use hiveops_proto::control::{ControlView, Revision, WatchLine};
use hiveops_proto::id::{FamilyId, KeyId, TokenId, UserId};
use hiveops_proto::path::{CONTROL_COMMANDS, CONTROL_VIEW, CONTROL_WATCH, IDEMPOTENCY_HEADER};
use http::{Method, Request, StatusCode};
use tokio::time::{Instant, sleep};

use super::chance::Seeded;
use super::history::{Rule, show};
use super::net::within;
use super::world::World;
use crate::replica::ask::Decided;
use crate::state::{
    Action, NewFamily, NewKey, NewUser, Overlap, PUBLISH_WAIT_MS, RETIRE_WAIT_MS, Refreshed, Reply, Rotation,
    Secret, TokenHash,
};

/// Clients have numbers that no replica has.
const FIRST: u64 = 100;
const PATIENCE: Duration = Duration::from_millis(1_200);
/// A request that was not answered is repeated for so long.
const REPEATED_FOR: Duration = Duration::from_secs(12);
/// A node that hears nothing for so long looks for another replica.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Somebody who asks.
pub(crate) struct Client {
    pub(crate) world: World,
    pub(crate) number: u64,
    pub(crate) chance: Seeded,
}

/// What a client knows at last about its request.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    Done(Decided),
    Refused(StatusCode),
    /// It may be done or not, now or later.
    Nothing,
}

/// A login as its client knows it.
struct Login {
    family: FamilyId,
    token: u64,
}

impl Client {
    pub(crate) fn new(world: &World, number: u64) -> Self {
        let chance = world.chance(&format!("client {number}"));
        Self { world: world.clone(), number: FIRST + number, chance }
    }

    /// One exchange with a replica; none without an answer.
    pub(crate) async fn call(
        &self,
        to: u64,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Bytes,
    ) -> Option<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_HEADER, key);
        }
        let request = request.body(body).unwrap();
        self.world.net.call(self.number, to, request, PATIENCE).await.ok()
    }

    /// Any replica, as a list of addresses has it.
    pub(crate) fn any(&self) -> u64 {
        self.chance.pick(&self.world.ids()).copied().unwrap_or(1)
    }

    /// Asks until it is answered, or for some time.
    pub(crate) async fn command(&self, key: &str, action: &Action, what: &str) -> Known {
        let body = Bytes::from(serde_json::to_vec(action).unwrap());
        let end = Instant::now() + REPEATED_FOR;
        self.world.history.note(format_args!("{key} asks: {what}"));
        while Instant::now() < end {
            let to = self.any();
            match self.call(to, Method::POST, CONTROL_COMMANDS, Some(key), body.clone()).await {
                Some((StatusCode::OK, body)) => {
                    let decided: Decided = serde_json::from_slice(&body).unwrap();
                    let (at, leader) = (show(decided.revision), decided.leader);
                    self.world
                        .history
                        .note(format_args!("{key} is done at {at}, says {to} (leader {leader})"));
                    self.world.history.leads(decided.leader, decided.term);
                    let seen = is_seen(action) && decided.changed;
                    self.world.history.acknowledged(key, decided.revision, seen);
                    return Known::Done(decided);
                }
                Some((status, _)) if status.is_client_error() => {
                    self.world.history.note(format_args!("{key} is refused with {status}, says {to}"));
                    return Known::Refused(status);
                }
                Some(_) | None => {}
            }
            sleep(self.chance.millis(20, 300)).await;
        }
        self.world.history.note(format_args!("{key} gives up"));
        Known::Nothing
    }

    /// Writes as long as the run lasts.
    pub(crate) async fn write(self) {
        let mut users = Vec::new();
        let mut logins: Vec<Login> = Vec::new();
        for count in 0_u64.. {
            sleep(self.chance.millis(20, 400)).await;
            let key = format!("w{}-{count}", self.number);
            match self.chance.below(10) {
                0..4 => self.set_a_limit(&key, count).await,
                4 => self.rotate(&key).await,
                5 => users.extend(self.add_a_user(&key).await),
                6 => self.revoke_a_token(&key, self.chance.pick(&users)).await,
                7 => logins.extend(self.log_in(&key, self.chance.pick(&users)).await),
                _ if logins.is_empty() => {}
                _ => {
                    let login = logins.swap_remove(self.chance.index(logins.len()));
                    logins.extend(self.refresh(&key, login).await);
                }
            }
        }
    }

    async fn set_a_limit(&self, key: &str, count: u64) {
        let (name, value) = if self.chance.in_thousand(500) {
            ("idle_disconnect_seconds", 100 + self.number * 100 + count % 100)
        } else {
            ("outbox_frames_max", 64 + count)
        };
        let action = Action::SetLimits { patch: BTreeMap::from([(name.to_owned(), value)]) };
        self.command(key, &action, &format!("{name}={value}")).await;
    }

    async fn rotate(&self, key: &str) {
        let kid = KeyId::new(key).unwrap();
        let new = NewKey { kid, private: Secret::new("private"), x: "A".repeat(43) };
        let urgent = self.chance.in_thousand(500);
        let rotation = if urgent { Rotation::Urgent } else { Rotation::Overlapping };
        // Leaders that were told different times.
        let overlap = if key.ends_with(['0', '2', '4', '6', '8']) {
            Overlap { publish_ms: PUBLISH_WAIT_MS / 20, retire_ms: RETIRE_WAIT_MS / 20 }
        } else {
            Overlap::default()
        };
        let action = Action::RotateKey { key: new, rotation, overlap };
        self.command(key, &action, "another key").await;
    }

    /// A user whom nobody else makes: if it is there already, the request was done twice.
    async fn add_a_user(&self, key: &str) -> Option<UserId> {
        let id = UserId::new(key).unwrap();
        let new = NewUser {
            id: id.clone(),
            email: format!("{key}@example.org"),
            full_name: key.to_owned(),
            role: Role::Viewer,
            password_hash: Secret::new("$argon2id$hash"),
        };
        match self.command(key, &Action::AddUser(Box::new(new)), "a new user").await {
            Known::Done(_) => Some(id),
            Known::Refused(status) => {
                self.world.history.broke(Rule::DoneOnce, format_args!("{key} was answered {status}"));
                None
            }
            Known::Nothing => None,
        }
    }

    async fn revoke_a_token(&self, key: &str, user: Option<&UserId>) {
        let Some(user) = user.cloned() else { return };
        let action = Action::RevokeToken { jti: TokenId::new(key).unwrap(), user };
        self.command(key, &action, "a token is bad").await;
    }

    async fn log_in(&self, key: &str, user: Option<&UserId>) -> Option<Login> {
        let family = FamilyId::new(key).unwrap();
        let (user, seed, token) = (user.cloned()?, Secret::new("seed"), hash(key, 0));
        let new = NewFamily { id: family.clone(), user, seed, token };
        let known = self.command(key, &Action::OpenFamily { family: new, generation: 0 }, "a login").await;
        match known {
            Known::Done(_) => Some(Login { family, token: 0 }),
            Known::Refused(status) => {
                self.world.history.broke(Rule::DoneOnce, format_args!("{key} was answered {status}"));
                None
            }
            Known::Nothing => None,
        }
    }

    /// Nobody else has the token: if it has been used, the request was done twice.
    async fn refresh(&self, key: &str, login: Login) -> Option<Login> {
        let Login { family, token } = login;
        let name = family.as_str().to_owned();
        let (presented, next) = (hash(&name, token), hash(&name, token + 1));
        let action = Action::RefreshFamily { family: family.clone(), presented, next };
        match self.command(key, &action, &format!("token {} for {name}", token + 1)).await {
            Known::Done(Decided {
                reply: Reply::Refreshed { refreshed: Refreshed::Rotated, .. }, ..
            }) => Some(Login { family, token: token + 1 }),
            // Whether it was done is not known, so the next token is not known either.
            Known::Nothing => None,
            other => {
                self.world.history.broke(Rule::DoneOnce, format_args!("{key} was answered {other:?}"));
                None
            }
        }
    }

    /// Reads what is agreed on as long as the run lasts.
    pub(crate) async fn read(self) {
        loop {
            sleep(self.chance.millis(10, 500)).await;
            let floor = self.world.history.floor();
            let path = format!("{CONTROL_VIEW}?linearizable=true");
            // Whoever believes to lead answers by itself, the one that has been replaced as well.
            let leaders = self.world.leaders();
            let leader = self.chance.pick(&leaders).filter(|_| self.chance.in_thousand(700));
            let to = leader.copied().unwrap_or_else(|| self.any());
            let answer = self.call(to, Method::GET, &path, None, Bytes::new()).await;
            if let Some((StatusCode::OK, body)) = answer {
                let view: ControlView = serde_json::from_slice(&body).unwrap();
                let at = show(view.revision);
                self.world.history.note(format_args!("reader {} gets {at} from {to}", self.number));
                self.world.history.read(floor, view.revision, &serde_json::to_vec(&view).unwrap());
            }
        }
    }

    /// Holds a stream of views, at the replica `first` and then at the others. The runtime draws who of several
    /// streams at one replica is woken first, so that each replica is watched by one client.
    pub(crate) async fn watch(self, at: u64) {
        loop {
            let request = Request::builder().uri(CONTROL_WATCH).body(Bytes::new()).unwrap();
            let opened = within(SILENCE_MAX, self.world.net.stream(self.number, at, request)).await;
            let Some(Ok(mut lines)) = opened else {
                sleep(self.chance.millis(50, 500)).await;
                continue;
            };
            let mut seen = Revision::default();
            while let Some(Some(line)) = within(SILENCE_MAX, lines.next()).await {
                seen = self.line(at, seen, &line);
            }
            sleep(self.chance.millis(50, 500)).await;
        }
    }

    fn line(&self, at: u64, seen: Revision, line: &[u8]) -> Revision {
        match serde_json::from_slice(line).unwrap() {
            WatchLine::View { view, .. } => {
                let bytes = serde_json::to_vec(&view).unwrap();
                self.world.history.note(format_args!("{at} shows {}", show(view.revision)));
                self.world.history.view(view.revision, &bytes);
                if view.revision <= seen {
                    let how = format_args!("{at} showed {} after {}", show(view.revision), show(seen));
                    self.world.history.broke(Rule::ViewsGoForward, how);
                }
                view.revision
            }
            WatchLine::Alive { revision, .. } => {
                if revision != seen {
                    let how = format_args!("{at} is at {} after {}", show(revision), show(seen));
                    self.world.history.broke(Rule::ViewsGoForward, how);
                }
                seen
            }
        }
    }
}

/// Whether nodes see that it was done.
fn is_seen(action: &Action) -> bool {
    matches!(action, Action::SetLimits { .. } | Action::RotateKey { .. } | Action::RevokeToken { .. })
}

fn hash(family: &str, token: u64) -> TokenHash {
    TokenHash::try_from(format!("{:032x}{token:032x}", super::chance::digest(family.as_bytes()))).unwrap()
}
