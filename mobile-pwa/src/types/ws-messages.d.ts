/**
 * The WebSocket messages of HiveOps: `ServerFrame` and `ClientFrame`, told apart by `type`.
 *
 * Generated from schemas/ws_messages.schema.json by `npm -w mobile-pwa run generate:schemas`.
 * Do not edit: change the schema instead.
 */

/**
 * Every WebSocket message of HiveOps, contract 1.0. A node sends `ServerFrame`, a client sends `ClientFrame`: one JSON text message each, told apart by `type`. Additional members are allowed everywhere, and readers ignore what they do not know. How the frames follow each other is in docs/protocol.md.
 */
export type WsMessage = ServerFrame | ClientFrame;
/**
 * Every message that a node sends. `type` tells them apart. Members that a client does not know are to be ignored, and so is a frame whose `type` it does not know: a minor version may add some.
 */
export type ServerFrame =
  | ConnectionEstablished
  | DashboardInitialized
  | Snapshot
  | SubscriptionUpdated
  | Pong
  | Heartbeat
  | Coalesced
  | DataResponse
  | DataError
  | ErrorFrame
  | AuthExpiring
  | AuthRefreshed
  | VersionWarning
  | DisconnectNotice
  | Publication;
/**
 * Follows one cause from its publisher to every delivery. Ids that nodes make are UUIDv7.
 */
export type CorrelationId = string;
/**
 * RFC 3339 in UTC with milliseconds or finer.
 */
export type Timestamp = string;
/**
 * Names one accepted WebSocket.
 */
export type ConnectionId = string;
/**
 * The name of one channel. Contract 1.0 has `agents`, `alerts`, `coordination`, `project_index`, `system` and `tasks`; a minor version may add more.
 */
export type SubscriptionName = string;
/**
 * Names one edge node.
 */
export type NodeId = string;
/**
 * `MAJOR.MINOR.PATCH` of the contract: a major version breaks clients, a minor one adds, a patch clarifies.
 */
export type ContractVersion = string;
/**
 * The last segment of the WebSocket route.
 */
export type ConnectionType = 'dashboard' | 'agents' | 'coordination' | 'tasks' | 'system';
/**
 * One life of a subscription's log. Opaque: two epochs are equal or they are not.
 */
export type Epoch = string;
/**
 * A place in a subscription's log. 0 is the place before the first publication. It grows by one with each publication within an epoch.
 */
export type Seq = number;
/**
 * One key's latest value. `type` tells them apart.
 */
export type SnapshotItem =
  AgentUpdateItem | CoordinationUpdateItem | ProjectIndexUpdateItem | SystemUpdateItem | TaskUpdateItem;
/**
 * The latest value of one key that `agent_update` set.
 */
export type AgentUpdateItem = SnapshotItemBase & {
  type: 'agent_update';
  data: UpdateData;
};
/**
 * The `type` of a publication. Updates end in `_update`, events in `_event` or are `critical_alert`.
 */
export type MessageType = string;
/**
 * The key whose whole value an update carries: at most 256 bytes of UTF-8 without control characters.
 */
export type Key = string;
/**
 * The place of a publication in a subscription's log.
 */
export type PublicationSeq = number;
/**
 * The latest value of one key that `coordination_update` set.
 */
export type CoordinationUpdateItem = SnapshotItemBase & {
  type: 'coordination_update';
  data: UpdateData;
};
/**
 * The latest value of one key that `project_index_update` set.
 */
export type ProjectIndexUpdateItem = SnapshotItemBase & {
  type: 'project_index_update';
  data: UpdateData;
};
/**
 * The latest value of one key that `system_update` set.
 */
export type SystemUpdateItem = SnapshotItemBase & {
  type: 'system_update';
  data: UpdateData;
};
/**
 * The latest value of one key that `task_update` set.
 */
export type TaskUpdateItem = SnapshotItemBase & {
  type: 'task_update';
  data: UpdateData;
};
/**
 * Whether the node has proved lately that the bus delivers to it. While it is false, silence does not mean that nothing happens.
 */
export type Live = boolean;
/**
 * Answers `request_data`. `data_type` tells what is in `data`.
 */
export type DataResponse =
  AgentStatusResponse | CoordinationMetricsResponse | TaskDistributionResponse | SystemHealthResponse;
/**
 * Answers `request_data` for `agent_status`. The agents and how many there are in which status.
 */
