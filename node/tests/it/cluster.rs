//! Several nodes on one real bus: who is there, what each says of the others, and what one can do for a
//! session of another.

use std::time::{Duration, Instant};

use hiveops_testkit::broker::NatsServer;
use serde_json::{Value, json};

use crate::harness::{Node, Socket, until};

const STATS: &str = "/api/dashboard/websocket/stats";

/// Shorter than what is left of a lease after an announcement.
const SOON_AFTER: Duration = Duration::from_secs(1);

async fn start(server: &NatsServer, name: &str) -> Node {
    Node::start(&[("HIVEOPS_BUS", &server.url()), ("HIVEOPS_NODE_ID", name)]).await
}

async fn view(node: &Node) -> Value {
    node.get(STATS).await["cluster"].clone()
}

fn names(view: &Value) -> Vec<&str> {
    view["nodes"].as_array().unwrap().iter().map(|node| node["node_id"].as_str().unwrap()).collect()
}

/// Waits until a node sees exactly these, and no other can be there.
async fn sees(node: &Node, wanted: &[&str]) -> Value {
    let mut seen = Value::Null;
    until(&format!("a complete view of {wanted:?}"), async || {
        seen = view(node).await;
        seen["status"] == "complete" && names(&seen) == wanted
    })
    .await;
    seen
}

fn disconnect(node: &Node, id: &str) -> crate::http::Call {
    node.call("POST", &format!("/api/dashboard/websocket/disconnect/{id}?reason=moved"))
}

/// Ends a session of another node. That may do it and be late with its answer: then it is 503, and 404 when
/// it is asked again.
async fn end_elsewhere(node: &Node, id: &str, owner: &str) {
    let mut is_late = false;
    until("an answer of all nodes", async || {
        let answer = disconnect(node, id).header("X-Correlation-ID", "change-9").send().await;
        match answer.status {
            503 => {
                is_late = true;
                false
            }
            404 if is_late => true,
            status => {
                assert_eq!((status, &answer.json()["node_id"]), (200, &json!(owner)), "{answer:?}");
                true
            }
        }
    })
    .await;
}

async fn named(node: &Node, id: &str) -> (Socket, Value) {
    let mut socket = Socket::connect(node, &format!("tasks?connection_id={id}")).await;
    let hello = socket.expect("connection_established").await;
    (socket, hello)
}

#[tokio::test]
async fn a_cluster_is_complete_then_partial_without_a_killed_node_then_complete_without_it() {
    let server = NatsServer::start().unwrap();
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| start(&server, name));
    let (n1, n2, n3) = tokio::join!(n1, n2, n3);
    let _sockets = (Socket::joined(&n2, "tasks").await, Socket::joined(&n3, "agents").await);
    for node in [&n1, &n2, &n3] {
        let seen = sees(node, &["n1", "n2", "n3"]).await;
        assert_eq!((&seen["missing"], &seen["totals"]["active_connections"]), (&json!([]), &json!(2)));
        assert_eq!(seen["totals"]["subscription_counts"]["agents"], 2);
        assert_eq!(seen["nodes"][1]["stats"]["connections_by_type"], json!({"tasks": 1}));
    }
    assert_eq!(n1.metric("hiveops_cluster_nodes").await, 3.0);
    n2.kill().await;
    let killed = Instant::now();
    let first = view(&n1).await;
    if killed.elapsed() < SOON_AFTER {
        let missing = first["missing"].as_array().unwrap();
        assert!(first["status"] == "partial" && missing.contains(&json!("n2")), "{first}");
    }
    sees(&n1, &["n1", "n3"]).await;
    n3.stop().await;
    let left = sees(&n1, &["n1"]).await;
    assert_eq!(left["missing"], json!([]));
    n1.stop().await;
}

#[tokio::test]
async fn a_session_of_another_node_is_ended_with_a_notice() {
    let server = NatsServer::start().unwrap();
    let (n1, n2) = tokio::join!(start(&server, "n1"), start(&server, "n2"));
    sees(&n1, &["n1", "n2"]).await;
    let mut socket = Socket::joined(&n2, "dashboard?subscriptions=&connection_id=me").await;
    end_elsewhere(&n1, "me", "n2").await;
    let (frames, closed) = socket.rest().await;
    let notice = frames.last().unwrap();
    assert_eq!((&notice["type"], &notice["detail"]), (&json!("disconnect_notice"), &json!("moved")));
    assert_eq!(notice["correlation_id"], "change-9");
    assert_eq!(closed.unwrap().reason, "admin");
    until("an answer of all nodes", async || disconnect(&n1, "nobody").send().await.status == 404).await;
}

