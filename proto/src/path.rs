//! Paths and names of the HTTP surface, so that no two crates spell one differently.

/// WebSocket routes and what each joins when the client does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Everything a dashboard shows.
    Dashboard,
    /// Agents first.
    Agents,
    /// Coordination first.
    Coordination,
    /// Tasks first.
    Tasks,
    /// The system's health.
    System,
}

impl Endpoint {
    /// All five.
    pub const ALL: &'static [Self] =
        &[Self::Dashboard, Self::Agents, Self::Coordination, Self::Tasks, Self::System];

    /// The last segment of the path, and the `connection_type` of its sessions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dashboard => "dashboard",
            Self::Agents => "agents",
            Self::Coordination => "coordination",
            Self::Tasks => "tasks",
            Self::System => "system",
        }
    }

    /// The path of the route.
    pub fn path(self) -> &'static str {
        match self {
            Self::Dashboard => "/api/dashboard/ws/dashboard",
            Self::Agents => "/api/dashboard/ws/agents",
            Self::Coordination => "/api/dashboard/ws/coordination",
            Self::Tasks => "/api/dashboard/ws/tasks",
            Self::System => "/api/dashboard/ws/system",
        }
    }

    /// What is joined when the query has no `subscriptions`.
    pub fn default_subscriptions(self) -> &'static [&'static str] {
        match self {
            Self::Dashboard => &["agents", "coordination", "project_index", "system", "tasks"],
            Self::Agents => &["agents", "system"],
            Self::Coordination => &["alerts", "coordination", "system"],
            Self::Tasks => &["agents", "tasks"],
            Self::System => &["alerts", "system"],
        }
    }
}

/// Health of this node's sockets and what they need.
pub const WS_HEALTH: &str = "/api/dashboard/websocket/health";
/// Figures of this node and of the cluster.
pub const WS_STATS: &str = "/api/dashboard/websocket/stats";
/// Publishes.
pub const WS_BROADCAST: &str = "/api/dashboard/websocket/broadcast";
/// Ends one session.
pub const WS_DISCONNECT: &str = "/api/dashboard/websocket/disconnect/{connection_id}";
/// Lets the node go away.
pub const WS_DRAIN: &str = "/api/dashboard/websocket/drain";
/// Where an update went.
pub const TRACE: &str = "/api/dashboard/trace/{correlation_id}";
/// What became of publications on every node.
pub const AUDIT: &str = "/api/dashboard/audit";
/// Every threshold with its source.
pub const WS_LIMITS: &str = "/api/dashboard/websocket/limits";
/// The contract version in force.
pub const WS_CONTRACT: &str = "/api/dashboard/websocket/contract";
/// Metrics, as the plan's clients know them.
pub const WS_METRICS: &str = "/api/dashboard/metrics/websockets";
/// Metrics, as Prometheus expects them.
pub const METRICS: &str = "/metrics";
/// The published schema.
pub const WS_SCHEMA: &str = "/api/dashboard/schema/ws_messages.schema.json";
/// Counts clients that do not support the version in force.
pub const VERSION_MISMATCH: &str = "/api/dashboard/telemetry/version-mismatch";
/// What each component says of itself.
pub const HEALTH: &str = "/health";
/// The process answers.
pub const LIVEZ: &str = "/livez";
/// The node should get traffic.
pub const READYZ: &str = "/readyz";
/// The agents.
pub const AGENTS: &str = "/api/v1/agents";
/// One agent.
pub const AGENT: &str = "/api/v1/agents/{id}";
/// An agent reports in.
pub const AGENT_HEARTBEAT: &str = "/api/v1/agents/{id}/heartbeat";
/// The tasks.
pub const TASKS: &str = "/api/v1/tasks";
/// One task.
pub const TASK: &str = "/api/v1/tasks/{id}";
/// Several changes of tasks at once.
pub const TASKS_SYNC: &str = "/api/v1/sync/tasks";
/// The public keys that tokens are checked with, as a JSON Web Key Set.
pub const JWKS: &str = "/.well-known/jwks.json";
/// Logs in; the same under its other name.
pub const AUTH_LOGIN: &str = "/api/auth/login";
/// See [`AUTH_LOGIN`].
pub const AUTH_LOGIN_V1: &str = "/api/v1/auth/login";
/// Gives a new access token for a refresh token.
pub const AUTH_REFRESH: &str = "/api/auth/refresh";
/// See [`AUTH_REFRESH`].
pub const AUTH_REFRESH_V1: &str = "/api/v1/auth/refresh";
/// Ends a login.
pub const AUTH_LOGOUT: &str = "/api/auth/logout";
/// See [`AUTH_LOGOUT`].
pub const AUTH_LOGOUT_V1: &str = "/api/v1/auth/logout";
/// The user of the access token.
pub const AUTH_ME: &str = "/api/auth/me";
/// See [`AUTH_ME`].
pub const AUTH_ME_V1: &str = "/api/v1/auth/me";
/// A ticket that opens one socket.
pub const AUTH_WS_TICKET: &str = "/api/auth/ws-ticket";
/// See [`AUTH_WS_TICKET`].
pub const AUTH_WS_TICKET_V1: &str = "/api/v1/auth/ws-ticket";
/// The description of the HTTP surface.
pub const OPENAPI: &str = "/api/openapi.json";
/// The description of the WebSocket surface.
pub const ASYNCAPI: &str = "/api/asyncapi.json";

