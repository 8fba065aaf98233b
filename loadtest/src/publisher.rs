//! The publisher: some threads, each with one keep-alive connection, that publish at a fixed rate. A group of
//! publications that is due at one time goes out in one write, one request right behind the other (HTTP
//! pipelining), and its answers are read after it. Each publication is stamped with the time at which it was
//! due, not with that at which it was written: a server that keeps its publisher waiting would otherwise hide
//! how late it is (coordinated omission). All of one subscription go through the same thread, so that their
//! order is that of their numbers.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::clock::Clock;
use crate::marker::{Marker, Padding, key_name};
use crate::names::Channels;
use crate::peer::Outlet;
use crate::target::Target;

/// Different refusals that are kept apart in the report.
const REFUSALS_MAX: usize = 8;

/// What is published, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) run: u64,
    pub(crate) channels: Channels,
    /// Groups of publications per second.
    pub(crate) rate: u32,
    /// Publications of a group, which are published back to back.
    pub(crate) burst: u32,
    pub(crate) duration: Duration,
    /// Bytes of `data`.
    pub(crate) size: usize,
    pub(crate) padding: Padding,
    /// Different keys of each subscription, in turn; 0 leaves the key out.
    pub(crate) keys: u32,
    /// Threads, each with a connection.
    pub(crate) publishers: u32,
}

impl Plan {
    /// How many publications the whole run has.
    pub(crate) fn publications(&self) -> u32 {
        self.groups().saturating_mul(self.burst)
    }

    fn groups(&self) -> u32 {
        let exact = self.duration.as_secs_f64() * f64::from(self.rate);
        // The conversion saturates; a fraction of a group is a group.
        exact.ceil() as u32
    }

    /// The key of publication `seq`.
    pub(crate) fn key(&self, seq: u32) -> Option<u32> {
        (seq / self.channels.count() as u32).checked_rem(self.keys)
    }

    /// The data of publication `seq`.
    pub(crate) fn data(&self, seq: u32, nanos: u64) -> String {
        Marker { run: self.run, seq, nanos }.data(self.key(seq), self.size, self.padding)
    }

    /// Which of the publishers publishes `seq`.
    fn publisher_of(&self, seq: u32) -> u32 {
        self.channels.of_publication(seq) as u32 % self.publishers
    }
}

/// What became of the plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    /// Publications whose request was written.
    pub(crate) begun: u64,
    /// Whether each publication of the plan was acknowledged.
    pub(crate) acknowledged: Vec<bool>,
    /// Why publications were not acknowledged, and how many.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Groups that began more than one interval after they were due.
    pub(crate) late: u64,
}

impl Published {
    fn of(plan: &Plan) -> Self {
        Self { acknowledged: vec![false; plan.publications() as usize], ..Self::default() }
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.iter().filter(|acknowledged| **acknowledged).count() as u64
    }

    fn refused(&mut self, why: String, count: u64) {
        let full = self.refusals.len() >= REFUSALS_MAX && !self.refusals.contains_key(&why);
        *self.refusals.entry(if full { "other reasons".to_owned() } else { why }).or_default() += count;
    }

    /// Adds what another publisher did of the same plan.
    fn add(&mut self, other: Self) {
        self.begun += other.begun;
        self.late += other.late;
        for (own, acknowledged) in self.acknowledged.iter_mut().zip(other.acknowledged) {
            *own |= acknowledged;
        }
        for (why, count) in other.refusals {
            self.refused(why, count);
        }
    }
}

/// The running publishers. Dropping them stops each after the publications that it is at.
pub(crate) struct Publisher {
    plan: Plan,
    threads: Vec<JoinHandle<Published>>,
    /// Never written to: their end is the signal to stop.
    _stop: Vec<SyncSender<()>>,
}

