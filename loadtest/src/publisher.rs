//! The publisher: one thread, one keep-alive connection, one publication after the other at a fixed rate
//! through the broadcast route. It stamps each with the clock just before it writes the request.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hiveops_proto::http::BroadcastReply;
use hiveops_proto::{MessageType, SubscriptionName, path};

use crate::clock::Clock;
use crate::http::Client;
use crate::marker::{Marker, key_name};

/// Different refusals that are kept apart in the report.
const REFUSALS_MAX: usize = 8;

/// What is published, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) run: u64,
    pub(crate) subscription: SubscriptionName,
    pub(crate) message_type: MessageType,
    /// Publications per second.
    pub(crate) rate: u32,
    pub(crate) duration: Duration,
    /// Bytes of `data`.
    pub(crate) size: usize,
    /// Different keys, in turn; 0 leaves the key out.
    pub(crate) keys: u32,
}

impl Plan {
    /// How many publications the whole run has.
    pub(crate) fn publications(&self) -> u32 {
        let exact = self.duration.as_secs_f64() * f64::from(self.rate);
        // The conversion saturates; a fraction of a publication is a publication.
        exact.ceil() as u32
    }

    fn key(&self, seq: u32) -> Option<u32> {
        seq.checked_rem(self.keys)
    }

    fn path(&self) -> String {
        let Self { subscription, message_type, .. } = self;
        format!("{}?subscription={subscription}&message_type={message_type}", path::WS_BROADCAST)
    }
}

/// What became of the plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    /// Whether each publication was acknowledged, in order.
    pub(crate) acknowledged: Vec<bool>,
    /// Why publications were not acknowledged, and how many.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Publications that began more than one interval after they were due.
    pub(crate) late: u64,
}

impl Published {
    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.iter().filter(|acknowledged| **acknowledged).count() as u64
    }

    fn refused(&mut self, why: String) {
        let full = self.refusals.len() >= REFUSALS_MAX && !self.refusals.contains_key(&why);
        *self.refusals.entry(if full { "other reasons".to_owned() } else { why }).or_default() += 1;
    }
}

/// The running publisher. Dropping it stops it after the publication that it is at.
pub(crate) struct Publisher {
    thread: JoinHandle<Published>,
    /// Never written to: its end is the signal to stop.
    _stop: SyncSender<()>,
}

impl Publisher {
    /// Starts at once with a connection that is already there.
    pub(crate) fn start(plan: Plan, mut client: Client, clock: Clock) -> anyhow::Result<Self> {
        client.connect()?;
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || run(&plan, &mut client, clock, &stopped))
            .context("cannot start the publisher's thread")?;
        Ok(Self { thread, _stop: stop })
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end and says what came of it.
    pub(crate) fn finish(self) -> anyhow::Result<Published> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the publisher's thread panicked"))
    }
}

fn run(plan: &Plan, client: &mut Client, clock: Clock, stopped: &Receiver<()>) -> Published {
    let mut published = Published::default();
    let path = plan.path();
    let began = Instant::now();
    let interval = Duration::from_secs(1) / plan.rate;
    for seq in 0..plan.publications() {
        let due = Duration::from_secs_f64(f64::from(seq) / f64::from(plan.rate));
        if let Some(early) = due.checked_sub(began.elapsed())
            && stopped.recv_timeout(early) != Err(RecvTimeoutError::Timeout)
        {
            break;
        }
        // A server that is slower than the rate makes a run of fewer publications, not a longer one.
        if began.elapsed() >= plan.duration {
            break;
        }
        published.late += u64::from(began.elapsed() > due + interval);
        let marker = Marker { run: plan.run, seq, nanos: clock.nanos() };
        let outcome = publish(client, &path, &marker.data(plan.key(seq), plan.size));
        published.acknowledged.push(outcome.is_ok());
        if let Err(error) = outcome {
            published.refused(format!("{error:#}"));
        }
    }
    published
}

fn publish(client: &mut Client, path: &str, data: &str) -> anyhow::Result<()> {
    let answer = client.post(path, data)?;
    if answer.status != 200 {
        anyhow::bail!("HTTP {}: {}", answer.status, explain(&answer.body));
    }
    let reply: BroadcastReply =
        serde_json::from_slice(&answer.body).context("the answer is not one of the contract")?;
    // Every publication of a run is different, so that the server must not take it for an earlier one.
    anyhow::ensure!(!reply.duplicate, "the server took the publication for a duplicate");
    Ok(())
}

/// What a problem document says, without what differs from request to request.
fn explain(body: &[u8]) -> String {
    let problem: Option<hiveops_proto::http::Problem> = serde_json::from_slice(body).ok();
    match problem {
        Some(problem) => problem.detail.unwrap_or(problem.title),
        None => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

/// Removes the values that a run left under its keys, so that the server's state is as it was. Of interest
/// to nobody when it fails: the count of those that stayed is returned.
pub(crate) fn remove_keys(plan: &Plan, client: &mut Client) -> u32 {
    let path = plan.path();
    let removed = (0..plan.keys.min(plan.publications())).map(|key| {
        let data = format!("{{\"id\":\"{}\",\"deleted\":true,\"run\":\"{:016x}\"}}", key_name(key), plan.run);
        publish(client, &path, &data)
    });
    // After the first failure the others would fail too, each with its own timeout.
    let done = removed.take_while(Result::is_ok).count();
    plan.keys.min(plan.publications()) - u32::try_from(done).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rate: u32, seconds: f64, keys: u32) -> Plan {
        Plan {
            run: 1,
            subscription: SubscriptionName::new("tasks").unwrap(),
            message_type: MessageType::new("task_event").unwrap(),
            rate,
            duration: Duration::from_secs_f64(seconds),
            size: 256,
            keys,
        }
    }

    #[test]
    fn a_plan_has_rate_times_seconds_publications() {
        assert_eq!(plan(50, 10.0, 0).publications(), 500);
        assert_eq!(plan(1, 0.5, 0).publications(), 1);
        assert_eq!(plan(100_000, 86_400.0, 0).publications(), u32::MAX);
    }

    #[test]
    fn keys_come_in_turn_and_none_without_keys() {
        assert_eq!((0..4).map(|seq| plan(1, 1.0, 3).key(seq)).collect::<Vec<_>>(), [0, 1, 2, 0].map(Some));
        assert_eq!(plan(1, 1.0, 0).key(5), None);
    }

    #[test]
    fn refusals_are_counted_by_reason_and_bounded() {
        let mut published = Published::default();
        for number in 0..100 {
            published.refused("HTTP 503: busy".to_owned());
            published.refused(number.to_string());
        }
        assert!(published.refusals.len() <= REFUSALS_MAX + 1);
        assert_eq!(published.refusals.values().sum::<u64>(), 200);
    }
}