export type AgentStatusResponse = DataResponseBase & {
  type: 'data_response';
  data_type: 'agent_status';
  data: AgentStatusData;
};
/**
 * What `request_data` can ask for.
 */
export type DataType = 'agent_status' | 'coordination_metrics' | 'task_distribution' | 'system_health';
/**
 * The client's own name for one request: at most 128 bytes of UTF-8.
 */
export type RequestId = string;
/**
 * Answers `request_data` for `coordination_metrics`. How many of the finished tasks went well, and how that changes.
 */
export type CoordinationMetricsResponse = DataResponseBase & {
  type: 'data_response';
  data_type: 'coordination_metrics';
  data: CoordinationMetricsData;
};
/**
 * Answers `request_data` for `task_distribution`. How the tasks lie: by status, by agent.
 */
export type TaskDistributionResponse = DataResponseBase & {
  type: 'data_response';
  data_type: 'task_distribution';
  data: TaskDistributionData;
};
/**
 * Answers `request_data` for `system_health`. The bus, the control plane and the nodes.
 */
export type SystemHealthResponse = DataResponseBase & {
  type: 'data_response';
  data_type: 'system_health';
  data: SystemHealthData;
};
/**
 * What went wrong, from a closed set in which each word has one meaning.
 *
 * - `invalid_json`: the message is not JSON.
 * - `invalid_message`: the message is JSON, but not one of the contract's; the text names the member.
 * - `unknown_message_type`: the contract has no client message of that `type`.
 * - `unknown_subscription`: the contract in force declares no such subscription; the text lists the names, sorted.
 * - `too_many_subscriptions`: the connection would hold more subscriptions than it may; those that fit were joined.
 * - `forbidden`: the role of this connection may not do that.
 * - `message_too_large`: the message is larger than the inbound limit and was not read.
 * - `rate_limited`: messages come faster than the inbound rate; this one was dropped.
 * - `unknown_data_type`: the contract has no such `data_type`.
 * - `data_unavailable`: the data exists, but cannot be had just now: try again.
 * - `internal`: a bug of ours; the log has the detail under the same `correlation_id`.
 */
export type ErrorCode =
  | 'invalid_json'
  | 'invalid_message'
  | 'unknown_message_type'
  | 'unknown_subscription'
  | 'too_many_subscriptions'
  | 'forbidden'
  | 'message_too_large'
  | 'rate_limited'
  | 'unknown_data_type'
  | 'data_unavailable'
  | 'internal';
/**
 * Why a session ended. The close frame carries the same word. Some are only seen in metrics, logs and close frames.
 *
 * - `idle_timeout`: no client message for the idle limit (4408).
 * - `heartbeat_timeout`: no answer to a protocol ping (4408).
 * - `backpressure`: the client reads too slowly (1013).
 * - `draining`: the node goes away in an orderly manner (1012).
 * - `admin`: an administrator ended the session (1000).
 * - `token_expired`: the credential expired and was not renewed (4401).
 * - `revoked`: the credential was revoked (4401).
 * - `rate_limit_abuse`: the client kept sending faster than the limit (1008).
 * - `credential_missing`: a credential is needed and there was none (4401).
 * - `credential_invalid`: the credential is not a valid one (4401).
 * - `origin_denied`: pages of this origin may not connect (4403).
 * - `connection_limit`: the cluster (1013) or the user (4403) has as many connections as allowed.
 * - `lease_lost`: the node could not renew its share of a cluster-wide limit (1013).
 * - `protocol_error`: the client broke the WebSocket protocol (1002).
 * - `binary_unsupported`: the client sent a binary message (1003).
 * - `invalid_utf8`: the client sent text that is not UTF-8 (1007).
 * - `message_too_big`: the client sent a message over the hard cap (1009).
 * - `internal_error`: a bug of ours (1011).
 * - `client_closed`: the client closed the connection properly (1000).
 * - `client_gone`: the connection broke, or ended without a close frame (1001).
 * - `server_shutdown`: the node stopped without waiting (1001).
 */
