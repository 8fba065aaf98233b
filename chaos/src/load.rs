//! Publishers: each publishes events and values over HTTP through the balancer, one after the other, and
//! does not let go of a publication before it knows what became of it.
//!
//! An attempt without an answer is repeated with the same `Idempotency-Key`, so that what was stored by the
//! first is not stored again by the second.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hiveops_proto::http::BroadcastReply;
use hiveops_proto::path::WS_BROADCAST;
use reqwest::{Client, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

use crate::history::{CHANNELS, Channel, KeyId, Life, Outcome, Place, Publication, Token};
use crate::sync::lock;

/// A node answers within its own deadline of 5 s; what takes longer has lost its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(7);

/// From the first attempt to giving up. A node knows a repeat for 120 s.
const GIVE_UP_AFTER: Duration = Duration::from_secs(100);

/// Between two attempts: the shortest, and how much longer.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_SPREAD_MS: u64 = 60;

/// Keys of each publisher and channel: few, so that values are overwritten within a second.
const KEYS: u64 = 5;

/// How much is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub publishers: u32,
    /// By all of them together.
    pub per_second: u32,
}

/// What the publishers know. Shared by them, the watchers and the scenario.
#[derive(Debug, Default)]
pub struct Ledger {
    publications: Mutex<Vec<Publication>>,
    acked: AtomicU64,
    duplicates: AtomicU64,
    failed_attempts: AtomicU64,
    /// The highest place that was acknowledged, by channel.
    heads: [Mutex<Option<Place>>; CHANNELS.len()],
}

impl Ledger {
    /// Publications that were acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::SeqCst)
    }

    /// Of those, known from an earlier attempt whose answer was lost.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::SeqCst)
    }

    /// Attempts that were not answered with 200.
    pub fn failed_attempts(&self) -> u64 {
        self.failed_attempts.load(Ordering::SeqCst)
    }

    /// The highest place that was acknowledged, by channel. In another life the last one counts.
    pub fn heads(&self) -> [Option<Place>; CHANNELS.len()] {
        [0, 1].map(|channel: usize| *lock(&self.heads[channel]))
    }

    /// Everything that is known, once the publishers have ended.
    pub fn take(&self) -> Vec<Publication> {
        std::mem::take(&mut lock(&self.publications))
    }

    /// Notes the end of a publication that somebody made.
    pub fn note(&self, publication: Publication) {
        if let Outcome::Acked(place) = publication.outcome {
            let mut head = lock(&self.heads[publication.channel]);
            if head.is_none_or(|head| head.life != place.life || head.seq < place.seq) {
                *head = Some(place);
            }
            drop(head);
            self.acked.fetch_add(1, Ordering::SeqCst);
        }
        lock(&self.publications).push(publication);
    }
}

/// One publisher, until it is told to stop; what it has begun it brings to its end.
pub(crate) struct Publisher {
    number: u32,
    url: String,
    ledger: Arc<Ledger>,
    http: Client,
}

/// A publication to be made.
struct Item {
    channel: usize,
    token: Token,
    key: Option<KeyId>,
}

impl Publisher {
    pub(crate) fn new(number: u32, url: &str, ledger: Arc<Ledger>) -> Result<Self> {
        Ok(Self { number, url: format!("{url}{WS_BROADCAST}"), ledger, http: http()? })
    }

