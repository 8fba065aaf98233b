//! Any value of any frame, for property tests.
//!
//! What the types leave open and the contract bounds elsewhere is kept within those bounds here: a `seq`
//! below 2^53 (the log counts it), a key under `data.id` that is one (publishing checks it), the answer
//! to a `data_type` with its members (the board makes it), a request id of at most 128 bytes (parsing
//! checks it).

use hiveops_proto::frame::{
    AuthExpiring, AuthRefresh, AuthRefreshed, Coalesced, ConnectionEstablished, ConnectionInfo,
    DashboardInitialized, DataError, DataResponse, DataType, DisconnectNotice, ErrorFrame, Heartbeat, Ping,
    Pong, Publication, RequestData, SessionLimits, Snapshot, SnapshotItem, Subscribe, SubscriptionUpdated,
    Unsubscribe, VersionWarning,
};
use hiveops_proto::path::Endpoint;
use hiveops_proto::position::{Recovered, SEQ_MAX};
use hiveops_proto::{
    ClientFrame, CloseCode, ConnectionId, Contract, ContractVersion, CorrelationId, DisconnectReason, Epoch,
    ErrorCode, Key, MessageKind, MessageType, NodeId, Payload, Position, Positions, ServerFrame,
    SubscriptionName, SubscriptionSet, Timestamp,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::select;
use proptest::strategy::BoxedStrategy;
use serde_json::{Map, Value, json};

/// A strategy for each server frame of a fixed type.
pub(crate) fn fixed_server_frames() -> Vec<(&'static str, BoxedStrategy<ServerFrame>)> {
    vec![
        ("connection_established", frame(connection_established())),
        ("dashboard_initialized", frame(dashboard_initialized())),
        ("snapshot", frame(snapshot())),
        ("subscription_updated", frame(subscription_updated())),
        ("pong", frame(pong())),
        ("heartbeat", frame(heartbeat())),
        ("coalesced", frame(coalesced())),
        ("data_response", frame(data_response())),
        ("data_error", frame(data_error())),
        ("error", frame(error())),
        ("auth_expiring", frame(auth_expiring())),
        ("auth_refreshed", frame(auth_refreshed())),
        ("version_warning", frame(version_warning())),
        ("disconnect_notice", frame(disconnect_notice())),
    ]
}

/// A strategy for each client frame.
pub(crate) fn client_frames() -> Vec<(&'static str, BoxedStrategy<ClientFrame>)> {
    vec![
        ("ping", own_id().prop_map(|correlation_id| ClientFrame::Ping(Ping { correlation_id })).boxed()),
        ("subscribe", subscribe().prop_map(ClientFrame::Subscribe).boxed()),
        ("unsubscribe", unsubscribe().prop_map(ClientFrame::Unsubscribe).boxed()),
        ("request_data", request_data().prop_map(ClientFrame::RequestData).boxed()),
        ("auth_refresh", auth_refresh().prop_map(ClientFrame::AuthRefresh).boxed()),
    ]
}

/// A publication of a message type that the contract declares.
pub(crate) fn declared_publication() -> impl Strategy<Value = Publication> {
    select(declared()).prop_flat_map(|(subscription, message_type, kind)| {
        let data = match (message_type.as_str(), kind) {
            ("critical_alert", _) => alerts().boxed(),
            (_, MessageKind::Update) => update_data().boxed(),
            (_, MessageKind::Event) => data().boxed(),
        };
        publication(Just(subscription), Just(message_type), data)
    })
}

/// A publication of any type that a later contract might declare.
pub(crate) fn any_publication() -> impl Strategy<Value = Publication> {
    let message_type =
        "[a-z][a-z0-9_]{0,20}_(update|event)".prop_map(|name| MessageType::new(&name).unwrap());
    publication(subscription(), message_type, data())
}

fn frame<T: Into<ServerFrame> + std::fmt::Debug + 'static>(
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<ServerFrame> {
    strategy.prop_map(Into::into).boxed()
}

fn declared() -> Vec<(SubscriptionName, MessageType, MessageKind)> {
    let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
    let of = |name: SubscriptionName, messages: Vec<hiveops_proto::contract::MessageSpec>| {
        messages.into_iter().map(move |message| (name.clone(), message.message_type, message.kind))
    };
    contract
        .subscriptions
        .into_iter()
        .flat_map(|subscription| of(subscription.name, subscription.messages))
        .collect()
}

fn publication(
    subscription: impl Strategy<Value = SubscriptionName>,
    message_type: impl Strategy<Value = MessageType>,
    data: impl Strategy<Value = Payload>,
) -> impl Strategy<Value = Publication> {
    let head = (message_type, id(), option::of(".{0,40}"), time(), subscription);
    let place = (epoch(), 1..=SEQ_MAX, 0..=SEQ_MAX, any::<bool>());
    (head, place, data).prop_map(|(head, (epoch, seq, prev_seq, replayed), data)| {
        let (message_type, correlation_id, source_correlation_id, timestamp, subscription) = head;
        Publication {
            message_type,
            correlation_id,
            source_correlation_id,
            timestamp,
            subscription,
            epoch,
            seq,
            prev_seq,
            replayed,
            data,
        }
    })
}

fn id() -> impl Strategy<Value = CorrelationId> {
    "[A-Za-z0-9._:-]{1,128}".prop_map(|text| CorrelationId::new(&text).unwrap())
}

fn own_id() -> impl Strategy<Value = Option<CorrelationId>> {
    option::of(id())
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..=253_370_764_799_999_i64).prop_map(Timestamp::from_millis)
}

