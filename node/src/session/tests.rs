//! The session machine against a scripted node: what each event leads to, in which order, and when.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use hiveops_proto::access::AccessClaims;
use hiveops_proto::control::{ContractView, DeprecationPolicy, Revision};
use hiveops_proto::{Contract, Epoch};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod credential;

/// A node that is what a test says it is.
struct Script {
    catalog: Arc<Catalog>,
    control: ControlView,
    node_id: NodeId,
    now: Cell<u64>,
    ids: Cell<u64>,
    head: u64,
    /// The position from which everything is still there.
    floor: u64,
    /// Whether everything up to the head was sent.
    has_sent_all: bool,
    /// Whose access token each text is.
    tokens: BTreeMap<String, AccessClaims>,
    /// Of every user.
    standing: Cell<Standing>,
    is_control_away: Cell<bool>,
}

impl Script {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
        let control = ControlView {
            revision: Revision::default(),
            limits,
            sources: BTreeMap::new(),
            contract: ContractView {
                current: contract.clone(),
                supported_versions: vec![contract.version],
                deprecation_policy: DeprecationPolicy::default(),
                schema_digest: String::new(),
                contract_digest: None,
            },
            access: Default::default(),
        };
        Self {
            catalog: Catalog::compile(contract).unwrap(),
            control,
            node_id: NodeId::new("n1").unwrap(),
            now: Cell::new(0),
            ids: Cell::new(0),
            head: 9,
            floor: 3,
            has_sent_all: true,
            tokens: BTreeMap::new(),
            standing: Cell::new(Standing::Good),
            is_control_away: Cell::new(false),
        }
    }

    fn sub(&self, name: &str) -> SubId {
        self.catalog.id(name).unwrap()
    }

    fn at(&self, ms: u64) -> &Self {
        self.now.set(ms);
        self
    }
}

impl World for Script {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn control(&self) -> &ControlView {
        &self.control
    }

    fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    fn position(&self, _: SubId) -> Position {
        Position { epoch: Epoch::from_bits(1), seq: self.head }
    }

    fn sent_position(&self, sub: SubId) -> Option<Position> {
        self.has_sent_all.then(|| self.position(sub))
    }

    fn can_continue(&self, _: SubId, since: &Position) -> bool {
        since.epoch == Epoch::from_bits(1) && (self.floor..=self.head).contains(&since.seq)
    }

    fn bus_live(&self) -> bool {
        true
    }

    fn now(&self) -> Moment {
        Moment::from_millis(self.now.get())
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + self.now.get() as i64)
    }

    fn new_id(&self) -> CorrelationId {
        self.ids.set(self.ids.get() + 1);
        CorrelationId::new(&format!("made-{}", self.ids.get())).unwrap()
    }

    fn answer(&self, request: &Request<'_>) -> Result<Payload, (ErrorCode, String)> {
        match request.params {
            Some(_) => Err((ErrorCode::DataUnavailable, "not now".to_owned())),
            None => Ok(Payload::from_value(&json!({"of": request.data_type.as_str()})).unwrap()),
        }
    }

    fn verify(&self, token: &str) -> Result<Vouched, Denial> {
        let known = self.tokens.get(token).cloned().ok_or(Denial::Signature)?;
        crate::auth::testing::user(known).vouched().cloned().ok_or(Denial::Signature)
    }

    fn standing(&self, principal: &Principal) -> Standing {
        match (self.standing.get(), principal.claims()) {
            (Standing::Role { generation, .. }, Some(claims)) if claims.generation >= generation => {
                Standing::Good
            }
            (standing, Some(_)) => standing,
            (_, None) => Standing::Good,
        }
    }

    fn is_control_away(&self) -> bool {
        self.is_control_away.get()
    }
}

fn setup(subscriptions: &[&str]) -> Setup {
    Setup {
        connection_id: ConnectionId::new("me").unwrap(),
        refused_id: None,
        endpoint: Endpoint::Dashboard,
        subscriptions: Some(subscriptions.iter().map(ToString::to_string).collect()),
        since: Positions::new(),
        wanted_version: None,
        principal: Principal::Anyone,
        correlation_id: CorrelationId::new("shake").unwrap(),
    }
}