    pub(crate) async fn run(mut self, every: Duration, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 1.. {
            // Both only wait.
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                _ = ticks.tick() => {}
            }
            let item = Item::new(self.number, n);
            let outcome = self.publish(&item).await?;
            let Item { channel, token, key } = item;
            self.ledger.note(Publication { channel, token, key, outcome });
        }
        Ok(())
    }

    async fn publish(&mut self, item: &Item) -> Result<Outcome> {
        let give_up = Instant::now() + GIVE_UP_AFTER;
        for attempt in 0_u64.. {
            let answered = timeout_at(give_up, self.attempt(item)).await;
            let Ok(answered) = answered else { break };
            if let Some(outcome) = answered {
                return Ok(outcome);
            }
            self.ledger.failed_attempts.fetch_add(1, Ordering::SeqCst);
            // Another connection may lead to another node.
            self.http = http()?;
            let spread = (item.token ^ attempt.wrapping_mul(7_919)) % PAUSE_SPREAD_MS;
            sleep(PAUSE + Duration::from_millis(spread)).await;
        }
        Ok(Outcome::Unknown)
    }

    /// None when it is to be tried again.
    async fn attempt(&self, item: &Item) -> Option<Outcome> {
        let Channel { subscription, .. } = CHANNELS[item.channel];
        let request = self.http.post(&self.url);
        let request = request.query(&[("subscription", subscription), ("message_type", item.message_type())]);
        let request = request.header("Idempotency-Key", format!("chaos-{:x}", item.token));
        let answer = request.json(&item.data()).send().await.ok()?;
        let status = answer.status();
        if status == StatusCode::OK {
            let reply: BroadcastReply = answer.json().await.ok()?;
            self.ledger.duplicates.fetch_add(u64::from(reply.duplicate), Ordering::SeqCst);
            let place = Place { life: life(reply.epoch.as_str()), seq: reply.seq };
            return Some(Outcome::Acked(place));
        }
        let comes_again = status.is_server_error()
            || status == StatusCode::REQUEST_TIMEOUT
            || status == StatusCode::TOO_MANY_REQUESTS;
        (!comes_again).then_some(Outcome::Refused(status.as_u16()))
    }
}

impl Item {
    /// Events and values by turns, on all channels by turns.
    fn new(publisher: u32, n: u64) -> Self {
        let turn = n + u64::from(publisher);
        let channel = usize::try_from(turn).unwrap_or_default() % CHANNELS.len();
        let key = u32::try_from(turn / 4 % KEYS).unwrap_or_default();
        let is_update = turn / 2 % 2 == 1;
        let token = u64::from(publisher + 1) << 32 | n;
        Self { channel, token, key: is_update.then_some(publisher << 8 | key) }
    }

    fn message_type(&self) -> &'static str {
        let Channel { event, update, .. } = CHANNELS[self.channel];
        if self.key.is_some() { update } else { event }
    }

    fn data(&self) -> serde_json::Value {
        let pad = "x".repeat(100);
        match self.key {
            Some(key) => serde_json::json!({"id": key_name(key), "token": self.token, "pad": pad}),
            None => serde_json::json!({"token": self.token, "pad": pad}),
        }
    }
}

/// A key as it stands in `data`.
fn key_name(key: KeyId) -> String {
    format!("chaos-{key:x}")
}

/// The key that has this name, when it is one of ours.
pub(crate) fn key_of(name: &str) -> Option<KeyId> {
    KeyId::from_str_radix(name.strip_prefix("chaos-")?, 16).ok()
}

/// Epochs are hexadecimal numbers; another text would be a life of its own.
pub(crate) fn life(epoch: &str) -> Life {
    let other = || epoch.bytes().fold(1, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Life(u64::from_str_radix(epoch, 16).unwrap_or_else(|_| other()))
}

fn http() -> Result<Client> {
    let client = Client::builder().no_proxy().tcp_nodelay(true).timeout(ANSWER_TIMEOUT);
    client.build().context("cannot make an HTTP client")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_has_events_and_values_on_both_channels_and_its_own_keys() {
        let items: Vec<Item> = (1..=40).map(|n| Item::new(3, n)).collect();
        for channel in 0..CHANNELS.len() {
            let of_channel = || items.iter().filter(|item| item.channel == channel);
            assert_eq!(of_channel().filter(|item| item.key.is_none()).count(), 10);
            let mut keys: Vec<KeyId> = of_channel().filter_map(|item| item.key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys, [0x300, 0x301, 0x302, 0x303, 0x304]);
        }
        let other = Item::new(2, 1);
        assert!(items.iter().all(|item| item.token != other.token && item.key != Some(0x200)));
        assert!(items.is_sorted_by_key(|item| item.token));
        assert_eq!(key_of(&key_name(0x304)), Some(0x304));
        assert_eq!(key_of("t1"), None);
    }

    #[test]
    fn the_head_is_the_highest_place_and_the_last_life() {
        let ledger = Ledger::default();
        let place = |life, seq| Place { life: Life(life), seq };
        for place in [place(1, 5), place(1, 4), place(2, 1)] {
            ledger.note(Publication { channel: 1, token: 1, key: None, outcome: Outcome::Acked(place) });
        }
        ledger.note(Publication { channel: 0, token: 2, key: None, outcome: Outcome::Unknown });
        assert_eq!((ledger.heads(), ledger.acked()), ([None, Some(place(2, 1))], 3));
        assert_eq!(ledger.take().len(), 4);
    }
}