fn connection() -> impl Strategy<Value = ConnectionId> {
    "[A-Za-z0-9._:-]{1,128}".prop_map(|text| ConnectionId::new(&text).unwrap())
}

fn node() -> impl Strategy<Value = NodeId> {
    "[A-Za-z0-9._:-]{1,64}".prop_map(|text| NodeId::new(&text).unwrap())
}

fn epoch() -> impl Strategy<Value = Epoch> {
    "[a-z0-9]{1,32}".prop_map(|text| Epoch::new(&text).unwrap())
}

fn subscription() -> impl Strategy<Value = SubscriptionName> {
    "[a-z][a-z0-9_]{0,31}".prop_map(|text| SubscriptionName::new(&text).unwrap())
}

fn key() -> impl Strategy<Value = Key> {
    r"\PC{1,64}".prop_map(|text| Key::new(&text).unwrap())
}

fn version() -> impl Strategy<Value = ContractVersion> {
    any::<(u32, u32, u32)>().prop_map(|(major, minor, patch)| ContractVersion { major, minor, patch })
}

fn request_id() -> impl Strategy<Value = Option<String>> {
    // Four bytes a character at most: 128 in all.
    option::of(".{0,32}")
}

fn subscriptions() -> impl Strategy<Value = SubscriptionSet> {
    vec(subscription(), 0..4).prop_map(|names| names.into_iter().collect())
}

fn positions() -> impl Strategy<Value = Positions> {
    let position = (epoch(), 0..=SEQ_MAX).prop_map(|(epoch, seq)| Position { epoch, seq });
    btree_map(subscription(), position, 0..4)
}

fn recovered() -> impl Strategy<Value = Recovered> {
    btree_map(subscription(), any::<bool>(), 0..4)
}

/// Any JSON. Fractions are eighths, because reading other ones may change their last digit.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = proptest::prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        ".{0,16}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        proptest::prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,8}", inner, 0..4).prop_map(|members| Value::from(Map::from_iter(members))),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(".{0,8}", json_value(), 0..4).prop_map(Map::from_iter)
}

fn data() -> impl Strategy<Value = Payload> {
    object().prop_map(|members| Payload::from_value(&members).unwrap())
}

fn update_data() -> impl Strategy<Value = Payload> {
    let named = proptest::prop_oneof![
        key().prop_map(|key| Value::from(key.as_str())),
        any::<i64>().prop_map(Value::from),
    ];
    (object(), option::of(named), option::of(any::<bool>())).prop_map(|(mut members, named, deleted)| {
        members.remove("id");
        members.remove("deleted");
        members.extend(named.map(|named| ("id".to_owned(), named)));
        members.extend(deleted.map(|deleted| ("deleted".to_owned(), Value::from(deleted))));
        Payload::from_value(&members).unwrap()
    })
}

fn alerts() -> impl Strategy<Value = Payload> {
    (object(), vec(json_value(), 0..3), ".{0,16}").prop_map(|(mut members, alerts, timestamp)| {
        members.extend([("alerts".to_owned(), alerts.into()), ("timestamp".to_owned(), timestamp.into())]);
        Payload::from_value(&members).unwrap()
    })
}

