//! The state as a whole: what one part means for another, and that a log makes the same bytes everywhere.

use hiveops_proto::NodeId;
use hiveops_proto::access::{ChangedRole, RevokedSubject, Role};
use hiveops_proto::control::{DeprecationPolicy, Source};
use hiveops_proto::id::{IdempotencyKey, TokenId};
use hiveops_proto::lease::{LeaseAsk, Wanted};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn init(name: &str) -> Action {
    Action::Init(Box::new(Init {
        cluster_id: ClusterId::new(name).unwrap(),
        limits: Limits::default(),
        sources: BTreeMap::from([("outbox_frames_max".to_owned(), Source::Env)]),
        contract: hiveops_proto::CONTRACT.to_owned(),
        deprecation_policy: DeprecationPolicy::default(),
        schema_digest: "sha256:00".to_owned(),
        lease_ms: LEASE_MS,
    }))
}

fn user(number: usize) -> UserId {
    UserId::new(&format!("u{number}")).unwrap()
}

fn family(number: usize) -> FamilyId {
    FamilyId::new(&format!("f{number}")).unwrap()
}

fn hash(number: u64) -> TokenHash {
    TokenHash::try_from(format!("{number:064x}")).unwrap()
}

fn new_user(number: usize, role: Role) -> Box<NewUser> {
    Box::new(NewUser {
        id: user(number),
        email: format!("u{number}@example.org"),
        full_name: format!("User {number}"),
        role,
        password_hash: Secret::new("$argon2id$S3CRET"),
    })
}

fn new_key(number: usize) -> NewKey {
    let kid = KeyId::new(&format!("k{number}")).unwrap();
    NewKey { kid, private: Secret::new("S3CRET"), x: "A".repeat(43) }
}

fn open(login: usize, of: usize, generation: u64) -> Action {
    let family = NewFamily { id: family(login), user: user(of), seed: Secret::new("S3CRET"), token: hash(0) };
    Action::OpenFamily { family, generation }
}

fn limit(name: &str, value: u64) -> Action {
    Action::SetLimits { patch: BTreeMap::from([(name.to_owned(), value)]) }
}

/// A log and the state that it made.
struct Replica {
    state: State,
    index: u64,
    ms: u64,
}

impl Replica {
    /// A cluster with an admin (u0) and a viewer (u1), both logged in once.
    fn new() -> Self {
        let mut replica = Self { state: State::new(), index: 0, ms: 0 };
        replica.done(init("c1"));
        replica.done(Action::AddUser(new_user(0, Role::SuperAdmin)));
        replica.done(Action::AddUser(new_user(1, Role::Viewer)));
        replica.done(open(0, 0, 0));
        replica.done(open(1, 1, 0));
        replica
    }

    fn apply(&mut self, action: Action) -> Outcome {
        self.apply_as(None, action)
    }

    fn apply_as(&mut self, request: Option<&str>, action: Action) -> Outcome {
        self.index += 1;
        self.ms += 1;
        let request = request.map(|name| IdempotencyKey::new(name).unwrap());
        let command = Command::new(Timestamp::default().plus_millis(self.ms), request, action);
        self.state.apply(Revision { term: 1, index: self.index }, command)
    }

