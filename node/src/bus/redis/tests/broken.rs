//! Connections that break, and servers that stand still or refuse.

use futures_util::FutureExt;
use futures_util::future::join;
use hiveops_testkit::broker::RedisServer;

use super::*;

#[tokio::test]
async fn a_cut_connection_leaves_no_hole_and_stores_nothing_twice() {
    const COUNT: usize = 600;
    let server = RedisServer::start().unwrap();
    let (bus, other) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let mut readers = [Reader::open(&bus).await, Reader::open(&other).await];
    let cutting = async {
        for _ in 0..5 {
            // Amid what is under way.
            tokio::task::yield_now().await;
            server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
            bus.ready(PATIENCE).await.unwrap();
        }
    };
    // By turns a repeat that is known and none: both must be stored once.
    let all = (0..COUNT).map(|n| match n % 2 {
        0 => occurrence(0, n),
        _ => with_key(&format!("k{n}"), occurrence(0, n)),
    });
    let (acks, ()) = join(publish_all(&bus, all), cutting).await;
    let mut seqs: Vec<u64> = acks.iter().map(|ack| ack.seq).collect();
    assert!(acks.iter().all(|ack| !ack.duplicate), "sending again is no repeat");
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=COUNT as u64).collect::<Vec<_>>());
    for reader in &mut readers {
        let log = in_time(reader.until(0, COUNT as u64)).await;
        assert_eq!((log.live.as_slice(), log.resets), (seqs.as_slice(), 1));
    }
    assert!(bus.shared.counts.reconnects.load(Ordering::Relaxed) >= 5);
    assert_eq!(seen_now(&bus, 0).await.head, COUNT as u64);
}

#[tokio::test]
async fn nothing_that_timed_out_is_stored_later() {
    let server = Arc::new(Mutex::new(RedisServer::start().unwrap()));
    let url = server.lock().url();
    let mut bus = ready(&url, "n1").await;
    let mut reader = Reader::open(&bus).await;
    // Beyond the second after which a call without an answer ends its connection, and by more than a busy
    // machine loses on the way there.
    bus.deadline = Duration::from_millis(2_500);
    let frozen = Frozen::freeze(&server);
    // It lies in the server's socket and is read when the server goes on.
    assert_eq!(bus.publish(update(0, "a", 1)).await, Err(PublishError::Timeout));
    assert!(matches!(bus.publish(update(0, "a", 2)).await, Err(PublishError::Unavailable(_))));
    assert!(bus.follow().await.is_err() && bus.probe(1).await.is_err());
    drop(frozen);
    bus.deadline = CALL_TIMEOUT;
    let calls = server.lock().command(&["INFO", "commandstats"]).unwrap();
    assert!(calls.contains("cmdstat_evalsha"), "{calls}");
    let ack = publish_at_last(&bus, update(0, "b", 3)).await;
    let log = in_time(reader.until(0, ack.seq)).await;
    assert_eq!((ack.seq, log.seqs().into_keys().collect::<Vec<_>>()), (1, vec!["b"]));
    assert_eq!(log.resets, 1);
}

#[tokio::test]
async fn a_call_that_is_given_up_still_finds_a_dead_connection() {
    let server = Arc::new(Mutex::new(RedisServer::start().unwrap()));
    let url = server.lock().url();
    let bus = ready(&url, "n1").await;
    let _frozen = Frozen::freeze(&server);
    let impatient = tokio::time::timeout(Duration::from_millis(1_100), bus.probe(1));
    assert!(impatient.await.is_err());
    wait_for("all links down", || bus.logs.values().all(|port| port.up.borrow().is_none())).await;
}

