//! What a leader does by itself: it makes the cluster's first state, its first key and its first user when there
//! are none, and lets time pass when something that nodes see has ended and no command comes that would do it.

use std::convert::Infallible;
use std::time::Duration;

use hiveops_proto::Timestamp;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::{ClusterId, IdempotencyKey};

use super::ask::Refused;
use super::service::Service;
use crate::config::FirstAdmin;
use crate::state::{Action, Rotation, State};

/// Between two looks at what there is to do.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// After a tick, and after a failure: this is how often a command of the leader's own can come at most.
const PAUSE: Duration = Duration::from_secs(1);
/// The first key has one name, so that two leaders that follow each other quickly make one.
const FIRST_KEY: &str = "hiveops-first-key";

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// The first state.
    Begin,
    /// The first key.
    Key,
    /// The first user.
    Admin,
    /// A command that says what time it is.
    Tick,
}

impl Duty {
    fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Key => "key",
            Self::Admin => "admin",
            Self::Tick => "tick",
        }
    }
}

/// Runs as long as the replica does.
pub(super) async fn keep(service: &Service) -> Infallible {
    let mut changes = service.group.changes();
    loop {
        let standing = service.group.standing();
        if !standing.leads {
            changes.next().await;
            continue;
        }
        // Without a quorum each try would only make the log longer.
        let duty = service.group.is_fresh().then(|| {
            let now = service.now(&standing);
            service.plane.read(|state| duty(state, service.config.first_admin.as_ref(), now))
        });
        match duty.flatten() {
            Some(duty) => perform(service, duty).await,
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn duty(state: &State, first_admin: Option<&FirstAdmin>, now: Timestamp) -> Option<Duty> {
    if state.cluster_id().is_none() {
        return Some(Duty::Begin);
    }
    if state.verifying_keys(now).is_empty() {
        return Some(Duty::Key);
    }
    if first_admin.is_some() && state.users().next().is_none() {
        return Some(Duty::Admin);
    }
    state.next_end().is_some_and(|end| end <= now).then_some(Duty::Tick)
}

async fn perform(service: &Service, duty: Duty) {
    let replica = service.config.id;
    let done = match duty {
        Duty::Begin => begin(service).await,
        Duty::Key => {
            let name = IdempotencyKey::new(FIRST_KEY).ok();
            service.rotate(name, Rotation::Overlapping).await.map(|_| ())
        }
        Duty::Admin => match &service.config.first_admin {
            Some(admin) => service.make_first_admin(admin).await,
            None => Ok(()),
        },
        Duty::Tick => service.propose_unnamed(Action::Tick).await.map(|_| ()),
    };
    match (&done, duty) {
        (Ok(()), Duty::Begin) => tracing::info!(replica, "cluster has its first state"),
        (Ok(()), Duty::Key) => tracing::info!(replica, "cluster has its first signing key"),
        (Ok(()), Duty::Admin) => tracing::info!(replica, "cluster has its first admin"),
        (Ok(()), Duty::Tick) => tracing::debug!(replica, "what has ended is gone from the view"),
        (Err(refused), duty) => {
            let (duty, reason) = (duty.as_str(), &refused.detail);
            tracing::warn!(replica, duty, reason, "leader could not do what falls to it");
        }
    }
    if done.is_err() || duty == Duty::Tick {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whoever leads first gives the cluster the limits and the contract that it was started with.
async fn begin(service: &Service) -> Result<(), Refused> {
    let cluster = service.link.cluster().and_then(|cluster| ClusterId::new(&cluster).ok());
    let unnamed = || Refused::new(ProblemKind::NoQuorum, "the cluster has no name yet");
    let cluster_id = cluster.ok_or_else(unnamed)?;
    let init = service.config.start.clone().into_init(cluster_id);
    service.propose_unnamed(Action::Init(Box::new(init))).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hiveops_proto::Limits;
    use hiveops_proto::access::Role;
    use hiveops_proto::control::{DeprecationPolicy, Revision};
    use hiveops_proto::id::UserId;

    use super::*;
    use crate::chance::Chance;
    use crate::config::Password;
    use crate::key_pair;
    use crate::state::{
        Command, Init, LEASE_MS, NewUser, Outcome, Overlap, PUBLISH_WAIT_MS, RETIRE_WAIT_MS, Secret,
    };

    /// A state that a leader looks after, second by second.
    struct Led {
        state: State,
        first_admin: Option<FirstAdmin>,
        now: Timestamp,
        index: u64,
    }

    impl Led {
        fn apply(&mut self, action: Action) {
            self.index += 1;
            let at = Revision { term: 1, index: self.index };
            let outcome = self.state.apply(at, Command::new(self.now, None, action));
            assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        }

        fn rotate(&mut self) {
            let (key, rotation) = (key_pair::make(&Chance::System).unwrap(), Rotation::Overlapping);
            self.apply(Action::RotateKey { key, rotation, overlap: Overlap::default() });
        }

        /// Does what a leader would at once, and says what that was.
        fn look(&mut self) -> Option<Duty> {
            let duty = duty(&self.state, self.first_admin.as_ref(), self.now)?;
            match duty {
                Duty::Begin => self.apply(Action::Init(Box::new(init()))),
                Duty::Key => self.rotate(),
                Duty::Admin => self.apply(Action::BootstrapAdmin(Box::new(ada()))),
                Duty::Tick => self.apply(Action::Tick),
            }
            Some(duty)
        }

        fn kids(&self) -> usize {
            self.state.view().unwrap().access.keys.len()
        }
    }

    fn init() -> Init {
        Init {
            cluster_id: ClusterId::new("c1").unwrap(),
            limits: Limits::default(),
            sources: BTreeMap::new(),
            contract: hiveops_proto::CONTRACT.to_owned(),
            deprecation_policy: DeprecationPolicy::default(),
            schema_digest: "sha256:00".to_owned(),
            lease_ms: LEASE_MS,
        }
    }

    fn ada() -> NewUser {
        NewUser {
            id: UserId::new("ada").unwrap(),
            email: "ada@example.org".to_owned(),
            full_name: "Ada".to_owned(),
            role: Role::Viewer,
            password_hash: Secret::new("hash"),
        }
    }

    #[test]
    fn the_first_admin_is_made_once_and_by_whoever_was_told_of_one() {
        let first_admin =
            FirstAdmin { email: "ada@example.org".to_owned(), password: Password::new("hunter22").unwrap() };
        let begun = |first_admin| {
            let (state, now) = (State::new(), Timestamp::from_millis(1_000_000));
            Led { state, first_admin, now, index: 0 }
        };
        let mut led = begun(Some(first_admin));
        let done: Vec<Duty> = std::iter::from_fn(|| led.look()).collect();
        assert_eq!(done, [Duty::Begin, Duty::Key, Duty::Admin]);
        let roles: Vec<Role> = led.state.users().map(|account| account.user.role).collect();
        assert_eq!(roles, [Role::SuperAdmin]);
        let mut other = begun(None);
        let done: Vec<Duty> = std::iter::from_fn(|| other.look()).collect();
        assert_eq!(done, [Duty::Begin, Duty::Key]);
    }

    #[test]
    fn a_new_cluster_gets_its_state_and_its_key_and_a_retired_key_goes_when_nobody_asks_for_anything() {
        let (state, now) = (State::new(), Timestamp::from_millis(1_000_000));
        let mut led = Led { state, first_admin: None, now, index: 0 };
        let done: Vec<Duty> = std::iter::from_fn(|| led.look()).collect();
        assert_eq!(done, [Duty::Begin, Duty::Key]);
        led.rotate();
        let (rotated, revision) = (led.now, led.state.view_revision());
        let end = rotated.plus_millis(PUBLISH_WAIT_MS + RETIRE_WAIT_MS);
        let mut ticks = Vec::new();
        while led.now < end.plus_millis(10_000) {
            assert_eq!(led.kids(), if led.now < end { 2 } else { 1 }, "at {}", led.now);
            led.now = led.now.plus_millis(1_000);
            ticks.extend(led.look().map(|duty| (duty, led.now)));
        }
        assert_eq!(ticks, [(Duty::Tick, end)], "one command, and not before it is due");
        assert!(led.state.view_revision() > revision, "nodes are told");
    }
}