/// How a control replica and its cluster are.
pub const CONTROL_STATUS: &str = "/api/control/status";
/// The control view, once.
pub const CONTROL_VIEW: &str = "/api/control/view";
/// The control view, and every later one: a line of JSON each.
pub const CONTROL_WATCH: &str = "/api/control/watch";
/// Changes limits.
pub const CONTROL_LIMITS: &str = "/api/control/limits";
/// Shows the contract versions, or puts another one in force.
pub const CONTROL_CONTRACT: &str = "/api/control/contract";
/// Shows the signing keys, without their private halves.
pub const CONTROL_KEYS: &str = "/api/control/keys";
/// Lets a new signing key take over.
pub const CONTROL_KEYS_ROTATE: &str = "/api/control/keys/rotate";
/// Begins a login.
pub const CONTROL_LOGIN: &str = "/api/control/auth/login";
/// Uses a refresh token.
pub const CONTROL_REFRESH: &str = "/api/control/auth/refresh";
/// Ends a login.
pub const CONTROL_LOGOUT: &str = "/api/control/auth/logout";
/// Shows the users, or makes one.
pub const CONTROL_USERS: &str = "/api/control/users";
/// One user.
pub const CONTROL_USER: &str = "/api/control/users/{id}";
/// Gives a user another role.
pub const CONTROL_USER_ROLE: &str = "/api/control/users/{id}/role";
/// Gives a user another password.
pub const CONTROL_USER_PASSWORD: &str = "/api/control/users/{id}/password";
/// Does not let a user in any more.
pub const CONTROL_USER_DISABLE: &str = "/api/control/users/{id}/disable";
/// Lets a user in again.
pub const CONTROL_USER_ENABLE: &str = "/api/control/users/{id}/enable";
/// Does anything that the control plane can be asked for.
pub const CONTROL_COMMANDS: &str = "/api/control/commands";
/// A node renews its lease, and borrows from the cluster-wide limits.
pub const CONTROL_LEASE: &str = "/api/control/lease";
/// A life of a node gives everything back.
pub const CONTROL_LEASE_END: &str = "/api/control/lease/{node}";
/// Adds a control replica, as one that does not vote yet.
pub const CONTROL_MEMBERS: &str = "/api/control/members";
/// Removes a control replica.
pub const CONTROL_MEMBER: &str = "/api/control/members/{id}";
/// Gives a control replica a vote.
pub const CONTROL_PROMOTE: &str = "/api/control/members/{id}/promote";
/// Hands the lead of the control plane over.
pub const CONTROL_LEADER: &str = "/api/control/leader";

/// The header that carries the correlation id of a request and its response.
pub const CORRELATION_HEADER: &str = "X-Correlation-ID";
/// The header that names a publication, so that a retry does not publish twice.
pub const IDEMPOTENCY_HEADER: &str = "Idempotency-Key";
/// The subprotocol, optional except where it carries a credential.
pub const SUBPROTOCOL: &str = "hiveops.v1";
/// The subprotocol that carries a credential: this, and the token in unpadded base64url.
pub const BEARER_SUBPROTOCOL: &str = "hiveops.bearer.";
/// The cookie with the refresh token.
pub const REFRESH_COOKIE: &str = "hiveops_refresh";
/// The cookie with the access token.
pub const SESSION_COOKIE: &str = "hiveops_session";
