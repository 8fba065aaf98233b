//! What a server sends unasked, between the connection and the link that takes it. It has a bound; beyond
//! it nothing more is taken, because what comes after a hole helps nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

/// Messages that may wait. A poll of the connection reads about 1 MiB before the link is asked again.
const MESSAGES_MAX: usize = 16_384;

/// Bytes that may wait.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Something that came.
#[derive(Debug, PartialEq)]
pub(super) enum Push {
    Message {
        channel: Vec<u8>,
        payload: Vec<u8>,
    },
    /// The server does not send on this channel any more: it is not its own now.
    Unsubscribed,
}

/// The end that the connection fills.
pub(super) struct Sender {
    /// None once there was too much.
    queue: Mutex<Option<mpsc::Sender<Push>>>,
    bytes: Arc<AtomicUsize>,
}

/// The end that the link empties.
pub(super) struct Inbox {
    queue: mpsc::Receiver<Push>,
    bytes: Arc<AtomicUsize>,
}

pub(super) fn inbox() -> (Sender, Inbox) {
    let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Sender { queue: Mutex::new(Some(sender)), bytes: Arc::clone(&bytes) }, Inbox { queue: receiver, bytes })
}

impl Sender {
    /// Takes what came; called by the connection, so it does not wait.
    pub(super) fn take(&self, info: PushInfo) {
        let Some(push) = push(info) else { return };
        let size = push.size();
        let waiting = self.bytes.fetch_add(size, Ordering::Relaxed) + size;
        let mut queue = self.queue.lock();
        let fits = waiting <= BYTES_MAX && queue.as_ref().is_some_and(|queue| queue.try_send(push).is_ok());
        if !fits {
            queue.take();
        }
    }
}

impl Inbox {
    /// The next one; `None` once there was too much. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Push> {
        let push = self.queue.recv().await?;
        self.bytes.fetch_sub(push.size(), Ordering::Relaxed);
        Some(push)
    }
}

impl Push {
    fn size(&self) -> usize {
        match self {
            Self::Message { channel, payload } => channel.len() + payload.len(),
            Self::Unsubscribed => 0,
        }
    }
}

fn push(info: PushInfo) -> Option<Push> {
    let mut data = info.data.into_iter();
    match info.kind {
        PushKind::Message | PushKind::SMessage => message(data.next()?, data.next()?),
        // The pattern comes first.
        PushKind::PMessage => message(data.nth(1)?, data.next()?),
        PushKind::Unsubscribe | PushKind::SUnsubscribe | PushKind::PUnsubscribe => Some(Push::Unsubscribed),
        // What we asked for, and what we know from elsewhere.
        _ => None,
    }
}

fn message(channel: Value, payload: Value) -> Option<Push> {
    match (channel, payload) {
        (Value::BulkString(channel), Value::BulkString(payload)) => Some(Push::Message { channel, payload }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn said(kind: PushKind, parts: &[&str]) -> PushInfo {
        let data = parts.iter().map(|part| Value::BulkString(part.as_bytes().to_vec())).collect();
        PushInfo { kind, data }
    }

    #[test]
    fn messages_of_all_kinds_are_taken_in_order() {
        let (sender, mut inbox) = inbox();
        sender.take(said(PushKind::Subscribe, &["a", "1"]));
        sender.take(said(PushKind::Message, &["a", "1"]));
        sender.take(said(PushKind::PMessage, &["*", "a", "2"]));
        sender.take(said(PushKind::SUnsubscribe, &["a", "0"]));
        for payload in ["1", "2"] {
            let message = Push::Message { channel: b"a".to_vec(), payload: payload.as_bytes().to_vec() };
            assert_eq!(inbox.next().now_or_never(), Some(Some(message)));
        }
        assert_eq!(inbox.next().now_or_never(), Some(Some(Push::Unsubscribed)));
        assert_eq!(inbox.next().now_or_never(), None);
    }

    #[test]
    fn after_too_much_nothing_more_is_taken() {
        let (sender, mut inbox) = inbox();
        let big = "x".repeat(BYTES_MAX / 2);
        for _ in 0..2 {
            sender.take(said(PushKind::Message, &["a", &big]));
        }
        sender.take(said(PushKind::Message, &["a", "late"]));
        assert!(matches!(inbox.next().now_or_never(), Some(Some(Push::Message { .. }))));
        assert_eq!(inbox.next().now_or_never(), Some(None));

        let (sender, mut inbox) = super::inbox();
        for _ in 0..=MESSAGES_MAX {
            sender.take(said(PushKind::Message, &["a", ""]));
        }
        for _ in 0..MESSAGES_MAX {
            assert!(matches!(inbox.next().now_or_never(), Some(Some(Push::Message { .. }))));
        }
        assert_eq!(inbox.next().now_or_never(), Some(None));
    }
}
