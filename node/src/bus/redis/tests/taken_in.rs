//! What publishers send over plain pub/sub, and which node takes it in.

use hiveops_testkit::broker::RedisServer;

use super::*;
use crate::bus::{Incoming, IntakeSource};

const LEASE: &str = "hiveops:{test}:intake";

/// Sends until somebody takes it.
async fn send(server: &RedisServer, channel: &str, payload: &str) {
    wait_for(channel, || server.command(&["PUBLISH", channel, payload]).unwrap() != "0").await;
}

async fn next(intake: &mut Box<dyn Intake>) -> Incoming {
    in_time(intake.next()).await.expect("the bus is up")
}

fn listeners(server: &RedisServer) -> String {
    let numbers = server.command(&["PUBSUB", "NUMSUB", "system_events"]).unwrap();
    let patterns = server.command(&["PUBSUB", "NUMPAT"]).unwrap();
    format!("{} {patterns}", numbers.lines().nth(1).unwrap())
}

#[tokio::test]
async fn every_channel_is_taken_in() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut intake = bus.intake().unwrap();
    assert!(bus.intake().is_none(), "once");
    let all = [
        (
            "system_events",
            r#"{"a":1,"correlation_id":"c1"}"#,
            "system",
            "system_event",
            r#"{"a":1,"correlation_id":"c1"}"#,
        ),
        ("agent_events:a/7", "{", "agents", "agent_event", "{"),
        (
            "project_index:websocket_events",
            r#"{"event":{"b":2}}"#,
            "project_index",
            "project_index_event",
            r#"{"b":2}"#,
        ),
        (
            "hiveops:test:u:tasks",
            r#"{"type":"task_update","data":{"id":"t1"},"idempotency_key":"k"}"#,
            "tasks",
            "task_update",
            r#"{"id":"t1"}"#,
        ),
    ];
    let mut sources = Vec::new();
    for (channel, payload, subscription, message_type, data) in all {
        send(&server, channel, payload).await;
        let incoming = next(&mut intake).await;
        assert_eq!(
            (incoming.subscription.as_str(), incoming.message_type.as_str()),
            (subscription, message_type)
        );
        assert_eq!(incoming.payload, data);
        sources.push(incoming.source);
    }
    let expected = [
        IntakeSource::RedisSystemEvents,
        IntakeSource::RedisAgentEvents,
        IntakeSource::RedisProjectIndex,
        IntakeSource::RedisEnvelope,
    ];
    assert_eq!(sources, expected);
    bus.shutdown().await;
    assert!(intake.next().await.is_none());
    assert_eq!(server.command(&["GET", LEASE]).unwrap(), "", "it was given up");
}

#[tokio::test]
async fn one_node_at_a_time_takes_in_and_the_next_one_goes_on() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let mut first = one.intake().unwrap();
    send(&server, "system_events", "{}").await;
    let mut second = two.intake().unwrap();
    next(&mut first).await;
    assert!(server.command(&["GET", LEASE]).unwrap().starts_with("n1/"));
    one.shutdown().await;
    send(&server, "system_events", "{}").await;
    next(&mut second).await;
    assert!(server.command(&["GET", LEASE]).unwrap().starts_with("n2/"));
    assert_eq!(listeners(&server), "1 1");
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_runs_out() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    server.command(&["SET", LEASE, "gone/1", "PX", "1500"]).unwrap();
    let mut intake = bus.intake().unwrap();
    send(&server, "system_events", "{}").await;
    next(&mut intake).await;
    assert!(server.command(&["GET", LEASE]).unwrap().starts_with("n1/"));
}

#[tokio::test]
async fn who_has_lost_the_lease_takes_nothing_in() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut intake = bus.intake().unwrap();
    send(&server, "system_events", "{}").await;
    next(&mut intake).await;
    server.command(&["SET", LEASE, "other/1", "PX", "600000"]).unwrap();
    wait_for("nobody to listen", || listeners(&server) == "0 0").await;
    server.command(&["DEL", LEASE]).unwrap();
    send(&server, "agent_events:1", "{}").await;
    assert_eq!(next(&mut intake).await.subscription, "agents");
}

#[tokio::test]
async fn it_goes_on_after_the_server_was_killed() {
    let mut server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut intake = bus.intake().unwrap();
    send(&server, "system_events", "{}").await;
    next(&mut intake).await;
    server.kill().unwrap();
    server.restart().unwrap();
    send(&server, "system_events", "{}").await;
    next(&mut intake).await;
}

#[tokio::test]
async fn what_nobody_reads_is_dropped_and_counted() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut intake = bus.intake().unwrap();
    send(&server, "system_events", "{}").await;
    // 17 messages of 1 MiB, where 16 may wait.
    let long = format!(r#"{{"x":"{}"}}"#, "x".repeat(1024 * 1024));
    for _ in 0..17 {
        server.command(&["PUBLISH", "system_events", &long]).unwrap();
    }
    let dropped = || bus.shared.counts.intake_dropped.load(Ordering::Relaxed);
    wait_for("drops", || dropped() >= 1).await;
    for _ in 0..16 {
        next(&mut intake).await;
    }
    server.command(&["PUBLISH", "agent_events:1", "{}"]).unwrap();
    assert_eq!(next(&mut intake).await.subscription, "agents");
}