pub(crate) fn session_limits() -> impl Strategy<Value = SessionLimits> {
    vec(0..=SEQ_MAX, 7).prop_map(|numbers| SessionLimits {
        rate_limit_tokens_per_second: numbers[0],
        rate_limit_burst_capacity: numbers[1],
        rate_limit_notify_cooldown_seconds: numbers[2],
        max_inbound_message_bytes: numbers[3],
        max_subscriptions_per_connection: numbers[4],
        idle_disconnect_seconds: numbers[5],
        heartbeat_silence_seconds: numbers[6],
    })
}

fn connection_established() -> impl Strategy<Value = ConnectionEstablished> {
    let head = (id(), time(), connection(), option::of(connection()), subscriptions());
    let rest = (time(), node(), version(), vec(version(), 0..3), session_limits());
    (head, rest).prop_map(|(head, (server_time, node_id, contract_version, supported_versions, limits))| {
        let (correlation_id, timestamp, connection_id, requested_connection_id, subscriptions) = head;
        ConnectionEstablished {
            correlation_id,
            timestamp,
            connection_id,
            requested_connection_id,
            subscriptions,
            server_time,
            node_id,
            contract_version,
            supported_versions,
            limits,
        }
    })
}

pub(crate) fn connection_info() -> impl Strategy<Value = ConnectionInfo> {
    (connection(), select(Endpoint::ALL), time(), node()).prop_map(
        |(connection_id, endpoint, connected_at, node_id)| ConnectionInfo {
            connection_id,
            connection_type: endpoint.as_str().to_owned(),
            connected_at,
            node_id,
        },
    )
}

fn dashboard_initialized() -> impl Strategy<Value = DashboardInitialized> {
    let head = (id(), time(), subscriptions(), connection_info());
    (head, version(), positions(), recovered()).prop_map(
        |(
            (correlation_id, timestamp, subscriptions, connection_info),
            contract_version,
            positions,
            recovered,
        )| {
            DashboardInitialized {
                correlation_id,
                timestamp,
                subscriptions,
                connection_info,
                contract_version,
                positions,
                recovered,
            }
        },
    )
}

pub(crate) fn snapshot_item() -> impl Strategy<Value = SnapshotItem> {
    let updates: Vec<MessageType> = declared()
        .into_iter()
        .filter(|(_, _, kind)| *kind == MessageKind::Update)
        .map(|(_, message_type, _)| message_type)
        .collect();
    (select(updates), key(), update_data(), 1..=SEQ_MAX)
        .prop_map(|(message_type, key, data, seq)| SnapshotItem { message_type, key, data, seq })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let head = (id(), time(), subscription(), epoch(), 0..=SEQ_MAX);
    (head, vec(snapshot_item(), 0..4), 1..=u32::MAX, 1..=u32::MAX).prop_map(
        |((correlation_id, timestamp, subscription, epoch, seq), items, part, parts)| Snapshot {
            correlation_id,
            timestamp,
            subscription,
            epoch,
            seq,
            items,
            part,
            parts,
        },
    )
}

fn subscription_updated() -> impl Strategy<Value = SubscriptionUpdated> {
    (id(), time(), subscriptions(), positions(), recovered()).prop_map(
        |(correlation_id, timestamp, subscriptions, positions, recovered)| SubscriptionUpdated {
            correlation_id,
            timestamp,
            subscriptions,
            positions,
            recovered,
        },
    )
}

fn pong() -> impl Strategy<Value = Pong> {
    (id(), time(), positions(), any::<bool>()).prop_map(|(correlation_id, timestamp, positions, live)| Pong {
        correlation_id,
        timestamp,
        positions,
        live,
    })
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    pong().prop_map(|Pong { correlation_id, timestamp, positions, live }| Heartbeat {
        correlation_id,
        timestamp,
        positions,
        live,
    })
}

fn coalesced() -> impl Strategy<Value = Coalesced> {
    (id(), time(), subscription(), epoch(), 1..=SEQ_MAX, 1..=SEQ_MAX, 1..=SEQ_MAX).prop_map(
        |(correlation_id, timestamp, subscription, epoch, from_seq, to_seq, count)| Coalesced {
            correlation_id,
            timestamp,
            subscription,
            epoch,
            from_seq,
            to_seq,
            count,
        },
    )
}