fn since(name: &str, seq: u64) -> Positions {
    let position = Position { epoch: Epoch::from_bits(1), seq };
    [(name.parse().unwrap(), position)].into()
}

/// A session whose first frames are gone.
fn opened(world: &Script, subscriptions: &[&str]) -> Session {
    Session::open(setup(subscriptions), world, &mut Vec::new())
}

fn handle(session: &mut Session, world: &Script, event: Event<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    session.handle(event, world, &mut actions);
    actions
}

fn json_of(action: &Action) -> Value {
    match action {
        Action::Send(frame) => serde_json::to_value(frame).unwrap(),
        other => panic!("a frame, not {other:?}"),
    }
}

/// The actions in short: the type of a frame (with the code of an error), or the action itself.
fn brief(world: &Script, actions: &[Action]) -> Vec<String> {
    let name = |sub: &SubId| world.catalog.name(*sub).to_string();
    let brief = |action: &Action| match action {
        Action::Send(ServerFrame::ErrorFrame(error)) => format!("error {}", error.code),
        Action::Send(_) => json_of(action)["type"].as_str().unwrap().to_owned(),
        Action::Join(sub, Start::Snapshot) => format!("join {} by snapshot", name(sub)),
        Action::Join(sub, Start::After(seq)) => format!("join {} after {seq}", name(sub)),
        Action::Leave(sub) => format!("leave {}", name(sub)),
        Action::Close(reason) => format!("close {reason}"),
        Action::Dropped => "dropped".to_owned(),
        Action::Denied(denial, _) => format!("denied {}", denial.as_str()),
        Action::Refreshed => "refreshed".to_owned(),
        Action::KeptInOutage => "kept".to_owned(),
        Action::Pong => "protocol pong".to_owned(),
        Action::Ping => "protocol ping".to_owned(),
    };
    actions.iter().map(brief).collect()
}

/// What one event leads to, in short.
#[track_caller]
fn check(session: &mut Session, world: &Script, event: Event<'_>, expected: &[&str]) -> Vec<Action> {
    let actions = handle(session, world, event);
    assert_eq!(brief(world, &actions), expected);
    actions
}

/// The contract without one of its subscriptions, as the next version.
fn without(world: &mut Script, name: &str) {
    let contract = &mut world.control.contract;
    contract.current.subscriptions.retain(|subscription| subscription.name.as_str() != name);
    world.catalog = world.catalog.next(contract.current.clone()).unwrap();
}

#[test]
fn a_session_leaves_what_a_new_contract_does_not_declare_and_is_told() {
    let mut world = Script::new();
    let mut session = opened(&world, &["agents", "tasks"]);
    check(&mut session, &world, Event::Contract, &[]);
    without(&mut world, "tasks");
    let expected = ["leave tasks", "error unknown_subscription", "subscription_updated"];
    let actions = check(&mut session, &world, Event::Contract, &expected);
    assert_eq!(json_of(&actions[1])["message"], "Invalid subscription(s): tasks");
    assert_eq!(json_of(&actions[2])["subscriptions"], json!(["agents"]));
    check(&mut session, &world, Event::Contract, &[]);
    let again = r#"{"type":"subscribe","subscriptions":["tasks"]}"#;
    check(&mut session, &world, Event::Text(again), &["error unknown_subscription", "subscription_updated"]);
}

#[test]
fn a_session_is_warned_once_when_its_version_is_not_served_any_more() {
    let mut world = Script::new();
    let served = world.control.contract.current.version;
    let asked =
        |version| Setup { wanted_version: Some(WantedVersion::Version(version)), ..setup(&["tasks"]) };
    let mut session = Session::open(asked(served), &world, &mut Vec::new());
    check(&mut session, &world, Event::Contract, &[]);
    world.control.contract.supported_versions = vec!["2.0.0".parse().unwrap()];
    let actions = check(&mut session, &world, Event::Contract, &["version_warning"]);
    assert_eq!(json_of(&actions[0])["requested_version"], served.to_string());
    check(&mut session, &world, Event::Contract, &[]);
    // Who asked for nothing has nothing to be warned of, and who was warned at the start knows.
    check(&mut opened(&world, &["tasks"]), &world, Event::Contract, &[]);
    let mut warned = Session::open(asked(served), &world, &mut Vec::new());
    check(&mut warned, &world, Event::Contract, &[]);
}