impl Publisher {
    /// Starts at once with connections that are already there.
    pub(crate) fn start(plan: &Plan, target: &Target, headers: &str, clock: Clock) -> anyhow::Result<Self> {
        let outlets: Vec<Outlet> = (0..plan.publishers)
            .map(|_| Outlet::open(target, headers, &plan.channels))
            .collect::<Result<_, _>>()?;
        let (mut threads, mut stops) = (Vec::new(), Vec::new());
        for (number, mut outlet) in (0..).zip(outlets) {
            let (stop, stopped) = sync_channel(0);
            let plan = plan.clone();
            let thread = std::thread::Builder::new()
                .name("publisher".to_owned())
                .spawn(move || run(&plan, number, &mut outlet, clock, &stopped))
                .context("cannot start a publisher's thread")?;
            threads.push(thread);
            stops.push(stop);
        }
        Ok(Self { plan: plan.clone(), threads, _stop: stops })
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end and says what came of it.
    pub(crate) fn finish(self) -> anyhow::Result<Published> {
        let mut published = Published::of(&self.plan);
        for thread in self.threads {
            published.add(thread.join().map_err(|_| anyhow::anyhow!("a publisher's thread panicked"))?);
        }
        Ok(published)
    }
}

fn run(plan: &Plan, number: u32, outlet: &mut Outlet, clock: Clock, stopped: &Receiver<()>) -> Published {
    let mut published = Published::of(plan);
    let (began, began_nanos) = (Instant::now(), clock.nanos());
    let interval = Duration::from_secs(1) / plan.rate;
    for group in 0..plan.groups() {
        let seqs = group.saturating_mul(plan.burst)..group.saturating_add(1).saturating_mul(plan.burst);
        let own: Vec<u32> = seqs.filter(|seq| plan.publisher_of(*seq) == number).collect();
        if own.is_empty() {
            continue;
        }
        let due = Duration::from_secs_f64(f64::from(group) / f64::from(plan.rate));
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
        let due_nanos = began_nanos.saturating_add(u64::try_from(due.as_nanos()).unwrap_or(u64::MAX));
        let item = |seq: &u32| (plan.channels.of_publication(*seq), plan.data(*seq, due_nanos));
        let items: Vec<(usize, String)> = own.iter().map(item).collect();
        published.begun += items.len() as u64;
        for (seq, outcome) in own.iter().zip(outlet.publish(&items)) {
            match outcome {
                Ok(()) => published.acknowledged[*seq as usize] = true,
                Err(error) => published.refused(format!("{error:#}"), 1),
            }
        }
    }
    published
}

/// Removes the values that a run left under its keys, so that the server's state is as it was. Of interest
/// to nobody when it fails: the count of those that stayed is returned.
pub(crate) fn remove_keys(plan: &Plan, outlet: &mut Outlet) -> u32 {
    let channels = plan.channels.count() as u32;
    let keys = plan.keys.min(plan.publications().div_ceil(channels));
    let mut removed = 0;
    for key in 0..keys {
        let data = format!("{{\"id\":\"{}\",\"deleted\":true,\"run\":\"{:016x}\"}}", key_name(key), plan.run);
        let items: Vec<(usize, String)> =
            (0..channels as usize).map(|channel| (channel, data.clone())).collect();
        // After the first failure the others would fail too, each with its own timeout.
        if outlet.publish(&items).iter().any(Result::is_err) {
            break;
        }
        removed += channels;
    }
    keys * channels - removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rate: u32, seconds: f64, keys: u32) -> Plan {
        Plan {
            run: 1,
            channels: Channels::one("tasks".parse().unwrap(), "task_event".parse().unwrap()),
            rate,
            burst: 1,
            duration: Duration::from_secs_f64(seconds),
            size: 256,
            padding: Padding::Plain,
            keys,
            publishers: 1,
        }
    }

    #[test]
    fn a_plan_has_rate_times_seconds_publications() {
        assert_eq!(plan(50, 10.0, 0).publications(), 500);
        assert_eq!(plan(1, 0.5, 0).publications(), 1);
        assert_eq!(plan(100_000, 86_400.0, 0).publications(), u32::MAX);
        let bursts = Plan { burst: 50, ..plan(2, 3.0, 0) };
        assert_eq!(bursts.publications(), 300);
        assert_eq!(Plan { burst: 50, ..plan(100_000, 86_400.0, 0) }.publications(), u32::MAX);
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
            published.refused("HTTP 503: busy".to_owned(), 1);
            published.refused(number.to_string(), 1);
        }
        assert!(published.refusals.len() <= REFUSALS_MAX + 1);
        assert_eq!(published.refusals.values().sum::<u64>(), 200);
    }
}
