//! What happens when the server, its data or the way to it break.

use hiveops_testkit::broker::{NatsOptions, Tls};
use hiveops_testkit::proxy::{Direction, Fault, FaultProxy};

use super::*;
use crate::bus::Expect;
use crate::bus::conformance::{
    Reader, occurrence, publish, publish_all, removal, seen_now, typed_update, update, wait_for, with_key,
};

const LOG: &str = "hiveops_test_agents";

/// Copies a directory; a server that is down does not change it meanwhile.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_killed_server_and_the_log_goes_on() {
    let mut server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let mut reader = Reader::open(&bus).await;
    for round in 0..5_usize {
        publish_at_last(&bus, with_key(&format!("a{round}"), update(0, "a", round))).await;
        publish_at_last(&bus, with_key(&format!("e{round}"), occurrence(0, round))).await;
        server.kill().unwrap();
        server.restart().unwrap();
    }
    let last = publish_at_last(&bus, occurrence(0, 9)).await;
    let log = reader.until(0, last.seq).await;
    assert_eq!((last.seq, log.resets), (11, 1), "the same epoch all along");
    assert_eq!(log.live, (1..=11).collect::<Vec<u64>>());
    assert!(bus.inner.counts.reconnects.load(Ordering::Relaxed) >= 5);
}

#[tokio::test]
async fn a_publication_during_an_outage_is_refused_in_time_and_never_stored() {
    let mut server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    publish(&bus, update(0, "a", 1)).await;
    server.kill().unwrap();
    let refused = bus.publish(update(0, "a", 2)).await;
    assert!(matches!(refused, Err(PublishError::Unavailable(_))), "{refused:?}");
    server.restart().unwrap();
    let back = publish_at_last(&bus, update(0, "b", 3)).await;
    assert_eq!(back.seq, 2, "what was refused is not in the log");
}

#[tokio::test]
async fn a_stream_that_was_made_anew_is_a_new_epoch() {
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let mut reader = Reader::open(&bus).await;
    publish(&bus, update(0, "a", 1)).await;
    let before = reader.until(0, 1).await.epoch.clone();
    let operator = outsider(&server.url()).await;
    operator.delete_stream(LOG).await.unwrap();
    operator.create_stream(streams::log(&bus.inner.names, &names()[0], 1)).await.unwrap();
    bus.probe(1).await.unwrap();
    while reader.log(0).resets < 2 {
        reader.step().await.unwrap();
    }
    assert_ne!(reader.log(0).epoch, before);
    assert!(reader.log(0).values.is_empty());
    let ack = publish_at_last(&bus, update(0, "a", 2)).await;
    assert_eq!((ack.seq, &ack.epoch), (1, &reader.log(0).epoch));
}

#[tokio::test]
async fn a_log_that_lost_its_tail_begins_one_new_epoch_for_all_nodes() {
    let mut server = NatsServer::start().unwrap();
    let (one, _stop_one) = open(&server.url()).await;
    publish(&one, update(0, "a", 1)).await;
    // A disk that comes back as it was a while ago.
    server.kill().unwrap();
    let (store, kept) = (server.place().join("store"), server.place().join("kept"));
    copy(&store, &kept);
    server.restart().unwrap();
    let (two, _stop_two) = open(&server.url()).await;
    let (mut first, mut second) = (Reader::open(&one).await, Reader::open(&two).await);
    for n in 2..=5 {
        publish_at_last(&one, update(0, "a", n)).await;
    }
    first.until(0, 5).await;
    let before = second.until(0, 5).await.epoch.clone();
    server.kill().unwrap();
    std::fs::remove_dir_all(&store).unwrap();
    copy(&kept, &store);
    server.restart().unwrap();
    for reader in [&mut first, &mut second] {
        while reader.log(0).resets < 2 {
            reader.step().await.unwrap();
        }
    }
    let (first, second) = (first.log(0), second.log(0));
    assert_ne!(first.epoch, before);
    assert_eq!((&first.epoch, first.head, &first.values), (&second.epoch, 1, &second.values));
    // Who comes later sees the same life.
    let (three, _stop) = open(&server.url()).await;
    assert_eq!(seen_now(&three, 0).await.epoch, first.epoch);
}

