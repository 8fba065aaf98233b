//! The client against a scripted node: what it says, when it comes back, when it stays away.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use hiveops_client::{Client, ConnectError, Event, SendError, Stop};
use hiveops_proto::frame::{ClientFrame, Subscribe};
use hiveops_proto::{ConnectionId, ServerFrame};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::node::{Node, next, replayed, said, snapshot, update};

/// Passes `time` without waiting for it. The clock stands still only meanwhile: while sockets are waited
/// for, a clock that jumps ahead would run every timeout.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Polls once, as a caller does who then waits for something else.
async fn glance<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|context| match Pin::new(&mut *future).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn seq(client: &mut Client) -> u64 {
    match next(client).await {
        Event::Frame(ServerFrame::Publication(frame)) => frame.seq,
        other => panic!("{other:?} is no publication"),
    }
}

async fn disconnected(client: &mut Client) -> (Option<u16>, String, Option<Duration>) {
    match next(client).await {
        Event::Disconnected { code, reason, retry_in } => (code, reason, retry_in),
        other => panic!("{other:?} is no disconnect"),
    }
}

#[tokio::test]
async fn a_gap_is_asked_for_and_mended_before_anything_else_is_delivered() {
    let node = Node::start().await;
    let (mut client, mut peer) = node.live(node.options()).await;
    peer.send(update(6)).await;
    assert_eq!(seq(&mut client).await, 6);
    peer.send(update(9)).await;
    let gap = next(&mut client).await;
    assert!(matches!(gap, Event::Gap { from: 7, to: 8, .. }), "{gap:?}");

    let asked = said(&mut client, &mut peer).await;
    let since = json!({"tasks": {"epoch": "e1", "seq": 6}});
    assert_eq!(asked, json!({"type": "subscribe", "subscriptions": ["tasks"], "since": since}));
    peer.send(update(10)).await;
    peer.send(json!({
        "type": "subscription_updated", "subscriptions": ["tasks"], "recovered": {"tasks": true},
        "positions": {"tasks": {"epoch": "e1", "seq": 10}},
    }))
    .await;
    for seq in 7..=10 {
        peer.send(replayed(seq)).await;
    }
    assert!(matches!(next(&mut client).await, Event::Frame(ServerFrame::SubscriptionUpdated(_))));
    for expected in 7..=10 {
        assert_eq!(seq(&mut client).await, expected);
    }
    let state = client.state("tasks").unwrap();
    assert_eq!(state.get("task_update", "t1").unwrap().seq, 10);
    assert_eq!((client.counts().gaps, client.counts().withheld, client.counts().delivered), (1, 1, 5));
}

#[tokio::test]
async fn a_reconnect_goes_on_where_the_connection_broke() {
    let node = Node::start().await;
    let mut options = node.options();
    options.subscriptions = vec!["tasks".to_owned()];
    let (mut client, mut peer) = node.live(options).await;
    assert_eq!(
        (peer.path.as_str(), peer.query.as_str()),
        ("/api/dashboard/ws/dashboard", "subscriptions=tasks")
    );
    peer.send(update(6)).await;
    assert_eq!(seq(&mut client).await, 6);
    let subscribe = Subscribe { subscriptions: vec!["alerts".to_owned()], ..Subscribe::default() };
    client.send(&ClientFrame::Subscribe(subscribe)).unwrap();
    assert_eq!(said(&mut client, &mut peer).await["subscriptions"], json!(["alerts"]));

    drop(peer);
    let (code, _, retry_in) = disconnected(&mut client).await;
    assert_eq!(code, None);
    assert!(retry_in.unwrap() < Duration::from_millis(500));
    assert!(matches!(client.send(&ClientFrame::Ping(Default::default())), Err(SendError::NotConnected)));

    let again = async {
        let mut peer = node.accept().await;
        peer.begin(7, true).await;
        peer.send(replayed(7)).await;
        peer
    };
    let (event, peer) = tokio::join!(next(&mut client), again);
    assert!(matches!(event, Event::Connected { .. }), "{event:?}");
    assert_eq!(peer.query, "subscriptions=alerts,tasks&since=tasks:e1:6");
    assert!(matches!(next(&mut client).await, Event::Frame(ServerFrame::DashboardInitialized(_))));
    assert_eq!(seq(&mut client).await, 7);
    assert_eq!(client.counts().connected, 2);
}

