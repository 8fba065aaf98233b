//! Boards for tests: values made by hand, and a node's worth of parts over an embedded bus.

use std::collections::BTreeMap;
use std::sync::Arc;

use hiveops_proto::board::{Agent, AgentStatus, Task, TaskPriority, TaskStatus};
use hiveops_proto::control::{ContractView, ControlView, DeprecationPolicy, Revision};
use hiveops_proto::{Contract, Epoch, Key, Limits, Timestamp};
use serde_json::Map;
use tokio::sync::watch;

use super::{Board, BoardHandle, BoardService, Held};
use crate::bus::embedded::EmbeddedBus;
use crate::bus::{Bus, BusEvent};
use crate::catalog::Catalog;
use crate::publisher::Publisher;
use crate::tasks::{TaskKind, Tasks};
use crate::telemetry::metrics::Metrics;
use crate::time::Clock;
use crate::trace::Traces;

pub(crate) fn agent(id: &str, status: AgentStatus) -> Agent {
    Agent {
        id: Key::new(id).unwrap(),
        name: id.to_owned(),
        agent_type: "generic".to_owned(),
        status,
        capabilities: Vec::new(),
        current_task: None,
        lease_seconds: 30,
        registered_at: Timestamp::from_millis(0),
        last_heartbeat: Timestamp::from_millis(0),
        simulated: false,
        metrics: Map::new(),
        version: 1,
    }
}

pub(crate) fn task(id: &str, status: TaskStatus) -> Task {
    Task {
        id: Key::new(id).unwrap(),
        title: id.to_owned(),
        description: String::new(),
        status,
        priority: TaskPriority::Normal,
        assigned_agent: None,
        lease_seconds: 300,
        stale: false,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        started_at: None,
        finished_at: None,
        metadata: Map::new(),
        version: 1,
        applied_correlation_ids: Vec::new(),
    }
}

pub(crate) fn board_of_agents(agents: impl IntoIterator<Item = Agent>) -> Board {
    let mut board = Board::default();
    for (seq, value) in (1..).zip(agents) {
        board.agents.values.insert(value.id.clone(), Held { seq, value });
    }
    board
}

pub(crate) fn board_of_tasks(tasks: impl IntoIterator<Item = Task>) -> Board {
    let mut board = Board::default();
    for (seq, value) in (1..).zip(tasks) {
        board.tasks.values.insert(value.id.clone(), Held { seq, value });
    }
    board
}

pub(crate) fn catalog() -> Arc<Catalog> {
    Catalog::compile(Contract::parse(hiveops_proto::CONTRACT).unwrap()).unwrap()
}

/// A bus with one or more nodes' boards on it.
pub(crate) struct Bench {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) control: watch::Sender<Arc<ControlView>>,
    pub(crate) clock: Clock,
    tasks: Tasks,
    _shutdown: watch::Sender<bool>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (catalog, clock) = (catalog(), Clock::start());
        let bus = EmbeddedBus::open(catalog.names(), None, clock, || Epoch::from_bits(1)).unwrap();
        let view = ControlView {
            revision: Revision::default(),
            limits: Limits::default(),
            sources: BTreeMap::new(),
            contract: ContractView {
                current: catalog.contract().clone(),
                supported_versions: vec![],
                deprecation_policy: DeprecationPolicy::default(),
                schema_digest: String::new(),
                contract_digest: None,
            },
            access: Default::default(),
        };
        let (shutdown, stopped) = watch::channel(false);
        Self {
            bus: Arc::new(bus),
            catalog,
            control: watch::Sender::new(Arc::new(view)),
            clock,
            tasks: Tasks::new(stopped),
            _shutdown: shutdown,
        }
    }

    pub(crate) fn publisher(&self) -> Publisher {
        let control = self.control.subscribe();
        let metrics = Metrics::new(self.catalog.names()).unwrap();
        let (_, catalog) = watch::channel(Arc::clone(&self.catalog));
        let traces = Traces::new(&self.catalog, self.clock, None);
        Publisher::new(Arc::clone(&self.bus), catalog, control, self.clock, metrics, traces)
    }

    /// A node's board service, with the loop that feeds its board.
    pub(crate) async fn node(&self) -> Arc<BoardService> {
        let board = Arc::new(BoardHandle::new());
        let mut follow = self.bus.follow().await.unwrap();
        for _ in self.catalog.ids() {
            if let Some(BusEvent::Reset(reset)) = follow.next().await {
                board.apply_reset(&reset, &self.catalog);
            }
        }
        let (target, catalog) = (Arc::clone(&board), Arc::clone(&self.catalog));
        self.tasks.spawn(TaskKind::Receive, async move {
            while let Some(event) = follow.next().await {
                match event {
                    BusEvent::Reset(reset) => target.apply_reset(&reset, &catalog),
                    BusEvent::Stored(stored) => target.apply(&stored, &catalog),
                    BusEvent::Probe(_) | BusEvent::Told(_) => {}
                }
            }
        });
        Arc::new(BoardService::new(self.publisher(), board, self.clock))
    }
}
