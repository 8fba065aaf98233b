//! Several nodes on a bus that is a list of them: what they tell each other, and what each concludes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use hiveops_proto::{CorrelationId, NodeId};
use serde_json::{Value, json};

use super::testing::{books, figures, speaker};
use super::*;
use crate::board::testing::catalog;
use crate::tasks::{TaskKind, Tasks};

/// How long a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everybody who is told.
#[derive(Clone, Default)]
struct Network {
    nodes: Arc<Mutex<Vec<Cluster>>>,
    /// Whose words get lost.
    muted: Arc<Mutex<BTreeSet<NodeId>>>,
}

struct Speech {
    network: Network,
    node_id: NodeId,
}

impl Voice for Speech {
    fn say(&self, signal: Signal) -> Call<'_, Result<(), Unavailable>> {
        Box::pin(async move {
            if !self.network.muted.lock().contains(&self.node_id) {
                let nodes = self.network.nodes.lock().clone();
                nodes.iter().for_each(|node| node.hear(&signal));
            }
            Ok(())
        })
    }
}

/// The sessions of one node.
#[derive(Default)]
struct Sessions {
    held: Mutex<BTreeSet<ConnectionId>>,
    /// Whether the shard that has them is too busy to say anything.
    busy: AtomicBool,
}

impl Local for Sessions {
    fn figures(&self) -> NodeFigures {
        figures(self.held.lock().len() as u64)
    }

    fn trace(&self, _: &CorrelationId) -> NodeTrace {
        NodeTrace::empty(Timestamp::from_millis(0))
    }

    fn books(&self) -> Call<'_, NodeBooks> {
        let sessions = self.held.lock().len() as i64;
        Box::pin(async move {
            if self.busy.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            books(sessions)
        })
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn holds(&self, id: &ConnectionId) -> bool {
        self.held.lock().contains(id)
    }

    fn disconnect<'a>(&'a self, wish: Disconnect, _: &'a Speaker) -> Call<'a, Option<bool>> {
        Box::pin(async move { Some(self.held.lock().remove(&wish.connection_id)) })
    }
}

struct Bench {
    network: Network,
    tasks: Tasks,
    _stop: watch::Sender<bool>,
}

/// A node, and the sessions that it answers for.
struct Node {
    cluster: Cluster,
    sessions: Arc<Sessions>,
}

impl Bench {
    fn new() -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { network: Network::default(), tasks: Tasks::new(stopped), _stop: stop }
    }

    /// With [`Reach::Alone`] a node is sure from the start that it knows everybody.
    fn node(&self, name: &str, reach: Reach) -> Node {
        let node_id = NodeId::new(name).unwrap();
        let voice = Box::new(Speech { network: self.network.clone(), node_id: node_id.clone() });
        let metrics = Metrics::new(catalog().names()).unwrap();
        let (cluster, answering) = Cluster::new(node_id, reach, voice, Clock::start(), metrics);
        let sessions = Arc::new(Sessions::default());
        self.network.nodes.lock().push(cluster.clone());
        let local = Arc::clone(&sessions);
        self.tasks.spawn(TaskKind::Cluster, answering.run(local, self.tasks.shutdown()));
        Node { cluster, sessions }
    }

    /// Nodes that know each other.
    async fn nodes(&self, names: &[&str]) -> Vec<Node> {
        let nodes: Vec<Node> = names.iter().map(|name| self.node(name, Reach::Alone)).collect();
        for node in &nodes {
            until(|| node.cluster.nodes() == names.len()).await;
        }
        nodes
    }

    fn mute(&self, name: &str) {
        self.network.muted.lock().insert(NodeId::new(name).unwrap());
    }
}

impl Node {
    fn hold(&self, name: &str) {
        self.sessions.held.lock().insert(id(name));
    }

    async fn view(&self) -> Value {
        serde_json::to_value(self.cluster.figures(figures(0)).await).unwrap()
    }

    async fn disconnect(&self, name: &str) -> Disconnected {
        let correlation_id = CorrelationId::new("c-1").unwrap();
        self.cluster.disconnect(Disconnect { connection_id: id(name), reason: None, correlation_id }).await
    }

    async fn is_granted(&self, name: &str) -> bool {
        self.cluster.claim(&id(name)).unwrap().is_granted().await
    }

    fn open_questions(&self) -> usize {
        self.cluster.inner.state.lock().questions.len()
    }
}

fn id(name: &str) -> ConnectionId {
    ConnectionId::new(name).unwrap()
}

async fn until(holds: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let level = async {
        while !holds() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, level).await.unwrap();
}