#[tokio::test]
async fn a_server_without_memory_refuses_and_keeps_its_connections() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    bus.publish(update(0, "a", 1)).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    for publish in [update(0, "a", 2), crate::bus::conformance::removal(0, "a")] {
        let refused = bus.publish(publish).await;
        assert!(
            matches!(&refused, Err(PublishError::Unavailable(why)) if why.reason.contains("OOM")),
            "{refused:?}"
        );
    }
    assert!(bus.probe(1).await.is_err(), "what cannot be stored is not live");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    assert_eq!(bus.publish(update(0, "a", 3)).await.unwrap().seq, 2);
    assert_eq!(bus.shared.counts.reconnects.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_server_may_forget_the_scripts() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    server.command(&["SCRIPT", "FLUSH"]).unwrap();
    assert_eq!(bus.publish(update(0, "a", 1)).await.unwrap().seq, 1);
    server.command(&["SCRIPT", "FLUSH"]).unwrap();
    bus.probe(1).await.unwrap();
    assert_eq!(bus.shared.counts.reconnects.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_nobody_can_read_is_left_out() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut reader = Reader::open(&bus).await;
    bus.publish(update(0, "a", 1)).await.unwrap();
    // Said on the channel: the log has nothing of it, and goes on.
    server.command(&["PUBLISH", "hiveops:{test:agents}:live", "nonsense"]).unwrap();
    wait_for("the link to begin anew", || bus.shared.counts.reconnects.load(Ordering::Relaxed) == 1).await;
    assert_eq!(bus.publish(update(0, "a", 2)).await.unwrap().seq, 2);
    assert_eq!(in_time(reader.until(0, 2)).await.resets, 1);
    // In the state: whoever comes gets the rest.
    server.command(&["HSET", "hiveops:{test:agents}:state", "x", "1 5 vx\n{}"]).unwrap();
    let late = ready(&server.url(), "n2").await;
    assert_eq!(seen_now(&late, 0).await.seqs().into_keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(late.shared.counts.bad_entries.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_publication_that_nobody_waits_for_is_not_sent() {
    let server = Arc::new(Mutex::new(RedisServer::start().unwrap()));
    let url = server.lock().url();
    let bus = ready(&url, "n1").await;
    let mut given_up = Box::pin(bus.publish(update(0, "a", 1)));
    assert!(given_up.as_mut().now_or_never().is_none());
    drop(given_up);
    // It may have gone out: then it is the first, and has come.
    let ack = bus.publish(update(0, "b", 2)).await.unwrap();
    let log = seen_now(&bus, 0).await;
    assert_eq!(log.values.len() as u64, ack.seq);
}

/// Every seq once and in order, whoever publishes.
#[tokio::test]
async fn two_nodes_that_publish_at_once_share_one_order() {
    const EACH: usize = 200;
    let server = RedisServer::start().unwrap();
    let (one, two) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let mut readers = [Reader::open(&one).await, Reader::open(&two).await];
    let publish = |bus| publish_all(bus, (0..EACH).map(|n| occurrence(0, n)));
    let (first, second) = join(publish(&one as &dyn Bus), publish(&two as &dyn Bus)).await;
    let mut seqs: Vec<u64> = first.into_iter().chain(second).map(|ack| ack.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=2 * EACH as u64).collect::<Vec<_>>());
    for reader in &mut readers {
        assert_eq!(in_time(reader.until(0, 2 * EACH as u64)).await.live, seqs);
    }
    let counts = &one.shared.counts;
    assert_eq!((counts.gaps.load(Ordering::Relaxed), counts.reconnects.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn a_hole_on_the_channel_is_read_from_the_log() {
    let server = RedisServer::start().unwrap();
    let bus = ready(&server.url(), "n1").await;
    let mut reader = Reader::open(&bus).await;
    let epoch = bus.publish(update(0, "a", 1)).await.unwrap().epoch;
    in_time(reader.until(0, 1)).await;
    server.command(&["PUBLISH", "hiveops:{test:agents}:live", &format!("S {epoch} 9 o\n{{}}")]).unwrap();
    wait_for("the gap to be found", || bus.shared.counts.gaps.load(Ordering::Relaxed) == 1).await;
    publish_at_last(&bus, with_key("k", update(0, "a", 2))).await;
    let log = in_time(reader.until(0, 2)).await;
    assert_eq!((log.live.as_slice(), log.resets), (&[1, 2][..], 1));
}

#[tokio::test]
async fn a_probe_finds_that_the_log_has_another_end() {
    let server = RedisServer::start().unwrap();
    let (one, two) = (ready(&server.url(), "n1").await, ready(&server.url(), "n2").await);
    let (mut first, mut second) = (Reader::open(&one).await, Reader::open(&two).await);
    publish_all(&one, (0..3).map(|n| update(0, "a", n))).await;
    in_time(join_all([first.until(0, 3), second.until(0, 3)])).await;
    let old = first.log(0).epoch.clone();
    server.command(&["DEL", "hiveops:{test:agents}:log"]).unwrap();
    server.command(&["HSET", "hiveops:{test:agents}:meta", "seq", "1"]).unwrap();
    one.probe(1).await.unwrap();
    let new = renewed(&mut first, 0, &old).await;
    assert_eq!(renewed(&mut second, 0, &old).await, new);
}