export type DisconnectReason =
  | 'idle_timeout'
  | 'heartbeat_timeout'
  | 'backpressure'
  | 'draining'
  | 'admin'
  | 'token_expired'
  | 'revoked'
  | 'rate_limit_abuse'
  | 'credential_missing'
  | 'credential_invalid'
  | 'origin_denied'
  | 'connection_limit'
  | 'lease_lost'
  | 'protocol_error'
  | 'binary_unsupported'
  | 'invalid_utf8'
  | 'message_too_big'
  | 'internal_error'
  | 'client_closed'
  | 'client_gone'
  | 'server_shutdown';
/**
 * The WebSocket close codes that nodes send, and what a client does.
 *
 * - `1000`: done; also an administrator's disconnect.
 * - `1001`: the node stops at once: reconnect with backoff.
 * - `1002`: the client broke the WebSocket protocol: a bug of the client.
 * - `1003`: the client sent a binary message: a bug of the client.
 * - `1007`: the client sent text that is not UTF-8: a bug of the client.
 * - `1008`: the inbound rate was exceeded without end: slow down before reconnecting.
 * - `1009`: a frame or message over the hard cap: do not send it again.
 * - `1011`: a bug of ours: reconnect with backoff.
 * - `1012`: the node drains: reconnect after `retry_after_ms`.
 * - `1013`: overload or backpressure: reconnect with backoff.
 * - `4401`: the credential is missing, invalid or expired: renew it, then reconnect.
 * - `4403`: the origin or the permission: do not reconnect without a human.
 * - `4408`: no message, or no answer to a ping, for too long: reconnect.
 */
export type CloseCode =
  1000 | 1001 | 1002 | 1003 | 1007 | 1008 | 1009 | 1011 | 1012 | 1013 | 4401 | 4403 | 4408;
/**
 * Every message type that contract 1.0 declares. `type` tells them apart.
 */
export type Publication =
  | AgentEvent
  | AgentUpdate
  | CoordinationEvent
  | CoordinationUpdate
  | CriticalAlert
  | ProjectIndexEvent
  | ProjectIndexUpdate
  | SystemEvent
  | SystemUpdate
  | TaskEvent
  | TaskUpdate;
/**
 * An occurrence on `agents`. It is never coalesced and no part of a snapshot.
 */
export type AgentEvent = PublicationBase & {
  type: 'agent_event';
  subscription: 'agents';
  data: Data;
};
/**
 * One agent, whole: it takes the place of what was there under the same key. Comes on `agents`.
 */
export type AgentUpdate = PublicationBase & {
  type: 'agent_update';
  subscription: 'agents';
  data: UpdateData;
};
/**
 * An occurrence on `coordination`. It is never coalesced and no part of a snapshot.
 */
export type CoordinationEvent = PublicationBase & {
  type: 'coordination_event';
  subscription: 'coordination';
  data: Data;
};
/**
 * How the work as a whole goes, whole: it takes the place of what was there under the same key. Comes on `coordination`.
 */
export type CoordinationUpdate = PublicationBase & {
  type: 'coordination_update';
  subscription: 'coordination';
  data: UpdateData;
};
/**
 * What people must see at once. It is never coalesced and no part of a snapshot. Comes on `alerts`.
 */
export type CriticalAlert = PublicationBase & {
  type: 'critical_alert';
  subscription: 'alerts';
  data: AlertData;
};
/**
 * An occurrence on `project_index`. It is never coalesced and no part of a snapshot.
 */
export type ProjectIndexEvent = PublicationBase & {
  type: 'project_index_event';
  subscription: 'project_index';
  data: Data;
};
/**
 * Progress of one project's indexing, whole: it takes the place of what was there under the same key. Comes on `project_index`.
 */
export type ProjectIndexUpdate = PublicationBase & {
  type: 'project_index_update';
  subscription: 'project_index';
  data: UpdateData;
};
/**
 * An occurrence on `system`. It is never coalesced and no part of a snapshot.
 */
export type SystemEvent = PublicationBase & {
  type: 'system_event';
  subscription: 'system';
  data: Data;
};
/**
 * The health of one node, whole: it takes the place of what was there under the same key. Comes on `system`.
 */
export type SystemUpdate = PublicationBase & {
  type: 'system_update';
  subscription: 'system';
  data: UpdateData;
};
/**
 * An occurrence on `tasks`. It is never coalesced and no part of a snapshot.
 */
export type TaskEvent = PublicationBase & {
  type: 'task_event';
  subscription: 'tasks';
  data: Data;
};
/**
 * One task, whole: it takes the place of what was there under the same key. Comes on `tasks`.
 */