#[tokio::test]
async fn a_name_belongs_to_one_session_of_the_cluster_and_is_free_when_that_has_gone() {
    let server = NatsServer::start().unwrap();
    let (n1, n2) = tokio::join!(start(&server, "n1"), start(&server, "n2"));
    tokio::join!(sees(&n1, &["n1", "n2"]), sees(&n2, &["n1", "n2"]));
    let (first, hello) = named(&n1, "me").await;
    assert_eq!((&hello["connection_id"], hello.get("requested_connection_id")), (&json!("me"), None));
    let (mut second, mut hello) = named(&n2, "me").await;
    until("a claim that is answered in time", async || {
        // A node that has not heard within 250 ms that a name is taken gives it.
        if hello["connection_id"] != "me" {
            return true;
        }
        drop(second.stream.close(None).await);
        n2.shows(STATS, "/websocket_stats/active_connections", &json!(0)).await;
        (second, hello) = named(&n2, "me").await;
        hello["connection_id"] != "me"
    })
    .await;
    assert_eq!(hello["requested_connection_id"], "me");
    // Under the name that it got it can be found.
    let made = hello["connection_id"].as_str().unwrap();
    end_elsewhere(&n1, made, "n2").await;
    drop((first, second));
    for node in [&n1, &n2] {
        node.shows(STATS, "/websocket_stats/active_connections", &json!(0)).await;
    }
    let (_third, hello) = named(&n2, "me").await;
    assert_eq!(hello["connection_id"], "me");
}

#[tokio::test]
async fn a_node_without_its_bus_shows_itself_and_says_that_it_cannot_know() {
    let mut server = NatsServer::start().unwrap();
    let (n1, n2) = tokio::join!(start(&server, "n1"), start(&server, "n2"));
    sees(&n1, &["n1", "n2"]).await;
    server.freeze().unwrap();
    until("the end of the other node's lease", async || {
        let seen = view(&n1).await;
        assert_eq!(seen["status"], "partial");
        seen["missing"] == json!([]) && names(&seen) == ["n1"]
    })
    .await;
    let answer = disconnect(&n1, "me").send().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.json()["code"], "cluster_partial");
    let (_socket, hello) = named(&n1, "me").await;
    assert_eq!(hello["connection_id"], "me");
    server.thaw().unwrap();
    sees(&n1, &["n1", "n2"]).await;
    drop(n2);
}

#[tokio::test]
async fn two_nodes_with_one_id_are_shown_as_what_they_are() {
    let server = NatsServer::start().unwrap();
    let (n1, _other) = tokio::join!(start(&server, "n1"), start(&server, "n1"));
    until("both nodes and their mark", async || {
        let seen = view(&n1).await;
        let nodes = seen["nodes"].as_array().unwrap();
        nodes.len() == 2 && nodes.iter().all(|node| node["duplicate_node_id"] == true)
    })
    .await;
}

#[tokio::test]
async fn a_node_that_drains_says_so_and_has_left_when_its_last_session_has_gone() {
    let server = NatsServer::start().unwrap();
    let n2 = [
        ("HIVEOPS_BUS", &*server.url()),
        ("HIVEOPS_NODE_ID", "n2"),
        // Longer than the test waits: only the second call lets it end.
        ("HIVEOPS_DRAIN_SECONDS", "3600"),
    ];
    let (n1, n2) = tokio::join!(start(&server, "n1"), Node::start(&n2));
    sees(&n1, &["n1", "n2"]).await;
    let mut sockets = [Socket::joined(&n2, "tasks").await, Socket::joined(&n2, "tasks").await];
    let drain = |query| n2.call("POST", &format!("/api/dashboard/websocket/drain{query}"));
    assert_eq!(drain("").send().await.status, 202);
    let seen = sees(&n1, &["n1", "n2"]).await;
    assert_eq!(
        (&seen["nodes"][1]["draining"], &seen["nodes"][1]["status"]),
        (&json!(true), &json!("unhealthy"))
    );
    assert_eq!(drain("?seconds=0").send().await.status, 202);
    for socket in &mut sockets {
        socket.rest().await;
    }
    n2.ended().await;
    let left = Instant::now();
    let first = view(&n1).await;
    if left.elapsed() < SOON_AFTER {
        assert_eq!((&first["missing"], names(&first)), (&json!([]), vec!["n1"]));
    }
}