#[test]
fn a_session_opens_with_its_frames_before_what_it_joins() {
    let world = Script::new();
    let mut setup = setup(&["tasks", "zoo", "agents", "tasks"]);
    setup.since = since("tasks", 5);
    setup.wanted_version = Some(WantedVersion::Other("x".to_owned()));
    let mut actions = Vec::new();
    let session = Session::open(setup, &world, &mut actions);
    assert_eq!(
        brief(&world, &actions),
        [
            "connection_established",
            "version_warning",
            "error unknown_subscription",
            "dashboard_initialized",
            "join agents by snapshot",
            "join tasks after 5",
        ]
    );
    assert_eq!(json_of(&actions[3])["recovered"], json!({"agents": false, "tasks": true}));
    assert!(actions[..4].iter().all(|action| json_of(action)["correlation_id"] == "shake"));
    assert_eq!(session.joined().len(), 2);
}

#[test]
fn a_session_that_names_nothing_joins_what_its_route_does() {
    let world = Script::new();
    for endpoint in Endpoint::ALL {
        let setup = Setup { endpoint: *endpoint, subscriptions: None, ..setup(&[]) };
        let session = Session::open(setup, &world, &mut Vec::new());
        let names: Vec<String> = session.subscription_set(&world).iter().map(ToString::to_string).collect();
        assert_eq!(names, endpoint.default_subscriptions());
    }
}

#[test]
fn a_position_that_cannot_be_continued_starts_with_the_snapshot() {
    let world = Script::new();
    for (seq, start) in [
        (2, "join tasks by snapshot"),
        (3, "join tasks after 3"),
        (9, "join tasks after 9"),
        (10, "join tasks by snapshot"),
    ] {
        let mut actions = Vec::new();
        let setup = Setup { since: since("tasks", seq), ..setup(&["tasks"]) };
        Session::open(setup, &world, &mut actions);
        assert_eq!(brief(&world, &actions).last().unwrap(), start);
    }
}

#[test]
fn subscribing_says_the_errors_then_the_outcome_then_joins() {
    let world = Script::with(Limits { max_subscriptions_per_connection: 2, ..Limits::default() });
    let mut session = opened(&world, &["system"]);
    let text =
        r#"{"type":"subscribe","correlation_id":"c","subscriptions":["tasks","zoo","agents","agents"]}"#;
    let expected = [
        "error unknown_subscription",
        "error too_many_subscriptions",
        "subscription_updated",
        "join agents by snapshot",
    ];
    let actions = check(&mut session, &world, Event::Text(text), &expected);
    assert!(actions[..3].iter().all(|action| json_of(action)["correlation_id"] == "c"));
    assert_eq!(json_of(&actions[2])["subscriptions"], json!(["agents", "system"]));
    assert_eq!(json_of(&actions[2])["recovered"], json!({"agents": false}));
}

