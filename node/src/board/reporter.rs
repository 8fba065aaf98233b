//! Publishes how the work goes (`coordination_update`) and how this node is (`system_update`): when
//! something changed at most every 5 s, and at least every 30 s (CONTRACT section 4).
//!
//! All nodes share one coordination value. Each keeps the clock by what it sees in the log, and a condition
//! on the publication lets one of them win.

use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::{Key, NodeId, Payload, Timestamp};

use super::host::{Host, HostFigures};
use super::report::{BusReport, COORDINATION_ID, CoordinationReport, NodeReport};
use super::service::BoardService;
use super::{Board, Section, figures, query};
use crate::bus::Expect;
use crate::time::Moment;

/// How often it is asked whether something changed.
const TICK: Duration = Duration::from_secs(1);

/// Least time between two reports of one key.
const INTERVAL_MIN_MS: u64 = 5_000;

/// Most time between two reports of one key: 30 s, less the tick that may come late.
const INTERVAL_MAX_MS: u64 = 29_000;

/// What the node knows of itself.
pub(crate) trait Figures: Send + Sync {
    fn sample(&self) -> NodeFigures;
}

/// One look at the node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeFigures {
    /// `healthy`, `degraded` or `unhealthy`.
    pub(crate) status: &'static str,
    /// From 0 to 100.
    pub(crate) score: u64,
    pub(crate) connections: u64,
    pub(crate) fanout_p99_ms: Option<f64>,
    pub(crate) bus_kind: &'static str,
    pub(crate) bus_live: bool,
    pub(crate) uptime_seconds: u64,
}

/// Publishes both reports until the node shuts down.
pub(crate) struct Reporter {
    service: Arc<BoardService>,
    figures: Arc<dyn Figures>,
    node: Key,
    host: Host,
    /// This node's last report, and when it was tried.
    reported: Option<(Moment, Option<NodeReport>)>,
    /// The coordination value last seen, and when it was first seen. This node's clock, not the value's
    /// time: clocks of nodes differ.
    seen: Option<(Moment, u64)>,
    /// When this node last tried to publish a coordination value.
    tried: Option<Moment>,
}

impl Reporter {
    pub(crate) fn new(service: Arc<BoardService>, figures: Arc<dyn Figures>, node: &NodeId) -> Self {
        let node = Key::new(node.as_str()).expect("a node id is short visible text");
        Self { service, figures, node, host: Host::new(), reported: None, seen: None, tried: None }
    }

    pub(crate) async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                // Both can be dropped at any await: neither has taken anything yet.
                () = &mut shutdown => return,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                // A report that is dropped half way is stored or not, and nobody waits for it.
                () = &mut shutdown => return,
                () = self.tick() => {}
            }
        }
    }

    async fn tick(&mut self) {
        let (now, time) = (self.service.clock().moment(), self.service.clock().timestamp());
        self.report_node(now, time).await;
        self.report_coordination(now, time).await;
    }

    async fn report_node(&mut self, now: Moment, time: Timestamp) {
        let host = self.host.sample(now);
        let report = node_report(&self.node, self.figures.sample(), host, time);
        let last = self.reported.as_ref().map(|(at, report)| (now.millis_since(*at), report));
        let changed =
            last.is_none_or(|(_, last)| last.as_ref().is_none_or(|last| last.news() != report.news()));
        if !is_due(last.map(|(age, _)| age), changed) {
            return;
        }
        let Ok(data) = Payload::from_value(&report) else { return };
        let stored = self.service.change_once(Section::System, data, Expect::Any).await;
        // What failed counts as tried, so that it waits as long as what succeeded; it stays news.
        self.reported = Some((now, stored.ok().map(|_| report)));
    }

    async fn report_coordination(&mut self, now: Moment, time: Timestamp) {
        let Some(Look { report, stored }) = self.look(time) else { return };
        let seq = stored.as_ref().map_or(0, |stored| stored.seq);
        if self.seen.is_none_or(|(_, seen)| seen != seq) {
            self.seen = Some((now, seq));
        }
        if self.tried.is_some_and(|at| now.millis_since(at) < INTERVAL_MIN_MS) {
            return;
        }
        let last = stored.as_ref().and_then(|stored| stored.report.as_ref());
        let changed = last.is_none_or(|last| last.news() != report.news());
        let age_ms = self.seen.filter(|_| stored.is_some()).map(|(at, _)| now.millis_since(at));
        if !is_due(age_ms, changed) {
            return;
        }
        let Ok(data) = Payload::from_value(&report) else { return };
        let expect = if stored.is_some() { Expect::Seq(seq) } else { Expect::Absent };
        self.tried = Some(now);
        // Lost to another node or to the bus: the next tick sees what is there then.
        let _ = self.service.change_once(Section::Coordination, data, expect).await;
    }

    /// None before the logs have been read: a report over half a board would be wrong for everybody.
    fn look(&self, time: Timestamp) -> Option<Look> {
        let board = self.service.board().read();
        for section in [Section::Agents, Section::Tasks, Section::Coordination] {
            board.head(section)?;
        }
        let report = coordination_report(&board, time);
        let view = &board.coordination;
        let ours = view.get(&report.id).map(|held| Seen { seq: held.seq, report: Some(held.value.clone()) });
        let stored = ours.or_else(|| view.foreign_seq(&report.id).map(|seq| Seen { seq, report: None }));
        Some(Look { report, stored })
    }
}

/// The coordination value as it would be now, and the one in the log.
struct Look {
    report: CoordinationReport,
    stored: Option<Seen>,
}

/// A coordination value in the log; one of another build may not be readable.
struct Seen {
    seq: u64,
    report: Option<CoordinationReport>,
}

/// Whether a report is due: `age_ms` is the time since the last one, none when there was none.
fn is_due(age_ms: Option<u64>, changed: bool) -> bool {
    let interval = if changed { INTERVAL_MIN_MS } else { INTERVAL_MAX_MS };
    age_ms.is_none_or(|age| age >= interval)
}

fn coordination_report(board: &Board, now: Timestamp) -> CoordinationReport {
    use hiveops_proto::board::TaskStatus;
    let window_seconds = figures::WINDOW_SECONDS_DEFAULT;
    let success = figures::success(board, now, window_seconds);
    let by_status = figures::tasks(board);
    CoordinationReport {
        id: Key::new(COORDINATION_ID).expect("the constant is a key"),
        success_rate: success.rate,
        trend: success.trend,
        total_tasks: board.tasks.len() as u64,
        queue_length: query::count(&by_status, TaskStatus::Pending),
        in_progress: query::count(&by_status, TaskStatus::InProgress),
        by_status,
        agents: figures::agents(board),
        window_seconds,
        updated_at: now,
    }
}

fn node_report(id: &Key, node: NodeFigures, host: HostFigures, now: Timestamp) -> NodeReport {
    NodeReport {
        id: id.clone(),
        status: node.status.to_owned(),
        score: node.score,
        connections: node.connections,
        fanout_p99_ms: node.fanout_p99_ms,
        bus: BusReport { kind: node.bus_kind.to_owned(), live: node.bus_live },
        cpu_percent: host.cpu_percent,
        memory_percent: host.memory_percent,
        rss_bytes: host.rss_bytes,
        uptime_seconds: node.uptime_seconds,
        updated_at: now,
    }
}

#[cfg(test)]
mod tests;
