//! When the reporter publishes, and what its reports say.

use super::*;
use crate::board::testing::{Bench, agent, board_of_agents};
use hiveops_proto::board::{AgentRegistration, AgentStatus};
use parking_lot::Mutex;

#[test]
fn a_change_is_due_after_five_seconds_and_anything_after_thirty() {
    assert!(is_due(None, false));
    assert!(!is_due(Some(4_999), true) && is_due(Some(5_000), true));
    assert!(!is_due(Some(28_999), false) && is_due(Some(29_000), false));
}

fn figures(connections: u64) -> NodeFigures {
    NodeFigures {
        status: "healthy",
        score: 100,
        connections,
        fanout_p99_ms: Some(1.2),
        bus_kind: "embedded (in memory)",
        bus_live: true,
        uptime_seconds: 3,
    }
}

fn node(connections: u64, cpu: f64, at_ms: i64) -> NodeReport {
    let host = HostFigures { cpu_percent: Some(cpu), memory_percent: Some(40.2), rss_bytes: Some(1 << 24) };
    let time = Timestamp::from_millis(at_ms);
    node_report(&Key::new("n1").unwrap(), figures(connections), host, time)
}

#[test]
fn time_and_small_figures_are_no_news() {
    assert!(node(1, 10.0, 0).news() == node(1, 11.9, 9_000).news());
    assert!(node(1, 10.0, 0).news() != node(2, 10.0, 0).news());
    assert!(node(1, 10.0, 0).news() != node(1, 80.0, 0).news());
    let board = board_of_agents([agent("a", AgentStatus::Busy)]);
    let report = |ms| coordination_report(&board, Timestamp::from_millis(ms));
    assert!(report(0).news() == report(5_000).news());
    let more = board_of_agents([agent("a", AgentStatus::Idle)]);
    assert!(report(0).news() != coordination_report(&more, Timestamp::from_millis(0)).news());
}

struct Fixed(Mutex<u64>);

impl Figures for Fixed {
    fn sample(&self) -> NodeFigures {
        figures(*self.0.lock())
    }
}

fn reporter(service: &Arc<BoardService>, name: &str) -> Reporter {
    let figures = Arc::new(Fixed(Mutex::new(1)));
    Reporter::new(Arc::clone(service), figures, &NodeId::new(name).unwrap())
}

#[tokio::test]
async fn two_nodes_report_themselves_and_share_one_coordination_value() {
    let bench = Bench::new();
    let (first, second) = (bench.node().await, bench.node().await);
    reporter(&first, "n1").tick().await;
    reporter(&second, "n2").tick().await;
    // Each waits for its own report, and what the first published comes before that of the second.
    let board = second.board().read();
    let now = bench.clock.timestamp();
    let nodes: Vec<_> = board.live_nodes(now).map(|node| node.id.to_string()).collect();
    assert_eq!(nodes, ["n1", "n2"]);
    assert_eq!(board.coordination.len(), 1);
    assert_eq!(board.head(Section::Coordination).unwrap().seq, 1, "the second found nothing to say");
}

#[tokio::test]
async fn a_change_is_reported_when_the_least_interval_has_passed() {
    let bench = Bench::new();
    let service = bench.node().await;
    let mut reporter = reporter(&service, "n1");
    let (at, time) = (Moment::from_millis, bench.clock.timestamp());
    let seq = || service.board().read().head(Section::Coordination).unwrap().seq;
    reporter.report_coordination(at(0), time).await;
    assert_eq!(seq(), 1);
    let wanted: AgentRegistration = serde_json::from_str(r#"{"name":"a"}"#).unwrap();
    service.register_agent(wanted, &bench.clock.correlation_id()).await.unwrap();
    reporter.report_coordination(at(1_000), time).await;
    assert_eq!(seq(), 1);
    reporter.report_coordination(at(6_000), time).await;
    assert_eq!(seq(), 2);
    reporter.report_coordination(at(7_000), time).await;
    reporter.report_coordination(at(35_000), time).await;
    assert_eq!(seq(), 2, "nothing changed since, and 30 s are not over");
    reporter.report_coordination(at(36_000), time).await;
    assert_eq!(seq(), 3);
}

#[tokio::test]
async fn the_loops_run_as_tasks_and_end_with_the_node() {
    use crate::tasks::{TaskKind, Tasks};
    let bench = Bench::new();
    let service = bench.node().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let tasks = Tasks::new(stopped);
    tasks.spawn(TaskKind::Report, reporter(&service, "n1").run(tasks.shutdown()));
    tasks.spawn(TaskKind::Lease, crate::board::leases::run(Arc::clone(&service), tasks.shutdown()));
    let first = hiveops_proto::Position { epoch: hiveops_proto::Epoch::from_bits(1), seq: 1 };
    assert!(service.board().reached(Section::System, &first).await);
    stop.send(true).unwrap();
    let ended = async {
        while tasks.running(TaskKind::Report) + tasks.running(TaskKind::Lease) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}
