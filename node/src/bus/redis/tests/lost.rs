//! Servers that come back with all they had, with less, or with nothing.

use std::path::Path;

use hiveops_testkit::broker::RedisServer;

use super::*;

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_and_the_epoch_goes_on() {
    let mut server = RedisServer::start().unwrap();
    let (one, two) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let mut reader = Reader::open(&one).await;
    let epoch = reader.log(0).epoch.clone();
    publish_all(&one, (0..50).map(|n| occurrence(0, n))).await;
    server.kill().unwrap();
    assert!(matches!(one.publish(update(0, "a", 1)).await, Err(PublishError::Unavailable(_))));
    server.restart().unwrap();
    let ack = publish_at_last(&two, with_key("k", update(0, "a", 2))).await;
    assert_eq!((ack.seq, &ack.epoch), (51, &epoch));
    let log = in_time(reader.until(0, 51)).await;
    assert_eq!((log.live.as_slice(), log.resets), (&(1..=51).collect::<Vec<u64>>()[..], 1));
    one.ready(PATIENCE).await.unwrap();
    let log = seen_now(&one, 0).await;
    assert_eq!((log.epoch, log.occurrences.len()), (epoch, 50));
}

#[tokio::test]
async fn an_emptied_database_is_a_new_epoch_for_all_nodes() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let (mut first, mut second) = (Reader::open(&one).await, Reader::open(&two).await);
    publish_all(&one, (0..3).map(|n| update(0, "a", n))).await;
    in_time(join_all([first.until(0, 3), second.until(0, 3)])).await;
    let old = first.log(0).epoch.clone();
    server.command(&["FLUSHALL"]).unwrap();
    // The probe of one node is enough for both.
    one.probe(1).await.unwrap();
    let new = renewed(&mut first, 0, &old).await;
    assert_eq!(renewed(&mut second, 0, &old).await, new);
    assert_eq!((first.log(0).head, first.log(0).values.len()), (0, 0));
    let ack = publish_at_last(&two, update(0, "a", 9)).await;
    assert_eq!((ack.seq, &ack.epoch), (1, &new));
    assert_eq!(in_time(first.until(0, 1)).await.epoch, new);
}

#[tokio::test]
async fn a_publication_into_an_emptied_database_is_a_new_epoch_too() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut reader = Reader::open(&bus).await;
    publish_all(&bus, (0..3).map(|n| update(0, "a", n))).await;
    let old = in_time(reader.until(0, 3)).await.epoch.clone();
    server.command(&["FLUSHALL"]).unwrap();
    let ack = bus.publish(update(0, "a", 9)).await.unwrap();
    assert_eq!((ack.seq, renewed(&mut reader, 0, &old).await), (1, ack.epoch));
}

#[tokio::test]
async fn a_server_that_lost_the_end_of_its_log_is_a_new_epoch_for_all_nodes() {
    let mut server = RedisServer::start().unwrap();
    let (one, two) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let (mut first, mut second) = (Reader::open(&one).await, Reader::open(&two).await);
    publish_all(&one, (0..10).map(|n| occurrence(0, n))).await;
    let (kept, data) = (tempfile::tempdir().unwrap(), server.place().join("appendonlydir"));
    copy(&data, kept.path());
    publish_all(&one, (10..20).map(|n| occurrence(0, n))).await;
    in_time(join_all([first.until(0, 20), second.until(0, 20)])).await;
    let old = first.log(0).epoch.clone();
    server.kill().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(kept.path(), &data);
    server.restart().unwrap();
    let new = renewed(&mut first, 0, &old).await;
    assert_eq!(renewed(&mut second, 0, &old).await, new);
    assert_eq!((first.log(0).head, second.log(0).head), (10, 10));
    let ack = publish_at_last(&two, update(0, "a", 1)).await;
    assert_eq!((ack.seq, ack.epoch), (11, new));
    // The other log has lost nothing.
    assert_eq!(seen_now(&one, 1).await.epoch, first.log(1).epoch);
}

#[tokio::test]
async fn a_server_that_was_started_anew_while_nobody_looked_is_a_new_epoch() {
    let mut server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let ack = bus.publish(update(0, "a", 1)).await.unwrap();
    bus.shutdown().await;
    drop(bus);
    // Without a restart, whoever comes goes on in the same epoch.
    let next = ready(&server.url(), "n1").await;
    assert_eq!(seen_now(&next, 0).await.epoch, ack.epoch);
    next.shutdown().await;
    drop(next);
    server.kill().unwrap();
    server.restart().unwrap();
    let log = seen_now(&ready(&server.url(), "n1").await, 0).await;
    assert_ne!(log.epoch, ack.epoch);
    assert_eq!((log.head, log.values.len()), (1, 1), "what is left is shown");
}

#[tokio::test]
async fn a_master_that_was_a_replica_in_between_is_a_new_epoch() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut reader = Reader::open(&bus).await;
    let old = bus.publish(update(0, "a", 1)).await.unwrap().epoch;
    server.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    assert!(matches!(bus.publish(update(0, "a", 2)).await, Err(PublishError::Unavailable(_))));
    server.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    let new = renewed(&mut reader, 0, &old).await;
    let ack = publish_at_last(&bus, update(0, "a", 3)).await;
    assert_eq!((ack.seq, ack.epoch), (2, new));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