export type TaskUpdate = PublicationBase & {
  type: 'task_update';
  subscription: 'tasks';
  data: UpdateData;
};
/**
 * Every message that a client may send. `type` tells them apart. Each is answered; anything else is answered with an `error`.
 */
export type ClientFrame = Ping | Subscribe | Unsubscribe | RequestData | AuthRefresh;

/**
 * The first frame of every session: its name, what it is subscribed to, and the thresholds a client must know to behave.
 */
export interface ConnectionEstablished {
  type: 'connection_established';
  /**
   * Follows the handshake.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * The name of this session.
   */
  connection_id: ConnectionId;
  /**
   * The name the client wished for and did not get, because a live session holds it. Absent otherwise.
   */
  requested_connection_id?: ConnectionId;
  /**
   * What the session is subscribed to: unique, in the order of the alphabet.
   */
  subscriptions: SubscriptionName[];
  /**
   * The node's clock.
   */
  server_time: Timestamp;
  /**
   * The node that holds the connection.
   */
  node_id: NodeId;
  /**
   * The contract version in force.
   */
  contract_version: ContractVersion;
  /**
   * The contract versions that a client may ask for, oldest first.
   */
  supported_versions: ContractVersion[];
  /**
   * The thresholds of this session.
   */
  limits: SessionLimits;
}
/**
 * The thresholds of this session. `GET /api/dashboard/websocket/limits` has every threshold with its source.
 */
export interface SessionLimits {
  /**
   * Messages per second that the client may send for long.
   */
  rate_limit_tokens_per_second: number;
  /**
   * Messages that it may send at once.
   */
  rate_limit_burst_capacity: number;
  /**
   * Least seconds between two `rate_limited` errors.
   */
  rate_limit_notify_cooldown_seconds: number;
  /**
   * Bytes of one message; exactly that many are allowed.
   */
  max_inbound_message_bytes: number;
  /**
   * Subscriptions of one connection.
   */
  max_subscriptions_per_connection: number;
  /**
   * Seconds without a client message after which the node closes with 4408.
   */
  idle_disconnect_seconds: number;
  /**
   * Seconds of silence after which the node sends a `heartbeat`.
   */
  heartbeat_silence_seconds: number;
}
/**
 * Follows `connection_established` on every route. The snapshot or replay of each subscription joined comes after it.
 */
export interface DashboardInitialized {
  type: 'dashboard_initialized';
  /**
   * Follows the handshake.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * What the session is subscribed to: unique, in the order of the alphabet.
   */
  subscriptions: SubscriptionName[];
  /**
   * The session, as the node knows it.
   */
  connection_info: ConnectionInfo;
  /**
   * The contract version in force.
   */
  contract_version: ContractVersion;
  /**
   * The head of each subscription joined.
   */
  positions: Positions;
  /**
   * For each subscription joined: `true` if a replay continues from the client's `since`, `false` if a snapshot follows.
   */
  recovered: Recovered;
}
/**
 * What a node knows of a session.
 */
export interface ConnectionInfo {
  /**
   * The name of the session.
   */
  connection_id: ConnectionId;
  /**
   * The route it came in by.
   */
  connection_type: ConnectionType;
  /**
   * When it was accepted.
   */
  connected_at: Timestamp;
  /**
   * The node that holds it.
   */
  node_id: NodeId;
}
/**
 * A position for each of several subscriptions.
 */
export interface Positions {
  [k: string]: Position;
}
/**
 * A point in one subscription's log.
 */
export interface Position {
  /**
   * The life of the log that `seq` counts in.
   */
  epoch: Epoch;
  /**
   * The publication that was the last one seen.
   */
  seq: Seq;
}
/**
 * For each subscription by name: whether it goes on where the client left off.
 */
export interface Recovered {
  [k: string]: boolean;
}
/**
 * The latest value of every key of one subscription at one position, or a part of it. A client collects the parts, replaces what it held for the subscription once all are there, and stands at `epoch` and `seq` from then on. An empty subscription has one part without items.
 */
export interface Snapshot {
  type: 'snapshot';
  /**
   * Follows the making of this snapshot, which many sessions may share.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * The subscription.
   */
  subscription: SubscriptionName;
  /**
   * The life of its log.
   */
  epoch: Epoch;
  /**
   * The position that the whole stands for: what comes after it has a greater `seq`.
   */
  seq: Seq;
  /**
   * The values in the order of their `seq`.
   */
  items: SnapshotItem[];
  /**
   * Which part this is, from 1.
   */
  part: number;
  /**
   * How many parts there are.
   */
  parts: number;
}
/**
 * What every item of a snapshot has, whatever its type.
 */
