//! How a session begins: the first frames, and the subscriptions of the query.

use hiveops_proto::contract::ContractVersion;
use hiveops_proto::frame::{
    ConnectionEstablished, ConnectionInfo, DashboardInitialized, SessionLimits, VersionWarning,
};
use hiveops_proto::{CorrelationId, ServerFrame};

use super::credential::Credential;
use super::rate::TokenBucket;
use super::timers::Timers;
use super::{Action, Session, Setup, WantedVersion, World};
use crate::catalog::SubMask;

/// Where the way from one contract version to the next is described, on every node.
const MIGRATION_URL: &str = "/api/dashboard/websocket/contract";

impl Session {
    /// Begins a session; the actions hold its first frames.
    pub(crate) fn open(setup: Setup, world: &impl World, actions: &mut Vec<Action>) -> Self {
        let mut session = Self {
            connection_id: setup.connection_id.clone(),
            endpoint: setup.endpoint,
            connected_at: world.timestamp(),
            joined: SubMask::default(),
            version: None,
            credential: Credential::new(setup.principal.clone(), world.timestamp(), world.now()),
            bucket: TokenBucket::full(world.limits(), world.now()),
            timers: Timers::start(world.now(), world.limits()),
            send_failures: 0,
            ended: false,
        };
        let wanted = setup.subscriptions.clone().unwrap_or_else(|| session.default_subscriptions());
        let correlation_id = Some(setup.correlation_id.clone());
        let outcome = session.join(&wanted, &setup.since, correlation_id, world);
        actions.push(Action::Send(session.established(&setup, world)));
        if let Some(requested) = session.unsupported(setup.wanted_version.as_ref(), world) {
            actions.push(Action::Send(version_warning(setup.correlation_id.clone(), requested, world)));
        }
        actions.extend(outcome.errors);
        actions.push(Action::Send(
            DashboardInitialized {
                correlation_id: setup.correlation_id,
                timestamp: world.timestamp(),
                subscriptions: session.subscription_set(world),
                connection_info: session.info(world),
                contract_version: world.control().contract.current.version,
                positions: session.positions(world),
                recovered: outcome.recovered,
            }
            .into(),
        ));
        actions.extend(outcome.joins);
        session
    }

    /// What the client asked for, if it is not served. What is served is remembered.
    fn unsupported(&mut self, wanted: Option<&WantedVersion>, world: &impl World) -> Option<String> {
        match wanted? {
            WantedVersion::Version(version) if is_supported(*version, world) => {
                self.version = Some(*version);
                None
            }
            WantedVersion::Version(version) => Some(version.to_string()),
            WantedVersion::Other(text) => Some(text.clone()),
        }
    }

    /// Leaves what is not declared any more, and warns once of a version that is not served any more.
    pub(super) fn on_contract(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        if let Some(version) = self.version.filter(|version| !is_supported(*version, world)) {
            self.version = None;
            actions.push(Action::Send(version_warning(world.new_id(), version.to_string(), world)));
        }
        self.leave_undeclared(world, actions);
    }

    fn default_subscriptions(&self) -> Vec<String> {
        self.endpoint.default_subscriptions().iter().map(ToString::to_string).collect()
    }

    fn established(&self, setup: &Setup, world: &impl World) -> ServerFrame {
        let limits = world.limits();
        let contract = &world.control().contract;
        ConnectionEstablished {
            correlation_id: setup.correlation_id.clone(),
            timestamp: world.timestamp(),
            connection_id: self.connection_id.clone(),
            requested_connection_id: setup.refused_id.clone(),
            subscriptions: self.subscription_set(world),
            server_time: world.timestamp(),
            node_id: world.node_id().clone(),
            contract_version: contract.current.version,
            supported_versions: contract.supported_versions.clone(),
            limits: SessionLimits {
                rate_limit_tokens_per_second: limits.rate_limit_tokens_per_second,
                rate_limit_burst_capacity: limits.rate_limit_burst_capacity,
                rate_limit_notify_cooldown_seconds: limits.rate_limit_notify_cooldown_seconds,
                max_inbound_message_bytes: limits.max_inbound_message_bytes,
                max_subscriptions_per_connection: limits.max_subscriptions_per_connection,
                idle_disconnect_seconds: limits.idle_disconnect_seconds,
                heartbeat_silence_seconds: limits.heartbeat_silence_seconds,
            },
        }
        .into()
    }

    fn info(&self, world: &impl World) -> ConnectionInfo {
        ConnectionInfo {
            connection_id: self.connection_id.clone(),
            connection_type: self.endpoint.as_str().to_owned(),
            connected_at: self.connected_at,
            node_id: world.node_id().clone(),
        }
    }
}

fn is_supported(version: ContractVersion, world: &impl World) -> bool {
    world.control().contract.supported_versions.contains(&version)
}

fn version_warning(
    correlation_id: CorrelationId,
    requested_version: String,
    world: &impl World,
) -> ServerFrame {
    let contract = &world.control().contract;
    VersionWarning {
        correlation_id,
        timestamp: world.timestamp(),
        requested_version,
        current_version: contract.current.version,
        supported_versions: contract.supported_versions.clone(),
        migration_url: MIGRATION_URL.to_owned(),
    }
    .into()
}