#[tokio::test]
async fn every_node_is_in_the_figures_and_a_silent_one_is_missing() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2", "n3"]).await;
    nodes[1].hold("a");
    let view = nodes[0].view().await;
    assert_eq!((&view["status"], &view["missing"]), (&json!("complete"), &json!([])));
    let shown: Vec<&Value> = view["nodes"].as_array().unwrap().iter().map(|node| &node["node_id"]).collect();
    assert_eq!(shown, ["n1", "n2", "n3"]);
    assert_eq!(
        (&view["nodes"][1]["stats"]["active_connections"], &view["totals"]["nodes"]),
        (&json!(1), &json!(3))
    );
    bench.mute("n2");
    let view = nodes[0].view().await;
    assert_eq!((&view["status"], &view["missing"]), (&json!("partial"), &json!(["n2"])));
    assert_eq!((view["nodes"].as_array().unwrap().len(), nodes[0].open_questions()), (2, 0));
}

#[tokio::test]
async fn the_books_of_every_node_are_in_an_audit() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2"]).await;
    nodes[1].hold("a");
    let audit = async || serde_json::to_value(nodes[0].cluster.audit(books(0)).await).unwrap();
    let made = audit().await;
    assert_eq!((&made["status"], &made["residual"]), (&json!("complete"), &json!(1)));
    let residual = |node: usize| &made["nodes"][node]["subscriptions"]["tasks"]["residual"];
    assert_eq!((residual(0), residual(1)), (&json!(0), &json!(1)));
    bench.mute("n2");
    assert_eq!((&audit().await["status"], &audit().await["missing"]), (&json!("partial"), &json!(["n2"])));
}

#[tokio::test]
async fn a_trace_names_the_node_that_did_not_answer() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2"]).await;
    let (id, now) = (CorrelationId::new("c-1").unwrap(), Timestamp::from_millis(0));
    let trace = async || {
        let own = NodeTrace::empty(now);
        serde_json::to_value(nodes[0].cluster.trace(own, &id, now).await).unwrap()
    };
    let whole = trace().await;
    assert_eq!(whole["cluster"], json!({"status": "complete", "missing": []}));
    assert_eq!(whole["nodes"].as_array().unwrap().len(), 2);
    bench.mute("n2");
    let part = trace().await;
    assert_eq!(part["cluster"], json!({"status": "partial", "missing": ["n2"]}));
    assert_eq!(part["nodes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_that_leaves_is_missed_by_nobody() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2"]).await;
    nodes[1].cluster.leave().await;
    assert_eq!((nodes[0].cluster.nodes(), nodes[0].view().await["status"].clone()), (1, json!("complete")));
}

#[tokio::test]
async fn two_nodes_with_one_id_are_both_there_and_marked() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n1", "n2"]).await;
    until(|| nodes[2].cluster.inner.state.lock().members.doubled().len() == 2).await;
    let view = nodes[2].view().await;
    let marked: Vec<(&str, bool)> = view["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["node_id"].as_str().unwrap(), node["duplicate_node_id"].as_bool().unwrap()))
        .collect();
    assert_eq!(marked, [("n1", true), ("n1", true), ("n2", false)]);
    assert_ne!(view["nodes"][0]["incarnation"], view["nodes"][1]["incarnation"]);
}

#[tokio::test]
async fn a_node_that_does_not_hear_itself_asks_nobody_and_calls_nothing_complete() {
    let bench = Bench::new();
    let other = bench.node("n2", Reach::Shared);
    until(|| other.cluster.nodes() == 1 && bench.network.nodes.lock().len() == 1).await;
    bench.mute("n1");
    let deaf = bench.node("n1", Reach::Shared);
    until(|| deaf.cluster.nodes() == 2).await;
    let view = deaf.view().await;
    assert_eq!((&view["status"], &view["missing"]), (&json!("partial"), &json!(["n2"])));
    let silent = BTreeSet::from([NodeId::new("n2").unwrap()]);
    assert_eq!(deaf.disconnect("me").await, Disconnected::Unsure(silent));
    assert!(deaf.is_granted("me").await, "nobody can be asked, and the handshake goes on");
}

#[tokio::test]
async fn a_node_that_has_just_come_asks_whoever_may_be_there() {
    let bench = Bench::new();
    let old = bench.node("n2", Reach::Shared);
    old.hold("me");
    let new = bench.node("n1", Reach::Shared);
    until(|| {
        new.cluster.inner.state.lock().members.sight(new.cluster.inner.clock.moment()) == Sight::Settling
    })
    .await;
    // As if it had not heard of the other one yet.
    new.cluster.inner.state.lock().members.leave(&old.cluster.inner.me);
    assert!(!new.is_granted("me").await);
    assert_eq!(new.disconnect("you").await, Disconnected::Unsure(BTreeSet::new()));
    let view = new.view().await;
    assert_eq!((&view["status"], view["nodes"].as_array().unwrap().len()), (&json!("partial"), 2));
}