export interface SnapshotItemBase {
  /**
   * The `type` of the update that set it.
   */
  type: MessageType;
  /**
   * The key.
   */
  key: Key;
  /**
   * The value, whole.
   */
  data: Data;
  /**
   * The publication that set it.
   */
  seq: PublicationSeq;
}
/**
 * One JSON object. In contract 1.0 its members are the publisher's affair.
 */
export interface Data {
  [k: string]: unknown;
}
/**
 * The whole value of one key. Its other members are the publisher's affair.
 */
export interface UpdateData {
  /**
   * The key. Without it the key is the message type, so that there is one value for all.
   */
  id?: string | number;
  /**
   * True removes the key; the other members mean nothing then.
   */
  deleted?: boolean;
  [k: string]: unknown;
}
/**
 * Answers `subscribe` and `unsubscribe`, always, after the errors if there are any. The snapshot or replay of each newly joined subscription follows it.
 */
export interface SubscriptionUpdated {
  type: 'subscription_updated';
  /**
   * The client's own, when the message that this answers had one.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * Everything the session is subscribed to now: unique, in the order of the alphabet.
   */
  subscriptions: SubscriptionName[];
  /**
   * The head of each subscription of the session: the place of its newest publication.
   */
  positions: Positions;
  /**
   * For each newly joined subscription: `true` if a replay continues from the client's `since`, `false` if a snapshot follows.
   */
  recovered: Recovered;
}
/**
 * Answers `ping`.
 */
export interface Pong {
  type: 'pong';
  /**
   * The client's own, when the message that this answers had one.
   */
  correlation_id: CorrelationId;
  /**
   * The node's clock.
   */
  timestamp: Timestamp;
  /**
   * The head of each subscription of the session: the place of its newest publication.
   */
  positions: Positions;
  live: Live;
}
/**
 * Sent after 25 seconds in which the node had nothing to send. A head beyond the client's own position means that the tail of the log was lost on the way: subscribe again with `since`.
 */
export interface Heartbeat {
  type: 'heartbeat';
  /**
   * Follows this heartbeat.
   */
  correlation_id: CorrelationId;
  /**
   * The node's clock.
   */
  timestamp: Timestamp;
  /**
   * The head of each subscription of the session: the place of its newest publication.
   */
  positions: Positions;
  live: Live;
}
/**
 * Publications that this session does not get, because later values took their place. It comes before the next frame of the subscription. A client takes it as a known omission and moves its position to `to_seq`; it is not a gap.
 */
export interface Coalesced {
  type: 'coalesced';
  /**
   * Follows this notice.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * The subscription.
   */
  subscription: SubscriptionName;
  /**
   * The life of its log.
   */
  epoch: Epoch;
  /**
   * The first one left out.
   */
  from_seq: PublicationSeq;
  /**
   * The last one left out.
   */
  to_seq: PublicationSeq;
  /**
   * How many were left out.
   */
  count: number;
}
/**
 * What every `data_response` has, whatever its `data_type`.
 */
export interface DataResponseBase {
  type: 'data_response';
  /**
   * The client's own, when the request had one.
   */
  correlation_id: CorrelationId;
  /**
   * When the data was read.
   */
  timestamp: Timestamp;
  /**
   * What was asked for.
   */
  data_type: DataType;
  /**
   * The answer, computed from the live state; its members depend on `data_type`.
   */
  data: Data;
  /**
   * The request's, unchanged. Absent if it had none.
   */
  request_id?: RequestId;
}
/**
 * The `data` of a response for `agent_status`.
 */
export interface AgentStatusData {
  /**
   * The agents, each as its latest `agent_update` has it.
   */
  agents: Data[];
  /**
   * The agents in numbers.
   */
  summary: {
    /**
     * All of them.
     */
    total: number;
    /**
     * Those that are active, idle or busy.
     */
    active: number;
    /**
     * How many are in each status.
     */
    by_status: {
      [k: string]: number;
    };
    [k: string]: unknown;
  };
  /**
   * True if there are more agents than `agents` lists; `params.limit` asks for another number.
   */
  truncated?: boolean;
  [k: string]: unknown;
}
/**
 * The `data` of a response for `coordination_metrics`.
 */