#[tokio::test]
async fn the_hint_of_a_draining_node_is_kept_to() {
    let node = Node::start().await;
    let (mut client, mut peer) = node.live(node.options()).await;
    peer.send(json!({
        "type": "disconnect_notice", "reason": "draining", "code": 1012, "retry_after_ms": 90_000,
    }))
    .await;
    peer.close(1012, "draining").await;
    assert!(matches!(next(&mut client).await, Event::Frame(ServerFrame::DisconnectNotice(_))));
    let hint = Duration::from_secs(90);
    assert_eq!(disconnected(&mut client).await, (Some(1012), "draining".to_owned(), Some(hint)));

    pass(hint - Duration::from_secs(1)).await;
    let mut accepted = Box::pin(node.accept());
    assert!(glance(&mut Box::pin(client.next())).await.is_none());
    assert!(glance(&mut accepted).await.is_none());
    pass(Duration::from_secs(1)).await;
    let again = async {
        let mut peer = accepted.await;
        peer.begin(5, true).await;
        peer
    };
    let (event, _peer) = tokio::join!(next(&mut client), again);
    assert!(matches!(event, Event::Connected { .. }), "{event:?}");
}

#[tokio::test]
async fn a_client_that_may_not_connect_stays_away() {
    let node = Node::start().await;
    let (client, peer) = tokio::join!(Client::connect(node.options()), node.accept());
    let mut client = client.unwrap();
    peer.close(4403, "origin_denied").await;
    assert_eq!(disconnected(&mut client).await, (Some(4403), "origin_denied".to_owned(), None));
    assert_eq!(client.next().await, None);
    assert_eq!(client.stopped(), Some(Stop::Forbidden));
}

#[tokio::test]
async fn the_token_is_sent_and_a_new_one_makes_a_refused_client_go_on() {
    let node = Node::start().await;
    let mut options = node.options();
    options.token = Some("old".to_owned());
    options.connection_id = Some(ConnectionId::new("me").unwrap());
    let (client, peer) = tokio::join!(Client::connect(options), node.accept());
    let mut client = client.unwrap();
    assert_eq!(peer.authorization.as_deref(), Some("Bearer old"));
    assert_eq!(peer.query, "connection_id=me");
    peer.close(4401, "token_expired").await;
    assert_eq!(disconnected(&mut client).await.2, None);
    assert_eq!((client.next().await, client.stopped()), (None, Some(Stop::Credential)));

    client.set_token(Some("new".to_owned()));
    let again = async {
        let mut peer = node.accept().await;
        peer.begin(0, false).await;
        peer
    };
    let (event, peer) = tokio::join!(next(&mut client), again);
    assert!(matches!(event, Event::Connected { .. }), "{event:?}");
    assert_eq!(peer.authorization.as_deref(), Some("Bearer new"));
}

#[tokio::test]
async fn what_the_client_does_not_know_is_told_and_harms_nothing() {
    let node = Node::start().await;
    let (mut client, mut peer) = node.live(node.options()).await;
    let bad = [
        r#"{"type":"confetti","amount":3}"#,
        r#"{"type":"task_update","subscription":"tasks"}"#,
        r#"{"type":7}"#,
        "[]",
        "{",
        "",
    ];
    for text in bad {
        peer.send_raw(Message::text(text)).await;
    }
    peer.send_raw(Message::binary(vec![0, 159])).await;
    peer.send_raw(Message::Ping(Vec::new().into())).await;
    peer.send(update(6)).await;
    let mut types = Vec::new();
    for _ in 0..=bad.len() {
        match next(&mut client).await {
            Event::Unknown { frame_type, .. } => types.push(frame_type),
            other => panic!("{other:?} is not unknown"),
        }
    }
    let known = [Some("confetti".to_owned()), Some("task_update".to_owned())];
    assert_eq!((&types[..2], types[2..].iter().flatten().count()), (&known[..], 0));
    assert_eq!(seq(&mut client).await, 6);
    assert_eq!(client.counts().unknown, 7);
}

