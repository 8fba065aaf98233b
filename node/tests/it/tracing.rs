//! Spans of one publication over several nodes, as a real receiver gets them; and receivers that are away.

use std::time::{Duration, Instant};

use hiveops_testkit::broker::{NatsServer, RedisServer};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use crate::harness::{Node, Socket};
use crate::receiver::{Receiver, SECRET, Seen};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A node that is to be gone by then has not waited for its receiver without end.
const SOON: Duration = Duration::from_secs(10);

async fn start(id: &str, bus: &str, url: &str, more: &[(&str, &str)]) -> Node {
    let settings = [
        ("HIVEOPS_NODE_ID", id),
        ("HIVEOPS_BUS", bus),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    Node::start(&[&settings, more].concat()).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn only<'a>(spans: &'a [Seen], name: &str, node: &str) -> &'a Seen {
    let found: Vec<&Seen> = spans.iter().filter(|seen| seen.span.name == name && seen.node == node).collect();
    assert_eq!(found.len(), 1, "{name} of {node} in {spans:#?}");
    found[0]
}

/// Publishes at one of two nodes with a watcher on each, and looks at the whole tree.
async fn check_tree(bus: &str, receiver: &Receiver, protocol: &str) {
    let secret = format!("{SECRET}=s3%2Ccret");
    let more = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_HEADERS", &secret),
        ("OTEL_SERVICE_NAME", "dashboards"),
    ];
    let (n1, n2) =
        tokio::join!(start("n1", bus, &receiver.url, &more), start("n2", bus, &receiver.url, &more));
    let (mut one, mut two) = (Socket::joined(&n1, "tasks").await, Socket::joined(&n2, "tasks").await);
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let call = n1.broadcast("tasks", "task_update").header("traceparent", &traceparent);
    let reply = call.header("X-Correlation-ID", "order-7").json(&json!({"id": "a"})).send().await.ok();
    one.wait_for("task_update").await;
    two.wait_for("task_update").await;
    let spans = receiver.spans_of("order-7", 5).await;
    assert_eq!(spans.len(), 5, "{spans:#?}");
    for seen in &spans {
        assert_eq!((hex(&seen.span.trace_id).as_str(), seen.service.as_str()), (TRACE, "dashboards"));
        assert_eq!((seen.text("subscription"), seen.text("type")), (Some("tasks"), Some("task_update")));
        assert!(seen.span.end_time_unix_nano >= seen.span.start_time_unix_nano);
    }
    let publish = only(&spans, "publish", "n1");
    assert_eq!((hex(&publish.span.parent_span_id).as_str(), publish.kind()), (PARENT, SpanKind::Producer));
    assert_eq!((publish.number("seq"), publish.text("source")), (reply["seq"].as_i64(), Some("http")));
    for node in ["n1", "n2"] {
        let (receive, fan_out) = (only(&spans, "receive", node), only(&spans, "fan_out", node));
        assert_eq!(
            (&receive.span.parent_span_id, receive.kind()),
            (&publish.span.span_id, SpanKind::Consumer)
        );
        assert_eq!(fan_out.span.parent_span_id, receive.span.span_id);
        let counts =
            ["recipients", "delivered", "enqueued", "coalesced", "dropped"].map(|name| fan_out.number(name));
        assert_eq!(counts, [Some(1), Some(1), Some(0), Some(0), Some(0)], "{fan_out:#?}");
        let events: Vec<&str> = fan_out.span.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, ["delivery"]);
    }
    assert_eq!(receiver.secret().as_deref(), Some("s3,cret"));
    for node in [&n1, &n2] {
        // The receiver has a span before the node knows that it has.
        node.metric_reaches("hiveops_trace_spans_exported_total", |count| count >= 2.0).await;
        for reason in ["queue_full", "export_failed", "timeout"] {
            assert_eq!(
                node.metric(&format!("hiveops_trace_spans_dropped_total{{reason=\"{reason}\"}}")).await,
                0.0
            );
        }
    }
}