export interface CoordinationMetricsData {
  /**
   * The share of tasks finished in the window that were completed, from 0 to 1; `null` when none was finished.
   */
  success_rate: number | null;
  /**
   * How the newer half of the window compares with the older: `improving`, `stable`, `declining`, or `unknown` when one half has no finished task.
   */
  trend: string;
  /**
   * All tasks.
   */
  total_tasks: number;
  /**
   * The length of the window.
   */
  window_seconds: number;
  [k: string]: unknown;
}
/**
 * The `data` of a response for `task_distribution`.
 */
export interface TaskDistributionData {
  /**
   * Tasks that wait.
   */
  queue_length: number;
  /**
   * Tasks that somebody works on.
   */
  in_progress: number;
  /**
   * Tasks that failed lately.
   */
  failed_recent: number;
  /**
   * How many are in each status.
   */
  by_status: {
    [k: string]: number;
  };
  /**
   * How many unfinished ones each agent has.
   */
  by_agent: {
    [k: string]: number;
  };
  /**
   * Unfinished ones that nobody has.
   */
  unassigned?: number;
  /**
   * What lately means for `failed_recent`.
   */
  window_seconds?: number;
  /**
   * True if there are more agents than `by_agent` names.
   */
  truncated?: boolean;
  [k: string]: unknown;
}
/**
 * The `data` of a response for `system_health`.
 */
export interface SystemHealthData {
  /**
   * The whole in one word: `healthy`, `degraded` or `unhealthy`.
   */
  overall_status: string;
  /**
   * The parts.
   */
  components: {
    /**
     * The bus, as this node sees it.
     */
    bus: Data;
    /**
     * The control plane, as this node sees it.
     */
    control: Data;
    /**
     * The edge nodes.
     */
    nodes: Data[];
    [k: string]: unknown;
  };
  [k: string]: unknown;
}
/**
 * Answers `request_data` when there is no data.
 */
export interface DataError {
  type: 'data_error';
  /**
   * The client's own, when the message that this answers had one.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * What was asked for, known or not.
   */
  data_type: string;
  /**
   * For people. Begins with `Unknown data type: ` and the name when the contract has no such data type.
   */
  error: string;
  /**
   * For programs.
   */
  code: ErrorCode;
  /**
   * The request's, unchanged. Absent if it had none.
   */
  request_id?: RequestId;
}
/**
 * Something the client sent was not done, or not all of it. The session goes on.
 */
export interface ErrorFrame {
  type: 'error';
  /**
   * The client's own, when the message that this answers had one.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * For people, beginning with a phrase that clients may match: `Unknown message type: X`, `Invalid JSON message format`, `Message too large`, `Rate limit exceeded`, `Invalid subscription(s): a, b` (sorted), `Too many subscriptions requested`.
   */
  message: string;
  /**
   * For programs.
   */
  code: ErrorCode;
  /**
   * When it is worth trying again. Absent if that is not a matter of time.
   */
  retry_after_ms?: number;
}
/**
 * The credential of the socket runs out soon: send `auth_refresh` with a new one.
 */
export interface AuthExpiring {
  type: 'auth_expiring';
  /**
   * Follows this notice.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * When the credential ends. Without a new one the node closes with 4401 then.
   */
  expires_at: Timestamp;
}
/**
 * Answers `auth_refresh`: the new credential is in force.
 */
export interface AuthRefreshed {
  type: 'auth_refreshed';
  /**
   * The client's own, when the message that this answers had one.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * When the new credential ends.
   */
  expires_at: Timestamp;
}
/**
 * The client asked with `contract_version` for a version that is not supported. It is served all the same, in the version in force. A client warns its user and counts it with `POST /api/dashboard/telemetry/version-mismatch`.
 */
export interface VersionWarning {
  type: 'version_warning';
  /**
   * Follows the handshake.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * What the client asked for.
   */
  requested_version: string;
  /**
   * The contract version in force.
   */
  current_version: ContractVersion;
  /**
   * The contract versions that a client may ask for, oldest first.
   */
  supported_versions: ContractVersion[];
  /**
   * Where the way from one version to the next is described; a path is one on the node.
   */
  migration_url: string;
}
/**
 * The last frame before the node closes an established session. Refusals at the handshake and violations of the WebSocket protocol have only the close frame.
 */
