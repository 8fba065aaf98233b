//! Everything that became due to a session is accounted for, over the public surface: whoever is slow, leaves,
//! is cut off or sent off, `GET /api/dashboard/audit` adds up, and so do the metrics.

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::harness::{Node, Socket, soon, until};

const AUDIT: &str = "/api/dashboard/audit";
/// Carries events and updates, and the node itself publishes nothing on it.
const SUBSCRIPTION: &str = "project_index";
const EVENT: &str = "project_index_event";
const UPDATE: &str = "project_index_update";
const PATH: &str = "dashboard?subscriptions=project_index";
/// Bytes of padding: some ten of them fill the kernel's buffers of a client that does not read.
const LARGE: usize = 40_000;
/// Publications of one step at most: several times what outboxes and kernels hold.
const STEP_MAX: u64 = 150;

/// Connects a client that reads only when the test says so, and has joined.
async fn slow(node: &Node) -> Socket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1_024).unwrap();
    let stream = soon("a connection", socket.connect(node.address)).await.unwrap();
    let url = format!("ws://{}/api/dashboard/ws/{PATH}", node.address);
    let handshake =
        tokio_tungstenite::client_async(url.into_client_request().unwrap(), MaybeTlsStream::Plain(stream));
    let (stream, _) = soon("a handshake", handshake).await.unwrap();
    let mut socket = Socket { stream };
    socket.wait_for("snapshot").await;
    socket
}

/// The books of the subscription, which must be even, and so must all others.
async fn books(node: &Node) -> Value {
    let mut audit = Value::Null;
    // A busy machine may have a shard answer too late. What it has shown before is even as well.
    until("an answer of every shard", async || {
        audit = node.get(AUDIT).await;
        assert_eq!(audit["cluster"]["residual"], 0, "{audit:#}");
        audit["cluster"]["status"] == "complete"
    })
    .await;
    let cluster = &audit["cluster"];
    let books = cluster["nodes"][0]["subscriptions"][SUBSCRIPTION].clone();
    // Not only by the node's own arithmetic.
    let number = |name: &str| books[name].as_u64().unwrap();
    let dropped: u64 =
        books["dropped"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    let found = number("delivered") + number("coalesced") + dropped + number("pending");
    assert_eq!(number("recipients"), found, "{books:#}");
    books
}

/// Publishes until the books are as wanted, one reader keeping up.
async fn publish_until(
    node: &Node,
    (message_type, what): (&str, &str),
    quick: &mut Socket,
    reached: impl Fn(&Value) -> bool,
) {
    for number in 0..STEP_MAX {
        let data = json!({"id": format!("k{}", number % 3), "number": number, "pad": "x".repeat(LARGE)});
        node.publish(SUBSCRIPTION, message_type, data).await;
        quick.wait_for(message_type).await;
        if reached(&books(node).await) {
            return;
        }
    }
    panic!("{what} does not happen");
}

async fn becomes(node: &Node, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    until(what, async || reached(&books(node).await)).await;
    books(node).await
}

async fn check(io_uring: &str) {
    let settings = [("HIVEOPS_IO_URING", io_uring), ("WS_OUTBOX_FRAMES_MAX", "8")];
    let node = Node::start(&settings).await;
    let mut quick = Socket::joined(&node, PATH).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(slow(&node).await);
    }
    let of = |reason: &'static str| move |books: &Value| books["dropped"][reason].as_u64() > Some(0);
    let is_some = |name: &'static str| move |books: &Value| books[name].as_u64() > Some(0);
    publish_until(&node, (UPDATE, "coalescing"), &mut quick, is_some("coalesced")).await;
    let (mut leaver, goner, mut reader) =
        (sockets.pop().unwrap(), sockets.pop().unwrap(), sockets.pop().unwrap());
    // What came before the last look at a socket may be settled, and is sent in any case.
    publish_until(&node, (UPDATE, "one more"), &mut quick, |_| true).await;
    leaver.send(json!({"type": "unsubscribe", "subscriptions": [SUBSCRIPTION]})).await;
    becomes(&node, "a session leaves with frames waiting", of("left")).await;
    drop(goner);
    becomes(&node, "a connection ends with frames waiting", of("closed")).await;
    let before = becomes(&node, "the rest waits", is_some("pending")).await["delivered"].as_u64().unwrap();
    // This one reads all of it now, so that frames leave from its outbox.
    let mut seq = 0;
    let last = node.publish(SUBSCRIPTION, EVENT, json!({"last": true})).await["seq"].as_u64().unwrap();
    quick.wait_for(EVENT).await;
    while seq < last {
        let frame = reader.next().await;
        seq = frame["seq"].as_u64().unwrap_or(seq);
    }
    // One more delivery is that of the event to the one that keeps up.
    becomes(&node, "frames have left its outbox", |books| books["delivered"].as_u64().unwrap() > before + 1)
        .await;
    // The last slow one is closed for it.
    publish_until(&node, (EVENT, "backpressure"), &mut quick, of("backpressure")).await;
    let books = becomes(&node, "refusals are in the books", of("refused")).await;
    for (name, metric) in [
        ("recipients", "hiveops_ws_publication_recipients_total"),
        ("caught_up", "hiveops_ws_publication_caught_up_total"),
        ("delivered", "hiveops_ws_publication_delivered_total"),
        ("coalesced", "hiveops_ws_coalesced_total"),
    ] {
        let labelled = format!("{metric}{{subscription=\"{SUBSCRIPTION}\"}}");
        assert!(node.metric(&labelled).await >= books[name].as_u64().unwrap() as f64, "{metric}");
    }
    // Everybody who is left is sent off while something waits.
    let _late = slow(&node).await;
    publish_until(&node, (EVENT, "waiting"), &mut quick, is_some("pending")).await;
    let drain = node.call("POST", "/api/dashboard/websocket/drain?seconds=0").send().await;
    assert_eq!(drain.status, 202);
    quick.wait_for("disconnect_notice").await;
    // The late one does not read, so the node is still there, and has not lost count.
    becomes(&node, "the end of the quick one", |_| true).await;
}