#[tokio::test]
async fn one_publication_over_two_nodes_on_nats_is_one_tree_of_spans_over_grpc() {
    let (server, receiver) = (NatsServer::start().unwrap(), Receiver::grpc().await);
    check_tree(&server.url(), &receiver, "grpc").await;
}

#[tokio::test]
async fn one_publication_over_two_nodes_on_redis_is_one_tree_of_spans_over_http() {
    let (server, receiver) = (RedisServer::start().unwrap(), Receiver::http().await);
    check_tree(&server.url(), &receiver, "http/protobuf").await;
}

#[tokio::test]
async fn what_a_publisher_hands_to_the_bus_goes_on_with_its_trace() {
    let (server, receiver) = (NatsServer::start().unwrap(), Receiver::http().await);
    let node = start("n1", &server.url(), &receiver.url, &[]).await;
    let publisher = async_nats::connect(server.url()).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Hiveops-Type", "task_update");
    headers.insert("X-Correlation-ID", "order-8");
    headers.insert("traceparent", format!("00-{TRACE}-{PARENT}-01").as_str());
    publisher
        .publish_with_headers("hiveops.default.in.tasks", headers, r#"{"id":"a"}"#.into())
        .await
        .unwrap();
    publisher.flush().await.unwrap();
    let spans = receiver.spans_of("order-8", 3).await;
    let publish = only(&spans, "publish", "n1");
    assert_eq!((hex(&publish.span.trace_id).as_str(), publish.text("source")), (TRACE, Some("nats_in")));
    assert_eq!(hex(&publish.span.parent_span_id), PARENT);
    assert_eq!(only(&spans, "fan_out", "n1").number("recipients"), Some(0));
    let trace = node.get("/api/dashboard/trace/order-8").await;
    assert_eq!(trace["publications"][0]["accepted"][0]["source"], "nats_in");
}

#[tokio::test]
async fn a_publisher_that_has_decided_against_it_is_not_traced_and_one_that_says_nonsense_is_sampled() {
    let receiver = Receiver::http().await;
    let all = [("OTEL_TRACES_SAMPLER", "parentbased_always_on")];
    let node = start("n1", "embedded", &receiver.url, &all).await;
    let publish = async |id: &str, traceparent: &str| {
        let call = node.broadcast("tasks", "task_update").header("traceparent", traceparent);
        call.header("X-Correlation-ID", id).json(&json!({"id": id})).send().await.ok();
    };
    publish("not", &format!("00-{TRACE}-{PARENT}-00")).await;
    publish("nonsense", &format!("00-{TRACE}-{PARENT}-01-x")).await;
    let spans = receiver.spans_of("nonsense", 3).await;
    assert!(spans.iter().all(|seen| hex(&seen.span.trace_id) != TRACE));
    assert_eq!(only(&spans, "publish", "n1").span.parent_span_id, Vec::<u8>::new());
    assert!(!receiver.all().iter().any(|seen| seen.text("correlation_id") == Some("not")));
    let refused = node.broadcast("nope", "x").header("X-Correlation-ID", "refused").json(&json!({}));
    assert_eq!(refused.send().await.status, 422);
    let spans = receiver.spans_of("refused", 1).await;
    assert_eq!(
        (spans[0].span.name.as_str(), spans[0].text("reason")),
        ("publish", Some("unknown_subscription"))
    );
}

#[tokio::test]
async fn a_node_that_drains_tells_of_every_fan_out_after_a_shard_has_ended() {
    const COUNT: usize = 5;
    let receiver = Receiver::http().await;
    let node = start("n1", "embedded", &receiver.url, &[("OTEL_TRACES_SAMPLER", "always_on")]).await;
    // One on each shard.
    let path = "dashboard?subscriptions=tasks";
    let (mut first, mut second) = (Socket::joined(&node, path).await, Socket::joined(&node, path).await);
    let drain = node.call("POST", "/api/dashboard/websocket/drain?seconds=3600").send().await;
    assert_eq!(drain.status, 202);
    first.rest().await;
    node.metric_reaches("hiveops_ws_connections_active", |count| count == 1.0).await;
    for n in 0..COUNT {
        let call = node.broadcast("tasks", "task_update").header("X-Correlation-ID", "late");
        call.json(&json!({"id": "a", "n": n})).send().await.ok();
        assert_eq!(second.wait_for("task_update").await["data"]["n"], n);
    }
    let spans = receiver.spans_of("late", 3 * COUNT).await;
    let fan_outs: Vec<&Seen> = spans.iter().filter(|seen| seen.span.name == "fan_out").collect();
    assert_eq!(fan_outs.len(), COUNT, "{spans:#?}");
    assert!(fan_outs.iter().all(|seen| seen.number("delivered") == Some(1)), "{fan_outs:#?}");
}

/// Publications are delivered whatever the receiver does, the count says so, and the node ends in time.
async fn check_away(url: &str, more: &[(&str, &str)], reason: &str) {
    let all = [("OTEL_TRACES_SAMPLER", "always_on"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")];
    let node = start("n1", "embedded", url, &[&all, more].concat()).await;
    let mut socket = Socket::joined(&node, "dashboard?subscriptions=project_index").await;
    for n in 0..20 {
        let sent = Instant::now();
        node.publish("project_index", "project_index_event", json!({"n": n})).await;
        assert_eq!(socket.wait_for("project_index_event").await["data"]["n"], n);
        assert!(sent.elapsed() < SOON, "a delivery has waited for the receiver of traces");
    }
    let dropped = format!("hiveops_trace_spans_dropped_total{{reason=\"{reason}\"}}");
    node.metric_reaches(&dropped, |count| count >= 1.0).await;
    assert_eq!(node.metric("hiveops_trace_spans_exported_total").await, 0.0);
    let stopping = Instant::now();
    drop(socket);
    node.stop().await;
    assert!(stopping.elapsed() < SOON, "the node has waited {:?} for its receiver", stopping.elapsed());
}

/// An address that nobody listens at.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_receiver_that_is_away_costs_spans_and_nothing_else() {
    for protocol in ["grpc", "http/protobuf"] {
        check_away(&nobody(), &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)], "export_failed").await;
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_spans_and_nothing_else() {
    for protocol in ["grpc", "http/protobuf"] {
        // The time of a whole batch, and of one request.
        for setting in ["OTEL_BSP_EXPORT_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"] {
            let receiver = Receiver::hanging().await;
            let more = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), (setting, "50")];
            check_away(&receiver.url, &more, "timeout").await;
            assert!(receiver.connections() > 0);
        }
    }
}

#[tokio::test]
async fn what_a_receiver_refuses_is_not_sent_again() {
    for (protocol, receiver) in
        [("grpc", Receiver::overloaded_grpc().await), ("http/protobuf", Receiver::overloaded_http().await)]
    {
        let more = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ];
        let node = start("n1", "embedded", &receiver.url, &more).await;
        node.publish("project_index", "project_index_event", json!({"n": 1})).await;
        let dropped = "hiveops_trace_spans_dropped_total{reason=\"export_failed\"}";
        // One span in each batch.
        let failed = node.metric_reaches(dropped, |count| count >= 3.0).await;
        // The one that is under way has not failed yet.
        let sent = receiver.refused() as f64;
        let failed_later = node.metric(dropped).await;
        assert!(
            failed <= sent && sent <= failed_later + 1.0,
            "{protocol}: {sent} requests, {failed_later} failed"
        );
    }
}

#[tokio::test]
async fn the_queue_of_spans_is_bounded_and_a_stop_does_not_wait_for_a_long_deadline() {
    let receiver = Receiver::hanging().await;
    let more = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "600000"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
    ];
    check_away(&receiver.url, &more, "queue_full").await;
}