#[tokio::test]
async fn a_session_is_ended_wherever_it_is_and_never_said_to_be_nowhere_by_half_a_cluster() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2", "n3"]).await;
    nodes[2].hold("me");
    assert_eq!(nodes[0].disconnect("me").await, Disconnected::By(NodeId::new("n3").unwrap()));
    assert_eq!(nodes[0].disconnect("me").await, Disconnected::Nowhere);
    bench.mute("n2");
    let silent = BTreeSet::from([NodeId::new("n2").unwrap()]);
    assert_eq!(nodes[0].disconnect("me").await, Disconnected::Unsure(silent));
    nodes[2].hold("me");
    assert_eq!(nodes[0].disconnect("me").await, Disconnected::By(NodeId::new("n3").unwrap()));
}

#[tokio::test]
async fn a_name_is_granted_unless_another_node_has_it() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2", "n3"]).await;
    assert!(nodes[0].is_granted("me").await);
    nodes[2].hold("me");
    assert!(!nodes[0].is_granted("me").await);
    nodes[2].sessions.held.lock().clear();
    bench.mute("n3");
    assert!(nodes[0].is_granted("me").await, "a node that is silent has no say");
}

#[tokio::test]
async fn a_claim_is_judged_while_a_busy_shard_is_asked_for_its_books() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2"]).await;
    nodes[1].hold("me");
    nodes[1].sessions.busy.store(true, Ordering::Relaxed);
    let mut audit = Box::pin(nodes[0].cluster.audit(books(0)));
    assert!(tokio::time::timeout(Duration::ZERO, audit.as_mut()).await.is_err(), "n2 has been asked");
    assert!(!nodes[0].is_granted("me").await, "n2 has a session of that name");
    let audit = serde_json::to_value(audit.await).unwrap();
    assert_eq!((&audit["status"], &audit["missing"]), (&json!("partial"), &json!(["n2"])));
    // It is over for n2 as well.
    nodes[1].sessions.busy.store(false, Ordering::Relaxed);
    let audit = serde_json::to_value(nodes[0].cluster.audit(books(0)).await).unwrap();
    assert_eq!(audit["status"], json!("complete"));
}

#[tokio::test]
async fn of_two_nodes_that_claim_a_name_at_once_the_smaller_keeps_it() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2"]).await;
    let [mut first, mut second] = [&nodes[0], &nodes[1]].map(|node| node.cluster.claim(&id("me")).unwrap());
    assert!(nodes[0].cluster.claim(&id("me")).is_none(), "it is being given to somebody here");
    assert_eq!(tokio::join!(second.is_granted(), first.is_granted()), (false, true));
    drop((first, second));
    assert!(nodes[1].is_granted("me").await, "nobody has taken it");
}

#[tokio::test]
async fn a_question_whose_asker_gives_up_is_forgotten() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1", "n2"]).await;
    bench.mute("n2");
    let mut asked = Box::pin(nodes[0].view());
    assert!(tokio::time::timeout(Duration::ZERO, asked.as_mut()).await.is_err());
    assert_eq!(nodes[0].open_questions(), 1);
    drop(asked);
    assert_eq!(nodes[0].open_questions(), 0);
}

#[tokio::test]
async fn what_cannot_be_used_is_counted_and_changes_nothing() {
    let bench = Bench::new();
    let nodes = bench.nodes(&["n1"]).await;
    let hear = |signal: &str| nodes[0].cluster.hear(signal);
    hear("{}");
    hear(r#"{"from":{"node_id":"x","incarnation":"0000000000000007"},"say":{"type":"later"}}"#);
    // An answer that nobody asked for is none of these.
    let answer =
        Answer { to: nodes[0].cluster.inner.me.incarnation, id: 7, reply: Reply::Claim { taken: true } };
    hear(&Message { from: speaker("x", 7), say: Say::Answer(answer) }.write());
    let count = |reason: SignalDropped| {
        nodes[0].cluster.inner.metrics.cluster_signals_dropped.with_label_values(&[reason.as_str()]).get()
    };
    assert_eq!(SignalDropped::ALL.map(count), [0, 1, 1, 0, 0]);
    assert_eq!(nodes[0].cluster.nodes(), 1);
}