export interface DisconnectNotice {
  type: 'disconnect_notice';
  /**
   * Follows the disconnect into the log.
   */
  correlation_id: CorrelationId;
  /**
   * When the frame was made.
   */
  timestamp: Timestamp;
  /**
   * Why, in one word; the close frame has the same.
   */
  reason: DisconnectReason;
  /**
   * The close code that follows.
   */
  code: CloseCode;
  /**
   * How long to wait before connecting again. Absent if the node has no opinion.
   */
  retry_after_ms?: number;
  /**
   * More for people: an administrator's words, the limit that was passed.
   */
  detail?: string;
}
/**
 * What every publication has, whatever its type. Each message type of the contract version is a definition of its own that builds on this one.
 */
export interface PublicationBase {
  /**
   * The message type: `*_update` carries the whole value of one key, `*_event` and `critical_alert` are occurrences.
   */
  type: MessageType;
  /**
   * The publisher's own, or made when the publication came in. The same on every node and in every log line.
   */
  correlation_id: CorrelationId;
  /**
   * What the publisher had sent as its id, when it could not be taken over as it was. Absent otherwise.
   */
  source_correlation_id?: string;
  /**
   * When it was published.
   */
  timestamp: Timestamp;
  /**
   * The subscription.
   */
  subscription: SubscriptionName;
  /**
   * The life of the subscription's log. Another one than before means: start again from a snapshot.
   */
  epoch: Epoch;
  /**
   * Its place in the log.
   */
  seq: PublicationSeq;
  /**
   * The place before it. A client that stands elsewhere has missed something.
   */
  prev_seq: Seq;
  /**
   * True if it was sent again because the client asked with `since`. Absent otherwise.
   */
  replayed?: boolean;
  /**
   * What was published.
   */
  data: Data;
}
/**
 * The alerts and when they were raised.
 */
export interface AlertData {
  /**
   * The alerts, as their publisher writes them; usually objects with `id`, `severity` and `message`.
   */
  alerts: unknown[];
  /**
   * When they were raised.
   */
  timestamp: string;
  [k: string]: unknown;
}
/**
 * Asks for a `pong`. It also counts as a sign of life against the idle limit.
 */
export interface Ping {
  type: 'ping';
  /**
   * The client's own. The reply carries it; without one the node makes one.
   */
  correlation_id?: CorrelationId;
}
/**
 * Joins subscriptions. The reply is always `subscription_updated`, preceded by an `error` for names that are unknown, forbidden or over the cap.
 */
export interface Subscribe {
  type: 'subscribe';
  /**
   * The client's own. The reply carries it; without one the node makes one.
   */
  correlation_id?: CorrelationId;
  /**
   * The names to join, in any order; repetitions do no harm.
   */
  subscriptions: string[];
  /**
   * Where the client stands in the subscriptions that it wants continued. The others begin with a snapshot.
   */
  since?: Positions;
}
/**
 * Leaves subscriptions. The reply is `subscription_updated`.
 */
export interface Unsubscribe {
  type: 'unsubscribe';
  /**
   * The client's own. The reply carries it; without one the node makes one.
   */
  correlation_id?: CorrelationId;
  /**
   * The names to leave; those that are not joined are tolerated.
   */
  subscriptions: string[];
}
/**
 * Asks for data computed from the live state. The reply is `data_response` or `data_error`.
 */
export interface RequestData {
  type: 'request_data';
  /**
   * The client's own. The reply carries it; without one the node makes one.
   */
  correlation_id?: CorrelationId;
  /**
   * What is asked for: `agent_status`, `coordination_metrics`, `task_distribution` or `system_health`. Another name is answered with `data_error` `unknown_data_type`.
   */
  data_type: string;
  /**
   * Narrows the answer.
   */
  params?: {
    [k: string]: unknown;
  };
  /**
   * Comes back on the reply.
   */
  request_id?: RequestId;
}
/**
 * Renews the credential of the socket. The reply is `auth_refreshed`; a token that is not valid closes with 4401.
 */
export interface AuthRefresh {
  type: 'auth_refresh';
  /**
   * The client's own. The reply carries it; without one the node makes one.
   */
  correlation_id?: CorrelationId;
  /**
   * The new credential.
   */
  token: string;
}