#[tokio::test]
async fn a_stream_with_other_settings_is_an_error_that_names_them() {
    let server = NatsServer::start().unwrap();
    let operator = outsider(&server.url()).await;
    let names = Names::new("test");
    let mut config = streams::log(&names, &crate::bus::conformance::names()[0], 1);
    config.max_messages_per_subject = 3;
    operator.create_stream(config).await.unwrap();
    let error = open_with(settings(&server.url()), PATIENCE).await.err().unwrap().to_string();
    assert!(error.contains(LOG) && error.contains("max_msgs_per_subject is 3, not 8"), "{error}");
    assert!(error.contains("HIVEOPS_NAMESPACE"), "it says what to do: {error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_waited_for_and_then_named() {
    let mut server = NatsServer::start().unwrap();
    server.kill().unwrap();
    let server_url = server.url();
    let error = open_with(settings(&server_url), Duration::from_millis(300)).await.err().unwrap();
    assert!(error.to_string().contains("HIVEOPS_BUS"), "{error}");
    let restarted = async {
        tokio::task::yield_now().await;
        server.restart().unwrap();
    };
    let wanted = settings(&server_url);
    let (opened, ()) = tokio::join!(open_with(wanted, PATIENCE), restarted);
    assert!(opened.is_ok());
}

#[tokio::test]
async fn credentials_that_do_not_fit_are_told_and_those_that_do_connect() {
    let user =
        NatsOptions { user: Some("node".to_owned()), password: "s3cret".to_owned(), ..Default::default() };
    let server = NatsServer::start_with(user).unwrap();
    let (bus, _stop) = open(&server.url()).await;
    publish(&bus, update(0, "a", 1)).await;
    let anonymous = format!("nats://{}", server.addr());
    let error = open_with(settings(&anonymous), Duration::from_millis(500)).await.err().unwrap().to_string();
    assert!(error.contains("authorization violation"), "{error}");
    assert!(!error.contains("s3cret"));
    let token = NatsOptions { token: Some("t0ken".to_owned()), ..Default::default() };
    let server = NatsServer::start_with(token).unwrap();
    let (bus, _stop) = open(&server.url()).await;
    publish(&bus, update(0, "a", 1)).await;
}

#[tokio::test]
async fn a_server_with_tls_is_trusted_by_its_authority_and_may_ask_for_a_certificate() {
    for tls in [Tls::Server, Tls::Mutual] {
        let server = NatsServer::start_with(NatsOptions { tls, ..Default::default() }).unwrap();
        let mut settings = settings(&server.url());
        let refused =
            open_with(self::settings(&server.url()), Duration::from_millis(500)).await.err().unwrap();
        assert!(refused.to_string().contains("HIVEOPS_BUS"), "nobody vouches for it: {refused}");
        settings.files.ca = server.ca_file();
        (settings.files.cert, settings.files.key) = server.client_files().unzip();
        let (bus, _stop) = open_with(settings, PATIENCE).await.unwrap();
        publish(&bus, update(0, "a", 1)).await;
    }
    let server = NatsServer::start().unwrap();
    let mut settings = settings(&server.url());
    settings.files.ca = Some("/nowhere/ca.pem".into());
    let error = open_with(settings, PATIENCE).await.err().unwrap().to_string();
    assert!(error.contains("/nowhere/ca.pem") && error.contains("HIVEOPS_BUS_CA"), "at once: {error}");
}

#[tokio::test]
async fn what_was_on_its_way_when_the_network_broke_overwrites_nothing_newer() {
    let server = NatsServer::start().unwrap();
    let proxy = FaultProxy::start(server.addr(), 1).unwrap();
    let (mut cut_off, _stop_one) = open(&format!("nats://{}", proxy.addr())).await;
    let (other, _stop_two) = open(&server.url()).await;
    publish(&other, update(0, "a", 1)).await;
    assert!(cut_off.inner.mirror.reached(SubId::from_index(0).unwrap(), 1, PATIENCE).await);
    proxy.set(Direction::Both, Fault::Blackhole);
    cut_off.set_deadline(Duration::from_millis(200));
    let lost = cut_off.publish(update(0, "a", 2)).await;
    assert_eq!(lost, Err(PublishError::Timeout));
    let newer = publish(&other, update(0, "a", 3)).await;
    proxy.heal();
    cut_off.set_deadline(CALL_TIMEOUT);
    // It goes through the same connection or a later one, so it comes after what was on its way.
    let after = publish_at_last(&cut_off, update(0, "b", 4)).await;
    let log = seen_now(&other, 0).await;
    assert_eq!((newer.seq, log.seqs()["a"]), (2, 2), "the newer value stands");
    assert_eq!(log.seqs()["b"], after.seq);
}

#[tokio::test]
async fn of_two_nodes_that_change_one_value_one_wins_and_without_a_condition_both_do() {
    let server = NatsServer::start().unwrap();
    let (one, _stop_one) = open(&server.url()).await;
    let (two, _stop_two) = open(&server.url()).await;
    let mut expect = Expect::Absent;
    for round in 0..20_usize {
        let change = |n| Publish { expect, ..update(0, "a", 2 * round + n) };
        let (first, second) = tokio::join!(one.publish(change(0)), two.publish(change(1)));
        let seq = match (first, second) {
            (Ok(won), Err(PublishError::WrongExpected { actual }))
            | (Err(PublishError::WrongExpected { actual }), Ok(won)) => {
                assert_eq!(actual, won.seq, "the loser learns who won");
                won.seq
            }
            other => panic!("exactly one wins, got {other:?}"),
        };
        expect = Expect::Seq(seq);
    }
    for round in 0..20_usize {
        let (first, second) =
            tokio::join!(one.publish(update(0, "a", round)), two.publish(update(0, "a", round)));
        assert_eq!(first.unwrap().seq + second.unwrap().seq, 2 * (20 + 2 * round as u64) + 3);
    }
}

#[tokio::test]
async fn a_live_message_that_got_lost_is_read_from_the_log() {
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let mut reader = Reader::open(&bus).await;
    publish(&bus, occurrence(0, 1)).await;
    reader.until(0, 1).await;
    // What the link would see if the server had dropped messages between this one and the last.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Subject", "hiveops.test.u.agents.some_event.~x");
    headers.insert("Nats-Sequence", "7");
    headers.insert("Nats-Time-Stamp", "2026-11-26T00:00:00Z");
    let outsider = async_nats::connect(server.url()).await.unwrap();
    let subject = "hiveops.test.l.agents.some_event.~x";
    outsider.publish_with_headers(subject, headers, "{}".into()).await.unwrap();
    outsider.flush().await.unwrap();
    let next = publish(&bus, occurrence(0, 2)).await;
    assert_eq!(reader.until(0, next.seq).await.live, [1, 2]);
    // The link may have read the log for another reason before it comes to the message.
    wait_for("the gap to be found", || bus.inner.counts.gaps.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn an_entry_that_no_node_wrote_has_a_place_and_nothing_else() {
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let mut reader = Reader::open(&bus).await;
    let outsider = outsider(&server.url()).await;
    let envelope = r#"{"subscription":"tasks","type":"some_event","correlation_id":"c","timestamp":"2026-11-26T00:00:00Z","data":{}}"#;
    for (subject, payload) in [
        ("hiveops.test.u.agents.some_event.~a", "not json"),
        ("hiveops.test.u.agents.some_event.~b", envelope),
        ("hiveops.test.u.agents.Bad", "{}"),
        ("hiveops.test.u.agents.some_event.%", "{}"),
    ] {
        outsider.publish(subject, payload.into()).await.unwrap().await.unwrap();
    }
    let ack = publish(&bus, update(0, "a", 1)).await;
    assert_eq!((ack.seq, reader.until(0, 5).await.live.clone()), (5, vec![5]));
    assert_eq!(bus.inner.counts.bad_entries.load(Ordering::Relaxed), 4);
    assert_eq!(seen_now(&bus, 0).await.seqs().into_iter().collect::<Vec<_>>(), [("a", 5)]);
}

#[tokio::test]
async fn a_removal_that_has_expired_on_the_server_does_not_hold_its_key() {
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    publish(&bus, update(0, "a", 1)).await;
    publish(&bus, removal(0, "a")).await;
    // What the time to live does, at once.
    let operator = outsider(&server.url()).await;
    operator.get_stream(LOG).await.unwrap().purge().await.unwrap();
    let ack = publish(&bus, Publish { expect: Expect::Absent, ..update(0, "a", 2) }).await;
    assert_eq!(ack.seq, 3);
}

#[tokio::test]
async fn a_log_whose_reading_is_cut_off_is_read_again_and_whole() {
    const KEYS: usize = 600;
    let server = NatsServer::start().unwrap();
    let (writer, _stop) = open(&server.url()).await;
    let filler = "x".repeat(2_000);
    let all = (0..KEYS).map(|n| {
        let key = format!("k{n}");
        typed_update(0, "some_update", &key, &format!(r#"{{"id":"{key}","filler":"{filler}"}}"#))
    });
    publish_all(&writer, all).await;
    let proxy = FaultProxy::start(server.addr(), 3).unwrap();
    // Slow enough that it is cut while it reads; it takes some of the batches, and then none.
    proxy.set(Direction::ToClient, Fault::Rate { bytes_per_second: 2_000_000 });
    let url = format!("nats://{}", proxy.addr());
    let cut = async {
        // Each time it begins anew, and has 1.2 MB before it.
        for resets in 0..2 {
            let before = proxy.counts().bytes_to_client;
            wait_for("a third of the log to pass", || proxy.counts().bytes_to_client > before + 400_000)
                .await;
            proxy.set(Direction::Both, Fault::Reset);
            wait_for("the connection to be cut", || proxy.counts().resets > resets).await;
            proxy.set(Direction::Both, Fault::Pass);
            proxy.set(Direction::ToClient, Fault::Rate { bytes_per_second: 2_000_000 });
        }
        proxy.heal();
    };
    let ((reader, _stop), ()) = tokio::join!(open(&url), cut);
    let (seen, whole) = (seen_now(&reader, 0).await, seen_now(&writer, 0).await);
    assert_eq!((seen.values.len(), seen.head), (KEYS, KEYS as u64));
    assert_eq!(seen, whole);
}

#[tokio::test]
async fn a_key_whose_removal_was_forgotten_for_others_can_be_set_again() {
    const KEYS: usize = KEPT_MAX + 50;
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let key = |n: usize| format!("k{n}");
    publish_all(&bus, (0..KEYS).map(|n| update(0, &key(n), n))).await;
    publish_all(&bus, (0..KEYS).map(|n| removal(0, &key(n)))).await;
    let again = publish(&bus, Publish { expect: Expect::Absent, ..update(0, "k0", 7) }).await;
    assert_eq!(again.seq, 2 * KEYS as u64 + 1);
}

#[tokio::test]
async fn a_key_that_a_stranger_wrote_to_can_be_set() {
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let subject = bus.inner.names.value(&names()[0], update(0, "a", 1).key.as_ref().unwrap());
    outsider(&server.url()).await.publish(subject, "not json".into()).await.unwrap().await.unwrap();
    assert_eq!(publish(&bus, update(0, "a", 1)).await.seq, 2);
}

#[tokio::test]
async fn after_a_new_epoch_nobody_waits_for_places_of_the_old_one() {
    let server = NatsServer::start().unwrap();
    let (bus, _stop) = open(&server.url()).await;
    let mut reader = Reader::open(&bus).await;
    publish_all(&bus, (0..50).map(|n| occurrence(0, n))).await;
    let operator = outsider(&server.url()).await;
    operator.delete_stream(LOG).await.unwrap();
    operator.create_stream(streams::log(&bus.inner.names, &names()[0], 1)).await.unwrap();
    bus.probe(1).await.unwrap();
    while reader.log(0).resets < 2 {
        reader.step().await.unwrap();
    }
    let resyncs = || bus.inner.counts.resyncs.load(Ordering::Relaxed);
    let before = resyncs();
    for n in 1..=5 {
        assert_eq!(publish(&bus, update(0, "a", n)).await.seq, n as u64);
    }
    assert_eq!(resyncs(), before, "none had to be looked for");
}
