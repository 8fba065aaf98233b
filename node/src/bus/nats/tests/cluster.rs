//! Three NATS servers that keep each log three times.

use hiveops_testkit::broker::NatsOptions;
use hiveops_testkit::port::Port;

use super::*;
use crate::bus::Expect;
use crate::bus::conformance::{Reader, occurrence, publish_all, seen_now, update, with_key};

/// A JetStream cluster needs more than two of them for a majority.
const SERVERS: usize = 3;

fn cluster() -> Vec<NatsServer> {
    let routes: Vec<Port> = (0..SERVERS).map(|_| Port::claim().unwrap()).collect();
    let all: Vec<String> = routes.iter().map(|port| format!("\"nats://{}\"", port.addr())).collect();
    let options = routes.iter().enumerate().map(|(index, port)| NatsOptions {
        config: format!(
            "server_name: s{index}\ncluster {{ name: test, listen: \"{}\", routes: [{}] }}\n",
            port.addr(),
            all.join(", ")
        ),
        ..NatsOptions::default()
    });
    options.map(|options| NatsServer::start_with(options).unwrap()).collect()
}

fn three(servers: &[NatsServer]) -> Settings {
    let addresses: Vec<String> = servers.iter().map(|server| server.addr().to_string()).collect();
    Settings { replicas: 3, ..settings(&format!("nats://{}", addresses.join(","))) }
}

/// The cluster elects its leader first; a bus that is opened before waits for it.
async fn open_three(servers: &[NatsServer]) -> (NatsBus, watch::Sender<bool>) {
    open_with(three(servers), Duration::from_secs(90)).await.unwrap()
}

#[tokio::test]
async fn of_two_nodes_that_want_one_key_one_wins_and_neither_is_told_that_the_bus_is_gone() {
    let servers = cluster();
    let (one, _stop_one) = open_three(&servers).await;
    let (two, _stop_two) = open_three(&servers).await;
    let mut expect = Expect::Absent;
    for round in 0..20_usize {
        let change = |n| Publish { expect, ..update(0, "a", 2 * round + n) };
        let (first, second) = tokio::join!(one.publish(change(0)), two.publish(change(1)));
        let seq = match (first, second) {
            (Ok(won), Err(PublishError::WrongExpected { actual }))
            | (Err(PublishError::WrongExpected { actual }), Ok(won)) => {
                assert_eq!(actual, won.seq);
                won.seq
            }
            other => panic!("exactly one wins, got {other:?}"),
        };
        expect = Expect::Seq(seq);
    }
    for round in 0..20_usize {
        let same = || with_key(&format!("k{round}"), update(0, "a", round));
        let (first, second) = tokio::join!(one.publish(same()), two.publish(same()));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.seq, second.seq, "the name is known, whoever comes first");
        assert!(first.duplicate != second.duplicate, "{first:?} {second:?}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_any_one_server_of_three() {
    let mut servers = cluster();
    let (bus, _stop) = open_three(&servers).await;
    let mut reader = Reader::open(&bus).await;
    publish_all(&bus, (0..100).map(|n| occurrence(0, n))).await;
    let epoch = reader.until(0, 100).await.epoch.clone();
    for (index, server) in servers.iter_mut().enumerate() {
        server.kill().unwrap();
        let ack = publish_at_last(&bus, with_key(&format!("k{index}"), update(0, "a", index))).await;
        assert_eq!((&ack.epoch, ack.seq), (&epoch, 101 + index as u64));
        server.restart().unwrap();
        // The next one may only die when this one has caught up: two at once are a majority.
        publish_at_last(&bus, update(1, "a", index)).await;
        wait_in_step(&bus).await;
    }
    let log = reader.until(0, 103).await;
    assert_eq!((log.resets, log.live.len()), (1, 103), "one life, and no hole");
    assert_eq!(seen_now(&bus, 0).await.head, 103);
}

/// Until every copy of the logs is as far as the leader's.
async fn wait_in_step(bus: &NatsBus) {
    let in_step = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let Ok(link) = bus.link().await else { continue };
            let mut whole = true;
            for name in bus.inner.logs.values().map(|log| &log.name) {
                let stream = link.context.get_stream(bus.inner.names.log_stream(name)).await;
                let replicas = stream.ok().and_then(|stream| stream.cached_info().cluster.clone());
                whole &= replicas.is_some_and(|cluster| {
                    cluster.replicas.len() == SERVERS - 1
                        && cluster.replicas.iter().all(|peer| peer.current && !peer.offline)
                });
            }
            if whole {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(90), in_step).await.expect("the servers are in step");
}
