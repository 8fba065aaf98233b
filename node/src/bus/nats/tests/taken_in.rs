//! The `in` work queue: what publishers that know only NATS hand in.

use super::*;
use crate::bus::{Incoming, IntakeSource, Settled};

async fn hand_in(url: &str, subject: &str, headers: &[(&str, &str)], payload: &str) {
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let publisher = outsider(url).await;
    publisher
        .publish_with_headers(subject.to_owned(), map, payload.to_owned().into())
        .await
        .unwrap()
        .await
        .unwrap();
}

async fn next(intake: &mut Box<dyn Intake>) -> Incoming {
    tokio::time::timeout(PATIENCE, intake.next()).await.expect("it comes").expect("the bus is up")
}

async fn settle(incoming: Incoming, settled: Settled) {
    incoming.settle.unwrap()(settled).await;
}

#[tokio::test]
async fn what_is_handed_in_comes_as_it_was_written_and_goes_when_it_is_settled() {
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let mut intake = bus.intake().unwrap();
    let headers = [
        ("Hiveops-Type", "some_event"),
        ("X-Correlation-ID", "mine"),
        ("Nats-Msg-Id", "once"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    hand_in(&server.url(), "hiveops.test.in.agents", &headers, "{}").await;
    let first = next(&mut intake).await;
    assert_eq!((first.source, first.subscription.as_str()), (IntakeSource::NatsIn, "agents"));
    assert_eq!((first.message_type.as_str(), &first.payload[..]), ("some_event", &b"{}"[..]));
    assert_eq!(first.correlation_id.as_deref(), Some("mine"));
    assert_eq!(first.idempotency_key.as_deref(), Some("once"));
    assert!(first.traceparent.is_some());
    // It could not be stored: it comes again, and then not any more.
    settle(first, Settled::Later).await;
    let again = next(&mut intake).await;
    assert_eq!(again.correlation_id.as_deref(), Some("mine"));
    settle(again, Settled::Stored).await;
    hand_in(&server.url(), "hiveops.test.in.agents", &[("X-Correlation-ID", "other")], "{").await;
    let other = next(&mut intake).await;
    assert_eq!((other.correlation_id.as_deref(), other.message_type.as_str()), (Some("other"), ""));
    assert!(other.idempotency_key.unwrap().starts_with("in:"), "a second delivery is known");
    bus.shutdown().await;
    assert!(intake.next().await.is_none());
}

#[tokio::test]
async fn what_waits_is_taken_in_after_the_server_has_come_back() {
    let mut server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let mut intake = bus.intake().unwrap();
    hand_in(&server.url(), "hiveops.test.in.agents", &[("X-Correlation-ID", "one")], "{}").await;
    settle(next(&mut intake).await, Settled::Stored).await;
    server.kill().unwrap();
    server.restart().unwrap();
    hand_in(&server.url(), "hiveops.test.in.tasks", &[("X-Correlation-ID", "two")], "{}").await;
    let mut second = next(&mut intake).await;
    // What the server did not hear of before it was killed comes again, and is known by its name.
    while second.correlation_id.as_deref() == Some("one") {
        second = next(&mut intake).await;
    }
    assert_eq!((second.subscription.as_str(), second.correlation_id.as_deref()), ("tasks", Some("two")));
}