    #[track_caller]
    fn done(&mut self, action: Action) -> Reply {
        match self.apply(action) {
            Outcome::Done { reply, .. } => reply,
            Outcome::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    #[track_caller]
    fn refused(&mut self, action: Action) -> RefusalCode {
        match self.apply(action) {
            Outcome::Done { reply, .. } => panic!("done: {reply:?}"),
            Outcome::Refused(refusal) => refusal.code,
        }
    }

    fn revoked(&self) -> Vec<RevokedSubject> {
        let view = self.state.view().unwrap();
        view.access.revocations.into_iter().map(|revocation| revocation.subject).collect()
    }
}

#[test]
fn nothing_can_be_done_before_the_cluster_is_made_and_it_is_made_once() {
    let mut replica = Replica { state: State::new(), index: 0, ms: 0 };
    assert_eq!(replica.refused(limit("outbox_frames_max", 9)), RefusalCode::NotInitialized);
    assert!(replica.state.view().is_none());
    replica.done(init("c1"));
    let again = replica.apply(init("c1"));
    assert!(matches!(again, Outcome::Done { changed: false, .. }));
    assert_eq!(replica.refused(init("c2")), RefusalCode::OtherCluster);
    assert_eq!(replica.state.cluster_id().unwrap().as_str(), "c1");
}

#[test]
fn a_request_that_came_before_the_cluster_was_made_is_done_when_it_comes_again() {
    let mut replica = Replica { state: State::new(), index: 0, ms: 0 };
    let early = replica.apply_as(Some("r1"), limit("idle_disconnect_seconds", 7));
    assert!(matches!(early, Outcome::Refused(Refusal { code: RefusalCode::NotInitialized, .. })));
    replica.done(init("c1"));
    let again = replica.apply_as(Some("r1"), limit("idle_disconnect_seconds", 7));
    assert!(matches!(again, Outcome::Done { changed: true, .. }));
    assert_eq!(replica.apply_as(Some("r1"), limit("idle_disconnect_seconds", 7)), again);
}

#[test]
fn a_repeated_request_is_done_once_and_answered_alike() {
    let mut replica = Replica::new();
    let first = replica.apply_as(Some("r1"), limit("idle_disconnect_seconds", 7));
    replica.done(limit("idle_disconnect_seconds", 8));
    assert_eq!(replica.apply_as(Some("r1"), limit("idle_disconnect_seconds", 7)), first);
    assert_eq!(replica.state.limits().unwrap().idle_disconnect_seconds, 8);
    let other = replica.apply_as(Some("r1"), limit("idle_disconnect_seconds", 9));
    assert!(matches!(other, Outcome::Refused(Refusal { code: RefusalCode::RequestReused, .. })));
}

#[test]
fn the_view_moves_only_when_it_is_another_one() {
    let mut replica = Replica::new();
    let revision = replica.state.view_revision().unwrap();
    assert_eq!(revision.index, 1, "users and logins are not seen by nodes");
    replica.refused(limit("idle_disconnect_seconds", 0));
    replica.done(Action::AddUser(new_user(2, Role::Viewer)));
    assert_eq!(replica.state.view_revision(), Some(revision));
    replica.done(limit("idle_disconnect_seconds", 7));
    assert_eq!(replica.state.view_revision(), Some(replica.state.applied()));
    assert_eq!(replica.state.view().unwrap().revision, replica.state.applied());
}

/// What nodes hear of the viewer whose role, and nothing else, has changed.
fn changed(below_generation: u64, role: Role, since_generation: u64) -> Vec<RevokedSubject> {
    let changed_role = Some(ChangedRole { role, since_generation });
    vec![RevokedSubject::User { user: user(1), below_generation, changed_role }]
}

#[test]
fn sockets_may_go_on_with_another_role_since_nothing_else_has_changed() {
    let mut replica = Replica::new();
    let set = |role| Action::SetRole { user: user(1), role, narrows: true };
    replica.done(set(Role::Operator));
    replica.done(set(Role::Developer));
    assert_eq!(replica.revoked(), changed(2, Role::Developer, 0), "one role after the other");
    let password_hash = Secret::new("$argon2id$");
    replica.done(Action::SetPassword { user: user(1), password_hash });
    replica.done(set(Role::Viewer));
    assert_eq!(replica.revoked(), changed(4, Role::Viewer, 3), "not those of the old password");
    let again: State = serde_json::from_str(&serde_json::to_string(&replica.state).unwrap()).unwrap();
    assert_eq!(again, replica.state);
}

#[test]
fn a_role_a_password_or_a_ban_makes_older_tokens_bad() {
    let mut replica = Replica::new();
    let below =
        |below_generation| vec![RevokedSubject::User { user: user(1), below_generation, changed_role: None }];
    replica.done(Action::SetRole { user: user(1), role: Role::Operator, narrows: true });
    assert_eq!(replica.revoked(), changed(1, Role::Operator, 0));
    assert!(replica.state.family(&family(1)).is_some(), "another role does not end the login");
    replica.done(Action::SetPassword { user: user(1), password_hash: Secret::new("$argon2id$") });
    assert_eq!(replica.revoked(), below(2));
    assert!(replica.state.family(&family(1)).is_none());
    assert_eq!(replica.refused(open(2, 1, 1)), RefusalCode::Denied, "the password that was checked is old");
    replica.done(open(2, 1, 2));
    replica.done(Action::DisableUser { user: user(1) });
    assert_eq!(replica.revoked(), below(3));
    assert_eq!(replica.refused(open(3, 1, 3)), RefusalCode::Denied);
    replica.done(Action::EnableUser { user: user(1) });
    replica.done(open(3, 1, 3));
    assert!(replica.state.user_by_email("U1@example.org").unwrap().user.last_login.is_some());
}

#[test]
fn a_copied_refresh_token_ends_the_login_and_its_access_tokens() {
    let mut replica = Replica::new();
    let mut refresh = |presented, next| {
        let (presented, next) = (hash(presented), hash(next));
        let reply = replica.done(Action::RefreshFamily { family: family(1), presented, next });
        let Reply::Refreshed { user, refreshed } = reply else { panic!("another reply") };
        (user, refreshed)
    };
    assert_eq!(refresh(0, 1), (user(1), Refreshed::Rotated));
    assert_eq!(refresh(0, 2).1, Refreshed::InGrace);
    assert_eq!(refresh(1, 2).1, Refreshed::Rotated);
    assert_eq!(refresh(0, 3).1, Refreshed::Reused);
    assert_eq!(replica.revoked(), [RevokedSubject::Family { family: family(1) }]);
    replica.done(Action::RevokeFamily { family: family(0) });
    assert_eq!(replica.refused(Action::RevokeFamily { family: family(0) }), RefusalCode::NotFound);
}

#[test]
fn when_there_is_no_room_for_single_tokens_all_of_the_user_are_revoked() {
    let mut replica = Replica::new();
    for number in 0..SINGLE_MAX {
        let jti = TokenId::new(&format!("j{number}")).unwrap();
        replica.done(Action::RevokeToken { jti, user: user(0) });
    }
    replica.done(Action::RevokeFamily { family: family(1) });
    let revoked = replica.revoked();
    assert_eq!(revoked.len(), SINGLE_MAX + 1);
    assert_eq!(
        revoked.last(),
        Some(&RevokedSubject::User { user: user(1), below_generation: 1, changed_role: None })
    );
}

#[test]
fn a_first_admin_is_made_only_when_there_is_no_user() {
    let mut replica = Replica { state: State::new(), index: 0, ms: 0 };
    replica.done(init("c1"));
    replica.done(Action::BootstrapAdmin(new_user(5, Role::Viewer)));
    replica.done(Action::BootstrapAdmin(new_user(6, Role::Viewer)));
    let users: Vec<Role> = replica.state.users().map(|account| account.user.role).collect();
    assert_eq!(users, [Role::SuperAdmin]);
}

#[test]
fn what_nodes_and_askers_see_has_no_secret() {
    let mut replica = Replica::new();
    let key =
        Action::RotateKey { key: new_key(1), rotation: Rotation::Overlapping, overlap: Overlap::default() };
    assert!(!format!("{key:?}").contains("S3CRET"));
    let outcome = replica.apply_as(Some("r1"), key);
    assert!(!serde_json::to_string(&outcome).unwrap().contains("S3CRET"));
    let view = serde_json::to_string(&replica.state.view()).unwrap();
    assert!(view.contains("\"k1\"") && !view.contains("S3CRET"), "{view}");
    assert!(!format!("{:?}", replica.state).contains("S3CRET"));
}

#[test]
fn time_does_not_run_backwards_and_a_new_term_begins_leases_anew() {
    let mut replica = Replica::new();
    let node = NodeId::new("n1").unwrap();
    let ask =
        LeaseAsk { node, incarnation: 1, seq: 1, total: Wanted { keep: 0, want: 5 }, users: BTreeMap::new() };
    replica.done(Action::RenewLease(Box::new(ask)));
    let mut at = |term, index, ms| {
        let at = Timestamp::default().plus_millis(ms);
        let _ = replica.state.apply(Revision { term, index }, Command::new(at, None, init("c1")));
        (replica.state.clock(), replica.state.nodes().len())
    };
    let hour = 3_600_000;
    assert_eq!(at(2, 50, hour), (Timestamp::default().plus_millis(hour), 1), "the new clock is ahead");
    assert_eq!(at(3, 51, 0), (Timestamp::default().plus_millis(hour), 1), "the next one is behind");
    assert_eq!(at(3, 52, hour + LEASE_MS * 3 / 2).1, 0);
}

#[test]
fn a_command_or_a_snapshot_of_another_language_is_called_that() {
    let mut command = serde_json::to_value(Command::new(Timestamp::default(), None, init("c1"))).unwrap();
    command["v"] = json!(2);
    let error = serde_json::from_value::<Command>(command.clone()).unwrap_err().to_string();
    assert!(error.contains("command version 2 is not known"), "{error}");
    command["v"] = json!(1);
    command["action"]["init"]["surprise"] = json!(1);
    assert!(serde_json::from_value::<Command>(command).unwrap_err().to_string().contains("surprise"));
    let mut snapshot: Value = serde_json::from_slice(&State::new().snapshot()).unwrap();
    snapshot["format"] = json!(9);
    let error = State::restore(snapshot.to_string().as_bytes()).unwrap_err();
    assert!(error.to_string().contains("snapshot format 9"), "{error}");
}

/// What a binary of before `overlap` and `narrows` has written, to the letter.
#[test]
fn a_log_and_a_snapshot_of_before_make_what_they_made_then() {
    let old = |action: Value| -> Action {
        let command = json!({"v": 1, "at": "1970-01-01T00:00:01.000Z", "action": action});
        let read: Command = serde_json::from_value(command.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), command, "nor is it written in another way");
        read.action
    };
    let mut replica = Replica::new();
    let x = "A".repeat(43);
    for kid in ["k1", "k2"] {
        let key = json!({"kid": kid, "private": "S3CRET", "x": x});
        let action = old(json!({"rotate_key": {"key": key, "rotation": "overlapping"}}));
        let Reply::Rotation { sign_from, .. } = replica.done(action) else { panic!("another reply") };
        let wait = if kid == "k1" { 0 } else { PUBLISH_WAIT_MS };
        assert_eq!(sign_from, replica.state.clock().plus_millis(wait));
    }
    replica.done(old(json!({"set_role": {"user": "u1", "role": "operator"}})));
    let below =
        |below_generation| vec![RevokedSubject::User { user: user(1), below_generation, changed_role: None }];
    assert_eq!(replica.revoked(), below(1), "sockets ended then");
    assert!(replica.state.family(&family(1)).is_some(), "and logins went on");
    let mut snapshot: Value = serde_json::from_slice(&replica.state.snapshot()).unwrap();
    let revocations = snapshot["state"]["cluster"]["revocations"].as_object_mut().unwrap();
    assert!(revocations.remove("roles").is_some());
    replica.state = State::restore(snapshot.to_string().as_bytes()).unwrap();
    assert_eq!(replica.revoked(), below(1));
    replica.done(Action::SetRole { user: user(1), role: Role::Viewer, narrows: true });
    assert_eq!(replica.revoked(), changed(2, Role::Viewer, 1), "not those of the role before");
}

/// Who repeats a request at a leader of another binary gets the first answer.
#[test]
fn the_marker_of_a_role_is_none_of_what_was_asked_for() {
    let mut replica = Replica::new();
    let set = |narrows| Action::SetRole { user: user(1), role: Role::Operator, narrows };
    let first = replica.apply_as(Some("r1"), set(false));
    assert_eq!(replica.apply_as(Some("r1"), set(true)), first);
}

/// A contract document of some version, with more or fewer subscriptions.
fn document(minor: u64, extra: usize) -> String {
    let mut contract: Value = serde_json::from_str(hiveops_proto::CONTRACT).unwrap();
    contract["version"] = json!(format!("1.{minor}.0"));
    for number in 0..extra {
        let data = json!({"type": "object", "properties": {"x": {"maximum": 0.1 + number as f64 / 3.0}}});
        let message = json!({"type": format!("s{number}_event"), "kind": "event", "data": data});
        let subscription = json!({"name": format!("s{number}"), "messages": [message]});
        contract["subscriptions"].as_array_mut().unwrap().push(subscription);
    }
    contract.to_string()
}

fn action() -> impl Strategy<Value = Action> {
    let (who, login) = (|| (0_usize..4).prop_map(user), || (0_usize..6).prop_map(family));
    let name = prop::sample::select(vec![
        "max_connections_total",
        "max_connections_per_user",
        "rate_limit_burst_capacity",
        "nonsense",
    ]);
    let node = (0_u64..3).prop_map(|number| NodeId::new(&format!("n{number}")).unwrap());
    let wanted = |most| (0..most, 0..most).prop_map(|(keep, want)| Wanted { keep, want });
    let users = prop::collection::btree_map(who(), wanted(5_u64), 0..3);
    let ask = (node.clone(), 1_u64..3, 0_u64..20, wanted(30_u64), users)
        .prop_map(|(node, incarnation, seq, total, users)| LeaseAsk { node, incarnation, seq, total, users });
    let rotation = prop::sample::select(vec![Rotation::Overlapping, Rotation::Overlapping, Rotation::Urgent]);
    let overlap = prop_oneof![
        Just(Overlap::default()),
        (1_u64..60_000, 1_u64..700_000).prop_map(|(publish_ms, retire_ms)| Overlap { publish_ms, retire_ms }),
    ];
    prop_oneof![
        1 => Just(init("c1")),
        1 => Just(init("c2")),
        4 => (name, 0_u64..60).prop_map(|(name, value)| limit(name, value)),
        3 => (0_u64..4, 0_usize..4).prop_map(|(minor, extra)| {
            let document = document(minor, extra);
            let push = Push { document, label: None, migration_note: None, supported: None };
            Action::PushContract(Box::new(push))
        }),
        3 => (0_usize..20, rotation, overlap).prop_map(|(key, rotation, overlap)| {
            Action::RotateKey { key: new_key(key), rotation, overlap }
        }),
        4 => (0_usize..4, prop::sample::select(Role::ALL))
            .prop_map(|(number, role)| Action::AddUser(new_user(number, role))),
        2 => (who(), prop::sample::select(Role::ALL), any::<bool>())
            .prop_map(|(user, role, narrows)| Action::SetRole { user, role, narrows }),
        1 => who().prop_map(|user| Action::DisableUser { user }),
        1 => who().prop_map(|user| Action::EnableUser { user }),
        1 => who().prop_map(|user| Action::RevokeUser { user }),
        6 => (0_usize..6, 0_usize..4, 0_u64..3).prop_map(|(login, of, generation)| open(login, of, generation)),
        6 => (login(), 0_u64..4, 0_u64..4).prop_map(|(family, presented, next)| {
            Action::RefreshFamily { family, presented: hash(presented), next: hash(next) }
        }),
        1 => login().prop_map(|family| Action::RevokeFamily { family }),
        1 => (0_u64..5, who()).prop_map(|(number, user)| {
            Action::RevokeToken { jti: TokenId::new(&format!("j{number}")).unwrap(), user }
        }),
        6 => ask.prop_map(|ask| Action::RenewLease(Box::new(ask))),
        1 => (node, 1_u64..3).prop_map(|(node, incarnation)| Action::EndLease { node, incarnation }),
    ]
}

/// A log whose leaders change, and whose clocks jump when they do.
fn log() -> impl Strategy<Value = Vec<(Revision, Command)>> {
    let request = prop::option::weighted(0.3, (0_u64..8).prop_map(|number| format!("r{number}")));
    let wait = prop_oneof![8 => 0_u64..20_000, 1 => 0_u64..RETIRE_WAIT_MS * 2, 1 => IDLE_MS..IDLE_MS + 1];
    let entry = (action(), request, wait, prop::bool::weighted(0.1));
    prop::collection::vec(entry, 0..80).prop_map(|entries| {
        let (mut term, mut clock, mut index) = (1, 1_000_000_u64, 0);
        let mut log = Vec::new();
        for (action, request, wait, is_new_term) in entries {
            (index, clock) = (index + 1, clock + wait);
            if is_new_term {
                (term, clock) = (term + 1, clock / 2 + wait * 3);
            }
            let request = request.map(|name| IdempotencyKey::new(&name).unwrap());
            let command = Command::new(Timestamp::default().plus_millis(clock), request, action);
            log.push((Revision { term, index }, command));
        }
        log.insert(0, (Revision { term: 1, index: 0 }, Command::new(Timestamp::default(), None, init("c1"))));
        for (revision, _) in &mut log {
            revision.index += 1;
        }
        log
    })
}

proptest! {
    #[test]
    fn the_same_log_makes_the_same_bytes_also_from_a_snapshot_in_the_middle(log in log(), cut in 0_usize..80) {
        let (mut leader, mut follower, mut late) = (State::new(), State::new(), None);
        for (at, (revision, command)) in log.into_iter().enumerate() {
            // A follower has the command from its disk, as text.
            let text = serde_json::to_vec(&command).unwrap();
            let read: Command = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(&read, &command);
            let outcome = leader.apply(revision, command);
            let told: Outcome = serde_json::from_slice(&serde_json::to_vec(&outcome).unwrap()).unwrap();
            prop_assert_eq!(&told, &outcome);
            if let Some(late) = &mut late {
                prop_assert_eq!(&State::apply(late, revision, read.clone()), &outcome);
            }
            prop_assert_eq!(follower.apply(revision, read), outcome);
            prop_assert_eq!(follower.view(), leader.view());
            if at == cut {
                late = Some(State::restore(&leader.snapshot()).unwrap());
            }
        }
        let bytes = leader.snapshot();
        prop_assert_eq!(&follower.snapshot(), &bytes);
        if let Some(late) = late {
            prop_assert_eq!(&late, &leader);
            prop_assert_eq!(&late.snapshot(), &bytes);
        }
        prop_assert_eq!(&State::restore(&bytes).unwrap().snapshot(), &bytes);
    }

    #[test]
    fn a_refused_command_leaves_everything_but_the_time_as_it_was(log in log()) {
        let mut state = State::new();
        for (revision, command) in log {
            let request = command.request.is_some();
            let mut waited = state.clone();
            // The same place and time with a command that does nothing.
            let idle = Command::new(command.at, None, init("c1"));
            let outcome = state.apply(revision, command);
            let nothing = waited.apply(revision, idle);
            if let (Outcome::Refused(_), Outcome::Done { changed: false, .. }, false) = (&outcome, nothing, request) {
                prop_assert_eq!(&state, &waited);
            }
        }
    }
}