#[tokio::test]
async fn nothing_is_unaccounted_for_with_plain_writes() {
    check("false").await;
}

/// The same as the other where the kernel has no io_uring.
#[tokio::test]
async fn nothing_is_unaccounted_for_with_io_uring() {
    check("true").await;
}

#[tokio::test]
async fn the_metrics_of_one_scrape_add_up() {
    let node = Node::start(&[]).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(Socket::joined(&node, PATH).await);
    }
    for number in 0..5 {
        node.publish(SUBSCRIPTION, EVENT, json!({"n": number})).await;
    }
    for socket in &mut sockets {
        for _ in 0..5 {
            socket.wait_for(EVENT).await;
        }
    }
    node.metric_reaches(&of_all("publication_delivered_total"), |count| count == 15.0).await;
    let text = scrape(&node).await;
    assert_eq!(value(&text, &of_all("publication_recipients_total")), 15.0);
    assert_eq!(value(&text, &of_all("publications_pending")), 0.0);
    assert_eq!(residual(&text), 0.0, "{text}");
    // Each was seen by three sockets within the time of the test.
    node.metric_reaches("hiveops_ws_publish_to_socket_seconds_count", |count| count >= 15.0).await;
}

/// Two threads, so that one scrape may come between the steps of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_every_scrape_add_up_with_many_scrapers_at_once() {
    const SCRAPERS: usize = 4;
    const ROUNDS: u64 = 150;
    let node = Node::start(&[("WS_OUTBOX_FRAMES_MAX", "8")]).await;
    let mut quick = Socket::joined(&node, PATH).await;
    let _slow = slow(&node).await;
    for number in 0..ROUNDS {
        let data = json!({"id": format!("k{}", number % 3), "number": number, "pad": "x".repeat(LARGE)});
        let publish = node.publish(SUBSCRIPTION, UPDATE, data);
        let scrapes = futures_util::future::join_all((0..SCRAPERS).map(|_| scrape(&node)));
        let (_, texts) = tokio::join!(publish, scrapes);
        for text in texts {
            assert_eq!(residual(&text), 0.0, "round {number}: {text}");
        }
        quick.wait_for(UPDATE).await;
    }
    let coalesced = of_all("coalesced_total");
    assert!(node.metric(&coalesced).await > 0.0, "the slow one has fallen behind");
}

fn of_all(name: &str) -> String {
    format!("hiveops_ws_{name}{{subscription=\"{SUBSCRIPTION}\"}}")
}

async fn scrape(node: &Node) -> String {
    let answer = soon("the metrics", reqwest::get(node.http("/metrics"))).await.unwrap();
    soon("all of the metrics", answer.text()).await.unwrap()
}

fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// What of one scrape is not accounted for.
fn residual(text: &str) -> f64 {
    let dropped: f64 = ["refused", "backpressure", "closed", "broken", "left", "reset"]
        .iter()
        .map(|reason| {
            let labels = format!("subscription=\"{SUBSCRIPTION}\"");
            let name = "hiveops_ws_publication_dropped_total";
            // Labels are in the order of their names.
            value(text, &format!("{name}{{reason=\"{reason}\",{labels}}}"))
        })
        .sum();
    let settled = ["publication_delivered_total", "coalesced_total", "publications_pending"];
    let settled: f64 = settled.iter().map(|name| value(text, &of_all(name))).sum();
    value(text, &of_all("publication_recipients_total")) - settled - dropped
}
