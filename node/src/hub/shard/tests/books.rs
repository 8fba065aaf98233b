//! The books of a shard: even at every moment, whatever becomes of publications, and not when one is lost.

use super::*;
use crate::hub::books::{Account, Books, Dropped};

impl Bench {
    async fn books(&self) -> Books {
        self.shard.mailbox.audit().await.unwrap();
        self.shard.gauges.books()
    }

    /// Waits until the account of `source` is as wanted; it must be even meanwhile.
    async fn account(&self, source: &Source, what: &str, reached: impl Fn(&Account) -> bool) -> Account {
        let begun = Instant::now();
        loop {
            let account = *self.books().await.account(source.sub);
            assert_eq!(account.residual(), 0, "{what}: {account:?}");
            if reached(&account) {
                return account;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {account:?}");
        }
    }
}

/// Has the peer's kernel end the connection at once.
fn reset(peer: Peer) {
    socket2::SockRef::from(&peer.socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Ends the shard and returns its last books.
async fn last_books(bench: Bench) -> Books {
    let gauges = Arc::clone(&bench.shard.gauges);
    bench.stop().await;
    gauges.books()
}

async fn what_sockets_take_is_delivered_to_everybody_who_was_due(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut peers = Vec::new();
    for id in ["a", "b", "c"] {
        peers.push(bench.joined(id, &["tasks", "agents"]).await);
    }
    for seq in 1..=10 {
        bench.publish(tasks.event(seq, 0)).await;
    }
    for peer in &mut peers {
        (1..=10).for_each(|_| drop(peer.read().text("task_event")));
    }
    let account = bench.account(&tasks, "all are delivered", |account| account.delivered == 30).await;
    assert_eq!((account.recipients, account.caught_up, account.pending), (30, 0, 0));
    bench.stop().await;
}

async fn a_frame_that_went_before_the_cut_did_not_wait(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut peer = bench.joined("a", &["tasks"]).await;
    // Both in one batch, and the second is more than a kernel takes for a peer that does not read.
    by_standing_still(&bench, &mut peer, async {
        bench.publish(tasks.event(1, 0)).await;
        bench.publish(tasks.event(2, 1 << 20)).await;
    })
    .await;
    bench.account(&tasks, "the second waits", |account| (account.delivered, account.pending) == (1, 1)).await;
    peer.read().text("data_response");
    (1..=2).for_each(|_| drop(peer.read().text("task_event")));
    bench.account(&tasks, "both are delivered", |account| account.delivered == 2).await;
    let delivered_at_once = bench.shared.metrics.delivery_buckets().last().map(|(_, count)| *count);
    assert_eq!(delivered_at_once, Some(1));
    bench.stop().await;
}

async fn the_books_are_even_whatever_becomes_of_publications(io_uring: bool) {
    let limits = Limits { outbox_frames_max: 8, ..Limits::default() };
    let (bench, tasks) = (Bench::start(io_uring, limits), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut quick = bench.joined("quick", &["tasks"]).await;
    let slow = bench.joined("slow", &["tasks"]).await;
    let mut leaver = bench.joined("leaver", &["tasks"]).await;
    let goner = bench.joined("goner", &["tasks"]).await;
    let broken = bench.joined("broken", &["tasks"]).await;
    for seq in 1..=40 {
        bench.publish(tasks.update(seq, if seq % 2 == 0 { "a" } else { "b" }, 20_000)).await;
        quick.read().text("task_update");
    }
    let account = bench.account(&tasks, "values take places", |account| account.coalesced > 0).await;
    assert_eq!(account.recipients, 5 * 40);
    assert!(account.pending >= 8 && account.delivered >= 40, "{account:?}");

    // What came before the last look at a socket may be settled, and is sent in any case.
    by_standing_still(&bench, &mut quick, async {
        leaver.send(&json!({"type": "unsubscribe", "subscriptions": ["tasks"]}));
        bench.publish(tasks.update(41, "a", 20_000)).await;
    })
    .await;
    quick.read().text("data_response");
    quick.read().text("task_update");
    bench.account(&tasks, "a session leaves", |account| account.dropped(Dropped::Left) > 0).await;
    drop(goner);
    bench.account(&tasks, "a connection ends", |account| account.dropped(Dropped::Closed) > 0).await;

    // One that takes everything, until it breaks while it is written to.
    let victim = bench.joined("victim", &["tasks"]).await;
    by_standing_still(&bench, &mut quick, async {
        reset(victim);
        bench.publish(tasks.event(42, 0)).await;
    })
    .await;
    quick.read().text("data_response");
    quick.read().text("task_event");
    bench.account(&tasks, "a socket breaks", |account| account.dropped(Dropped::Broken) == 1).await;

    reset(broken);
    for seq in 43..=200 {
        bench.publish(tasks.event(seq, 20_000)).await;
        quick.read().text("task_event");
    }
    let account = bench
        .account(&tasks, "the slow one is closed", |account| account.dropped(Dropped::Backpressure) > 0)
        .await;
    assert!(account.dropped(Dropped::Refused) >= 5, "{account:?}");

    // Somebody else is slow when the log begins anew, and one is left at the end.
    let late = bench.joined("late", &["tasks"]).await;
    for seq in 201..=206 {
        bench.publish(tasks.event(seq, 20_000)).await;
        quick.read().text("task_event");
    }
    let anew = Source::in_epoch("tasks", 8);
    by_standing_still(&bench, &mut quick, async {
        bench.publish(tasks.event(207, 20_000)).await;
        bench.reset(&anew, 0, &[]).await;
    })
    .await;
    quick.read().text("data_response");
    quick.read().text("task_event");
    bench.account(&tasks, "the log begins anew", |account| account.dropped(Dropped::Reset) > 0).await;
    quick.read().text("snapshot");
    for seq in 1..=6 {
        bench.publish(anew.event(seq, 20_000)).await;
        quick.read().text("task_event");
    }
    bench.account(&tasks, "frames wait again", |account| account.pending > 0).await;
    let books = last_books(bench).await;
    let account = books.account(tasks.sub);
    assert_eq!((account.residual(), account.pending), (0, 0), "{account:?}");
    drop((slow, late, leaver));
}

async fn what_the_log_feeds_in_is_due_when_it_is_fed(io_uring: bool) {
    let limits =
        Limits { outbox_frames_max: 8, backpressure_disconnect_threshold: 1_000, ..Limits::default() };
    let (bench, tasks) = (Bench::start(io_uring, limits), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let mut slow = bench.joined("slow", &["tasks"]).await;
    for seq in 1..=60 {
        // Values, which the log keeps; the occurrences of these tests are old.
        bench.publish(tasks.update(seq, &format!("k{seq}"), 20_000)).await;
    }
    let before = bench.account(&tasks, "some are refused", |account| account.recipients == 60).await;
    assert!(before.dropped(Dropped::Refused) > 0 && before.caught_up == 0, "{before:?}");
    for seq in 1..=60 {
        assert_eq!(slow.read().text("task_update")["seq"], seq);
    }
    let after = bench.account(&tasks, "it has caught up", |account| account.delivered == 60).await;
    assert_eq!(after.caught_up, before.dropped(Dropped::Refused), "what was refused came later");
    assert_eq!((after.recipients, after.pending), (60 + after.caught_up, 0));
    bench.stop().await;
}

async fn a_frame_that_is_lost_shows_and_stays(io_uring: bool) {
    let (bench, tasks) = (Bench::start(io_uring, Limits::default()), Source::new("tasks"));
    bench.reset(&tasks, 0, &[]).await;
    let slow = bench.joined("slow", &["tasks"]).await;
    for seq in 1..=40 {
        bench.publish(tasks.event(seq, 20_000)).await;
    }
    bench.account(&tasks, "frames wait", |account| account.recipients == 40 && account.pending > 2).await;
    let (reply, lost) = oneshot::channel();
    bench.tell(Command::Lose(reply)).await;
    assert!(lost.await.unwrap(), "there is one to lose");
    assert_eq!(bench.books().await.account(tasks.sub).residual(), 1);
    assert_eq!(last_books(bench).await.account(tasks.sub).residual(), 1);
    drop(slow);
}

on_both! {
    a_frame_that_went_before_the_cut_did_not_wait
    what_sockets_take_is_delivered_to_everybody_who_was_due
    the_books_are_even_whatever_becomes_of_publications
    what_the_log_feeds_in_is_due_when_it_is_fed
    a_frame_that_is_lost_shows_and_stays
}