/// The answer to a `data_type`: the members that the contract names, and any others.
fn answer(data_type: DataType) -> impl Strategy<Value = Payload> {
    (object(), vec(object(), 0..3), 0..=SEQ_MAX).prop_map(move |(mut members, list, n)| {
        let counts = json!({ "some": n });
        let answer = match data_type {
            DataType::AgentStatus => {
                json!({ "agents": list, "summary": { "total": n, "active": n, "by_status": counts } })
            }
            DataType::CoordinationMetrics => {
                json!({ "success_rate": 0.5, "trend": "stable", "total_tasks": n, "window_seconds": n })
            }
            DataType::TaskDistribution => json!({
                "queue_length": n, "in_progress": n, "failed_recent": n, "by_status": counts, "by_agent": counts
            }),
            DataType::SystemHealth => json!({
                "overall_status": "healthy", "components": { "bus": {}, "control": {}, "nodes": list }
            }),
        };
        let Value::Object(answer) = answer else { panic!("an answer is an object") };
        members.extend(answer);
        Payload::from_value(&members).unwrap()
    })
}

fn data_response() -> impl Strategy<Value = DataResponse> {
    let answer = select(DataType::ALL).prop_flat_map(|kind| (Just(kind), answer(kind)));
    (id(), time(), answer, request_id()).prop_map(
        |(correlation_id, timestamp, (data_type, data), request_id)| DataResponse {
            correlation_id,
            timestamp,
            data_type,
            data,
            request_id,
        },
    )
}

fn data_error() -> impl Strategy<Value = DataError> {
    (id(), time(), ".{0,20}", ".{0,40}", select(ErrorCode::ALL), request_id()).prop_map(
        |(correlation_id, timestamp, data_type, error, code, request_id)| DataError {
            correlation_id,
            timestamp,
            data_type,
            error,
            code,
            request_id,
        },
    )
}

fn error() -> impl Strategy<Value = ErrorFrame> {
    (id(), time(), ".{0,40}", select(ErrorCode::ALL), option::of(0..=SEQ_MAX)).prop_map(
        |(correlation_id, timestamp, message, code, retry_after_ms)| ErrorFrame {
            correlation_id,
            timestamp,
            message,
            code,
            retry_after_ms,
        },
    )
}

fn auth_expiring() -> impl Strategy<Value = AuthExpiring> {
    (id(), time(), time()).prop_map(|(correlation_id, timestamp, expires_at)| AuthExpiring {
        correlation_id,
        timestamp,
        expires_at,
    })
}

fn auth_refreshed() -> impl Strategy<Value = AuthRefreshed> {
    (id(), time(), time()).prop_map(|(correlation_id, timestamp, expires_at)| AuthRefreshed {
        correlation_id,
        timestamp,
        expires_at,
    })
}

fn version_warning() -> impl Strategy<Value = VersionWarning> {
    (id(), time(), ".{0,20}", version(), vec(version(), 0..3), ".{0,40}").prop_map(
        |(
            correlation_id,
            timestamp,
            requested_version,
            current_version,
            supported_versions,
            migration_url,
        )| {
            VersionWarning {
                correlation_id,
                timestamp,
                requested_version,
                current_version,
                supported_versions,
                migration_url,
            }
        },
    )
}

fn disconnect_notice() -> impl Strategy<Value = DisconnectNotice> {
    let words = (select(DisconnectReason::ALL), select(CloseCode::ALL));
    (id(), time(), words, option::of(0..=SEQ_MAX), option::of(".{0,40}")).prop_map(
        |(correlation_id, timestamp, (reason, code), retry_after_ms, detail)| DisconnectNotice {
            correlation_id,
            timestamp,
            reason,
            code,
            retry_after_ms,
            detail,
        },
    )
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    (own_id(), vec(".{0,20}", 0..4), positions())
        .prop_map(|(correlation_id, subscriptions, since)| Subscribe { correlation_id, subscriptions, since })
}

fn unsubscribe() -> impl Strategy<Value = Unsubscribe> {
    (own_id(), vec(".{0,20}", 0..4))
        .prop_map(|(correlation_id, subscriptions)| Unsubscribe { correlation_id, subscriptions })
}

fn request_data() -> impl Strategy<Value = RequestData> {
    (own_id(), ".{0,20}", option::of(object()), request_id()).prop_map(
        |(correlation_id, data_type, params, request_id)| RequestData {
            correlation_id,
            data_type,
            params,
            request_id,
        },
    )
}

fn auth_refresh() -> impl Strategy<Value = AuthRefresh> {
    (own_id(), ".{0,40}").prop_map(|(correlation_id, token)| AuthRefresh { correlation_id, token })
}