#[tokio::test]
async fn a_question_without_an_answer_is_asked_again() {
    let node = Node::start().await;
    let (mut client, mut peer) = node.live(node.options()).await;
    peer.send(update(9)).await;
    assert!(matches!(next(&mut client).await, Event::Gap { .. }));
    let first = said(&mut client, &mut peer).await;
    pass(Duration::from_secs(5)).await;
    assert_eq!(said(&mut client, &mut peer).await, first);
}

#[tokio::test]
async fn a_listener_pings_before_the_idle_limit_and_keeps_the_pong_to_itself() {
    let node = Node::start().await;
    let (mut client, mut peer) = node.live(node.options()).await;
    pass(Duration::from_secs(30)).await;
    let ping = said(&mut client, &mut peer).await;
    assert_eq!(ping, json!({"type": "ping", "correlation_id": "keepalive"}));
    let positions = json!({"tasks": {"epoch": "e1", "seq": 5}});
    peer.send(json!({"type": "pong", "correlation_id": "keepalive", "positions": positions, "live": true}))
        .await;
    peer.send(update(6)).await;
    assert_eq!(seq(&mut client).await, 6);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_given_up() {
    let node = Node::start().await;
    let (mut client, _peer) = node.live(node.options()).await;
    pass(Duration::from_secs(60)).await;
    let (code, reason, retry_in) = disconnected(&mut client).await;
    assert_eq!((code, reason.as_str()), (None, "nothing came for 60s"));
    assert!(retry_in.is_some());
}

#[tokio::test]
async fn a_refused_handshake_is_an_error_or_a_wait() {
    let node = Node::start().await;
    let not_found = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let (client, ()) = tokio::join!(Client::connect(node.options()), node.refuse(not_found));
    assert!(matches!(client.err(), Some(ConnectError::Refused { status: 404, .. })));

    let mut client = Client::new(node.options()).unwrap();
    let busy = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 77\r\ncontent-length: 0\r\n\r\n";
    let (ended, ()) = tokio::join!(disconnected(&mut client), node.refuse(busy));
    assert_eq!(ended.2, Some(Duration::from_secs(77)));
    pass(Duration::from_secs(77)).await;
    let (ended, ()) = tokio::join!(disconnected(&mut client), node.refuse(not_found));
    assert_eq!((ended.2, client.stopped()), (None, Some(Stop::Refused)));
}

#[tokio::test]
async fn a_client_that_may_not_reconnect_ends_with_its_connection() {
    let node = Node::start().await;
    let mut options = node.options();
    options.reconnect = false;
    let (mut client, peer) = node.live(options).await;
    drop(peer);
    assert_eq!(disconnected(&mut client).await.2, None);
    assert_eq!((client.next().await, client.stopped()), (None, Some(Stop::Options)));
}

#[tokio::test]
async fn closing_says_goodbye() {
    let node = Node::start().await;
    let (mut client, mut peer) = node.live(node.options()).await;
    let heard = async {
        let heard = peer.receive().await;
        drop(peer);
        heard
    };
    assert_eq!(tokio::join!(client.close(), heard), ((), None));
    assert_eq!((client.next().await, client.stopped()), (None, Some(Stop::Normal)));
}

#[tokio::test]
async fn a_wait_that_was_cancelled_loses_nothing() {
    let node = Node::start().await;
    let (mut client, mut peer) = node.live(node.options()).await;
    for number in 6..40 {
        peer.send(update(number)).await;
        let mut last = None;
        while last.is_none() {
            // Each glance is a wait of its own that is given up at once.
            last = glance(&mut Box::pin(client.next())).await.flatten();
            tokio::task::yield_now().await;
        }
        let Some(Event::Frame(ServerFrame::Publication(frame))) = last else { panic!("no publication") };
        assert_eq!(frame.seq, number);
    }
    peer.send(snapshot(50)).await;
    assert!(matches!(next(&mut client).await, Event::Snapshot { .. }));
}