#[test]
fn what_is_joined_is_joined_again_only_from_a_position() {
    let world = Script::with(Limits { max_subscriptions_per_connection: 1, ..Limits::default() });
    let mut session = opened(&world, &["tasks"]);
    let text = r#"{"type":"subscribe","subscriptions":["tasks"]}"#;
    check(&mut session, &world, Event::Text(text), &["subscription_updated"]);
    for (seq, join) in [(4, "join tasks after 4"), (1, "join tasks by snapshot")] {
        let positions = serde_json::to_string(&since("tasks", seq)).unwrap();
        let text = format!(r#"{{"type":"subscribe","subscriptions":["tasks"],"since":{positions}}}"#);
        let expected = ["subscription_updated", "leave tasks", join];
        check(&mut session, &world, Event::Text(&text), &expected);
        assert!(session.joined().contains(world.sub("tasks")));
    }
}

#[test]
fn unsubscribing_leaves_what_is_joined_and_tolerates_the_rest() {
    let world = Script::new();
    let mut session = opened(&world, &["agents", "tasks"]);
    let text = r#"{"type":"unsubscribe","subscriptions":["zoo","tasks","system","tasks"]}"#;
    let actions = check(&mut session, &world, Event::Text(text), &["leave tasks", "subscription_updated"]);
    assert_eq!(json_of(&actions[1])["subscriptions"], json!(["agents"]));
}

#[test]
fn a_pong_shows_only_what_was_sent() {
    let mut world = Script::new();
    let mut session = opened(&world, &["tasks"]);
    let actions = check(&mut session, &world, Event::Text(r#"{"type":"ping"}"#), &["pong"]);
    assert_eq!(json_of(&actions[0])["positions"]["tasks"]["seq"], 9);
    world.has_sent_all = false;
    let actions = check(&mut session, &world, Event::Text(r#"{"type":"ping"}"#), &["pong"]);
    assert_eq!(json_of(&actions[0])["positions"], json!({}));
}

#[test]
fn data_is_asked_of_the_world_and_its_refusal_passed_on() {
    let world = Script::new();
    let mut session = opened(&world, &[]);
    let text = r#"{"type":"request_data","data_type":"agent_status","request_id":"r"}"#;
    let answer = check(&mut session, &world, Event::Text(text), &["data_response"]);
    assert_eq!(json_of(&answer[0])["data"], json!({"of": "agent_status"}));
    assert_eq!(json_of(&answer[0])["request_id"], "r");
    let text = r#"{"type":"request_data","data_type":"agent_status","params":{}}"#;
    let refusal = check(&mut session, &world, Event::Text(text), &["data_error"]);
    assert_eq!(json_of(&refusal[0])["code"], "data_unavailable");
    let text = r#"{"type":"request_data","data_type":"weather"}"#;
    let unknown = check(&mut session, &world, Event::Text(text), &["data_error"]);
    assert_eq!(json_of(&unknown[0])["code"], "unknown_data_type");
}

#[test]
fn messages_over_the_rate_are_dropped_and_told_once_per_cooldown() {
    let limits =
        Limits { rate_limit_tokens_per_second: 1, rate_limit_burst_capacity: 2, ..Limits::default() };
    let world = Script::with(limits);
    let mut session = opened(&world, &[]);
    check(&mut session, &world, Event::Text("{"), &["error invalid_json"]);
    check(&mut session, &world, Event::TooLarge, &["error message_too_large"]);
    let told = check(&mut session, &world, Event::Text("{"), &["dropped", "error rate_limited"]);
    assert_eq!(json_of(&told[1])["retry_after_ms"], 1_000);
    check(&mut session, &world, Event::TooLarge, &["dropped"]);
    // A protocol ping costs a token as well, and is passed over without one.
    check(&mut session, &world, Event::Ping, &[]);
    check(&mut session, world.at(1_000), Event::Ping, &["protocol pong"]);
    check(&mut session, world.at(4_999), Event::Text("{"), &["error invalid_json"]);
}

#[test]
fn drops_without_end_end_the_session() {
    let limits = Limits {
        rate_limit_tokens_per_second: 1,
        rate_limit_burst_capacity: 1,
        rate_limit_abuse_seconds: 2,
        ..Limits::default()
    };
    let world = Script::with(limits);
    let mut session = opened(&world, &[]);
    check(&mut session, &world, Event::Text("{"), &["error invalid_json"]);
    check(&mut session, &world, Event::Text("{"), &["dropped", "error rate_limited"]);
    check(&mut session, world.at(1_500), Event::Text("{"), &["error invalid_json"]);
    let expected = ["dropped", "disconnect_notice", "close rate_limit_abuse"];
    let actions = check(&mut session, &world, Event::Text("{"), &expected);
    assert_eq!(json_of(&actions[1])["code"], 1008);
}

#[test]
fn a_quiet_session_gets_a_ping_and_a_heartbeat_and_is_closed_without_a_pong() {
    let world = Script::new();
    let mut session = opened(&world, &["tasks"]);
    check(&mut session, world.at(24_999), Event::Tick, &[]);
    let actions = check(&mut session, world.at(25_000), Event::Tick, &["protocol ping", "heartbeat"]);
    assert_eq!(json_of(&actions[1])["positions"]["tasks"]["seq"], 9);
    assert_eq!(session.next_deadline(world.limits()), Moment::from_millis(35_000));
    check(&mut session, world.at(34_999), Event::Tick, &[]);
    let expected = ["disconnect_notice", "close heartbeat_timeout"];
    let actions = check(&mut session, world.at(35_000), Event::Tick, &expected);
    assert_eq!(json_of(&actions[0])["code"], 4408);
    assert_eq!(json_of(&actions[0])["detail"], "no pong within 10 s");
}

#[test]
fn a_pong_keeps_a_session_but_not_from_being_idle() {
    let world = Script::with(Limits { idle_disconnect_seconds: 60, ..Limits::default() });
    let mut session = opened(&world, &[]);
    for seconds in [25, 50] {
        check(&mut session, world.at(seconds * 1_000), Event::Tick, &["protocol ping", "heartbeat"]);
        check(&mut session, &world, Event::Pong, &[]);
        session.sent(world.now());
    }
    check(&mut session, world.at(59_999), Event::Tick, &[]);
    let expected = ["disconnect_notice", "close idle_timeout"];
    let actions = check(&mut session, world.at(60_000), Event::Tick, &expected);
    assert_eq!(json_of(&actions[0])["reason"], "idle_timeout");
}

#[test]
fn even_a_message_that_is_wrong_or_dropped_keeps_a_session_from_being_idle() {
    let limits = Limits {
        idle_disconnect_seconds: 10,
        rate_limit_burst_capacity: 1,
        rate_limit_tokens_per_second: 1,
        ..Limits::default()
    };
    let world = Script::with(limits);
    let mut session = opened(&world, &[]);
    handle(&mut session, world.at(9_000), Event::Text("{"));
    handle(&mut session, world.at(9_500), Event::Text("{"));
    check(&mut session, world.at(19_499), Event::Tick, &[]);
    check(&mut session, world.at(19_500), Event::Tick, &["disconnect_notice", "close idle_timeout"]);
}

#[test]
fn five_send_failures_in_a_row_end_the_session() {
    let world = Script::new();
    let mut session = opened(&world, &[]);
    for _ in 0..4 {
        check(&mut session, &world, Event::SendFailed, &[]);
    }
    session.sent(world.now());
    for _ in 0..4 {
        check(&mut session, &world, Event::SendFailed, &[]);
    }
    let expected = ["disconnect_notice", "close backpressure"];
    let actions = check(&mut session, &world, Event::SendFailed, &expected);
    assert_eq!(json_of(&actions[0])["code"], 1013);
}

#[test]
fn whoever_ends_a_session_says_why_and_when_to_come_back() {
    let world = Script::new();
    let mut session = opened(&world, &[]);
    let reason = DisconnectReason::Draining;
    let ending = Ending { retry_after_ms: Some(7), ..Ending::with_detail(reason, "soon".to_owned()) };
    let event = Event::Disconnect(ending);
    let actions = check(&mut session, &world, event, &["disconnect_notice", "close draining"]);
    let notice = json_of(&actions[0]);
    assert_eq!((&notice["detail"], &notice["retry_after_ms"]), (&json!("soon"), &json!(7)));
}

#[test]
fn a_binary_message_is_closed_without_a_notice_and_nothing_follows() {
    let world = Script::new();
    let mut session = opened(&world, &[]);
    check(&mut session, &world, Event::Binary, &["close binary_unsupported"]);
    check(&mut session, &world, Event::Text(r#"{"type":"ping"}"#), &[]);
    check(&mut session, world.at(3_600_000), Event::Tick, &[]);
}

/// One thing that happens to a session.
#[derive(Debug, Clone)]
enum Step {
    Text(String),
    TooLarge,
    Binary,
    Ping,
    Pong,
    Tick,
    SendFailed,
    Sent,
    Progressed,
    Disconnect(DisconnectReason),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let name = prop::sample::select(vec!["agents", "alerts", "tasks", "system", "zoo", "", "Ä"]);
    let names = prop::collection::vec(name, 0..5);
    let verb =
        prop::sample::select(vec!["subscribe", "unsubscribe", "ping", "request_data", "auth_refresh", "x"]);
    let position = prop::option::of((0..12_u64).prop_map(|seq| since("tasks", seq)));
    let message = (verb, names, position).prop_map(|(verb, names, since)| {
        let message = json!({
            "type": verb, "subscriptions": names, "since": since, "token": "t", "data_type": "agent_status",
        });
        Step::Text(message.to_string())
    });
    let reason = prop::sample::select(DisconnectReason::ALL.to_vec());
    prop_oneof![
        80 => message,
        20 => any::<String>().prop_map(Step::Text),
        10 => Just(Step::TooLarge),
        20 => Just(Step::Ping),
        30 => Just(Step::Pong),
        40 => Just(Step::Tick),
        20 => Just(Step::SendFailed),
        20 => Just(Step::Sent),
        10 => Just(Step::Progressed),
        60 => (0..30_000_u64).prop_map(Step::Wait),
        // What ends a session is rare, or little would be seen of what goes on.
        1 => Just(Step::Binary),
        1 => reason.prop_map(Step::Disconnect),
    ]
}

fn take(session: &mut Session, world: &Script, step: Step) -> Vec<Action> {
    let event = match &step {
        Step::Text(text) => Event::Text(text),
        Step::TooLarge => Event::TooLarge,
        Step::Binary => Event::Binary,
        Step::Ping => Event::Ping,
        Step::Pong => Event::Pong,
        Step::Tick => Event::Tick,
        Step::SendFailed => Event::SendFailed,
        Step::Disconnect(reason) => Event::Disconnect(Ending::new(*reason)),
        Step::Sent => {
            session.sent(world.now());
            return Vec::new();
        }
        Step::Progressed => {
            session.progressed(world.now());
            return Vec::new();
        }
        Step::Wait(ms) => {
            world.now.set(world.now.get() + ms);
            return Vec::new();
        }
    };
    handle(session, world, event)
}

proptest! {
    #[test]
    fn whatever_happens_a_session_is_in_order(
        steps in prop::collection::vec(steps(), 0..200),
        subscriptions_max in 1..5_u64,
    ) {
        let limits = Limits {
            max_subscriptions_per_connection: subscriptions_max,
            rate_limit_abuse_seconds: 5,
            idle_disconnect_seconds: 120,
            ..Limits::default()
        };
        let world = Script::with(limits);
        let mut actions = Vec::new();
        let mut session = Session::open(setup(&["tasks", "system"]), &world, &mut actions);
        let (mut joined, mut closed) = (SubMask::default(), false);
        for step in std::iter::once(None).chain(steps.into_iter().map(Some)) {
            let is_tick = matches!(step, Some(Step::Tick));
            if let Some(step) = step {
                actions = take(&mut session, &world, step);
            }
            for action in &actions {
                prop_assert!(!closed, "nothing follows a close: {action:?}");
                match action {
                    // Every frame is one that a client can read.
                    Action::Send(frame) => {
                        let text = serde_json::to_string(frame).unwrap();
                        prop_assert_eq!(&serde_json::from_str::<ServerFrame>(&text).unwrap(), frame);
                    }
                    Action::Join(sub, _) => {
                        prop_assert!(!joined.contains(*sub));
                        joined.insert(*sub);
                    }
                    Action::Leave(sub) => {
                        prop_assert!(joined.contains(*sub));
                        joined.remove(*sub);
                    }
                    Action::Close(_) => closed = true,
                    Action::Dropped
                    | Action::Pong
                    | Action::Ping
                    | Action::Denied(..)
                    | Action::Refreshed
                    | Action::KeptInOutage => {}
                }
            }
            prop_assert_eq!(joined, session.joined());
            prop_assert!(joined.len() as u64 <= subscriptions_max);
            // A deadline that a tick leaves behind would wake the shard without end.
            prop_assert!(closed || !is_tick || session.next_deadline(world.limits()) > world.now());
        }
    }
}
